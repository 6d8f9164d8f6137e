"""Paired comparisons: exact p-values, corrected for their number, on common seeds."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import curve, failed, floor, frame, row, seeds, table

from labcore.errors import LabError
from labcore.stats import compare, holm, paired, sign_flip

A, B, C = "samplers:ddim(eta=0.0)", "samplers:heun", "acme:ab2"


def versus(a, b, **given):
    return frame(seeds(a, sampler=A, **given), seeds(b, sampler=B, **given))


@pytest.mark.parametrize("k", [2, 5, 9])
def test_sign_flip_is_the_exact_permutation_test(k):
    rng = np.random.default_rng(k)
    for d in rng.normal(0.4, 1.0, (5, k)):
        want = scipy.stats.permutation_test(
            (d, np.zeros(k)),
            lambda x, y, axis: np.abs((x - y).sum(axis=axis)),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative="greater",
        )
        assert sign_flip(d) == pytest.approx(want.pvalue, abs=1e-12)


def test_sign_flip_is_uniform_under_the_null():
    """8 pairs: p takes 128 values, each with probability 1/128. Chi-square over 8000 draws,
    rejected at 1e-3; doubling the p of the most extreme 5 % would be seen with probability > 0.99.
    """
    d = np.random.default_rng(1).standard_t(3, (8000, 8))
    p = np.array([sign_flip(x) for x in d])
    counts = np.bincount(np.rint(p * 128).astype(int), minlength=129)[1:]
    assert counts.sum() == 8000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_sign_flip_edges():
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([1.0]) == 1.0
    assert sign_flip([0.1] * 5) == 2 / 2**5
    assert np.isnan(sign_flip([]))
    with pytest.raises(LabError, match="17 pairs, at most 16"):
        sign_flip(np.ones(17))


def test_holm_by_hand():
    p = [0.01, 0.04, 0.03, np.nan, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, np.nan, 0.02], nan_ok=True)
    assert holm([]).size == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """Adjusted p_i = max over subsets S with i of min(1, |S| min p_S)."""
    p = np.array(p)
    want = np.zeros(len(p))
    for mask in range(1, 2 ** len(p)):
        subset = [i for i in range(len(p)) if mask >> i & 1]
        want[subset] = np.maximum(want[subset], min(1.0, len(subset) * p[subset].min()))
    assert holm(p) == pytest.approx(want)


def test_holm_keeps_the_familywise_error():
    """2000 families of 12 true nulls at 0.05: 0.05 +- 0.0195 (4 sd); uncorrected it is 0.46."""
    p = np.random.default_rng(0).uniform(size=(2000, 12))
    wrong = np.mean([holm(row).min() < 0.05 for row in p])
    assert wrong == pytest.approx(0.05, abs=0.0195)


def test_difference_and_interval_are_those_of_the_pairs():
    a, b = [1.0, 2.0, 3.0, 4.0], [0.9, 1.7, 2.4, 3.9]
    out = paired(versus(a, b), "ddim", "heun").iloc[0]
    d = np.subtract(a, b)
    want = scipy.stats.t.interval(0.95, 3, d.mean(), scipy.stats.sem(d))
    assert (out["a"], out["b"]) == (A, B)
    assert out["difference"] == pytest.approx(d.mean())
    assert (out["lo"], out["hi"]) == pytest.approx(want)
    assert (out["mean_a"], out["mean_b"]) == pytest.approx((np.mean(a), np.mean(b)))
    assert (out["p"], out["test"], out["pairs"]) == (2 / 2**4, "sign flip", 4)


def test_swapping_the_samplers_swaps_the_sign():
    rows = versus([1.0, 2.0, 3.5], [0.9, 2.7, 2.4])
    one, other = paired(rows, A, B).iloc[0], paired(rows, B, A).iloc[0]
    assert one["difference"] == -other["difference"]
    assert (one["lo"], one["hi"]) == (-other["hi"], -other["lo"])
    assert one["p"] == other["p"]


def test_common_seeds_find_what_independent_ones_cannot():
    """A shared noise 50 times the difference cancels in the pairs."""
    shared = np.random.default_rng(0).normal(0, 5, 12)
    own = np.random.default_rng(1).normal(0, 0.01, 12)
    out = paired(versus(10 + shared + 0.1 + own, 10 + shared), A, B).iloc[0]
    assert out["p"] == 2 / 2**12
    assert 0.09 < out["lo"] < out["hi"] < 0.11


def test_interval_of_the_difference_covers_at_its_level():
    """2000 settings of 4 pairs: 0.95 +- 0.0195 (4 sd); the normal quantile would cover 0.855."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 9, (2000, 4)), rng.normal(1, 1, (2000, 4))
    settings, seed = np.indices((2000, 4)).reshape(2, -1)
    sides = ((A, shared + own), (B, shared))
    tables = [
        table({"n": settings, "seed": seed, "value": values.ravel()}, sampler=sampler)
        for sampler, values in sides
    ]
    out = paired(pd.concat(tables).drop(columns="key"), A, B)
    assert len(out) == 2000
    assert ((out["lo"] <= 1) & (out["hi"] >= 1)).mean() == pytest.approx(0.95, abs=0.0195)


def test_many_pairs_take_the_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 30), rng.normal(0, 1, 30)
    out = paired(versus(a, b), A, B).iloc[0]
    assert out["test"] == "t"
    assert out["p"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, rel=1e-9)
    same = paired(versus(a, a), A, B).iloc[0]
    assert same["p"] == 1.0
    shifted = paired(versus(np.arange(20.0) + 1, np.arange(20.0)), A, B).iloc[0]
    assert shifted["p"] == 0.0


def test_seeds_lost_to_failures_are_counted():
    rows = versus([1.0, np.nan, 3.0, 4.0], [0.5, 1.0, np.nan, 3.0])
    out = paired(rows, A, B).iloc[0]
    assert (out["pairs"], out["failures"]) == (2, 2)
    assert out["difference"] == pytest.approx(0.75)


def test_only_seeds_of_both_are_paired():
    rows = frame(seeds([1.0, 2.0, 3.0], sampler=A), [row(seed=2, value=1.0, sampler=B)])
    out = paired(rows, A, B).iloc[0]
    assert (out["pairs"], out["difference"]) == (1, 2.0)
    assert np.isnan([out["lo"], out["hi"]]).all()
    assert out["p"] == 1.0


def test_all_failed_is_a_row_without_p():
    rows = frame(
        versus([np.nan, np.nan], [1.0, 2.0]).to_dict("records"),
        versus([1.0, 2.0], [1.0, 3.0], steps=20, nfe=20).to_dict("records"),
    )
    out = paired(rows, A, B).set_index("nfe")
    assert (out.loc[10, "pairs"], out.loc[10, "failures"]) == (0, 2)
    assert np.isnan(out.loc[10, ["p", "p_holm"]].to_numpy(dtype=float)).all()
    assert out.loc[20, "p_holm"] == out.loc[20, "p"]


def test_samplers_meet_at_equal_nfe_or_at_equal_steps():
    one = [r for k in (10, 20, 40) for r in seeds([1 / k] * 3, steps=k, nfe=k, sampler=A)]
    two = [r for k in (10, 20, 40) for r in seeds([2 / k] * 3, steps=k, nfe=2 * k, sampler=B)]
    assert paired(frame(one, two), A, B)["nfe"].tolist() == [20, 40]
    assert paired(frame(one, two), A, B, at="steps")["steps"].tolist() == [10, 20, 40]


def test_a_failed_cell_meets_its_partner_at_the_nfe_it_was_meant_to_take():
    rows = frame(
        seeds([1.0, 2.0], sampler=A),
        [row(seed=0, sampler=B), failed(seed=1, sampler=B, nfe=3)],
    )
    out = paired(rows, A, B).iloc[0]
    assert (out["pairs"], out["failures"]) == (1, 1)


def test_a_difference_below_the_floor_is_flagged():
    sure = versus([0.010, 0.011, 0.012], [0.001, 0.002, 0.003])
    assert paired(sure, A, B)["above_floor"].isna().all()
    for height, above in ((0.05, False), (0.005, True)):
        rows = frame(sure.to_dict("records"), floor([height] * 40))
        assert paired(rows, A, B)["above_floor"].tolist() == [above]


def test_compare_corrects_over_all_pairs_and_settings():
    rng = np.random.default_rng(0)
    rows = frame(
        *(
            curve(lambda k: 1 / k, (10, 20), 1 + rng.normal(0, 0.1, 6), sampler=s)
            for s in (A, B, C)
        )
    )
    out = compare(rows)
    assert set(zip(out["a"], out["b"], strict=True)) == {(A, B), (A, C), (B, C)}
    assert len(out) == 6
    assert out["p_holm"].to_numpy() == pytest.approx(holm(out["p"]))
    two = compare(rows, ["heun", "ab2"])
    assert two["difference"].to_numpy() == pytest.approx(paired(rows, B, C)["difference"])


def test_nothing_in_common_is_an_error():
    rows = frame(seeds([1.0], sampler=A, nfe=10), seeds([1.0], sampler=B, nfe=11))
    with pytest.raises(LabError, match="share no seed at equal nfe"):
        paired(rows, A, B)
    with pytest.raises(LabError, match="no two samplers"):
        compare(rows)
    with pytest.raises(LabError, match="sampler 'euler': not in these results"):
        paired(rows, A, "euler")

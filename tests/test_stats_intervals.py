"""Means with intervals over seeds and noise floors: their coverage, and what failures do."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import OF_A_FLOOR, failed, floor, frame, row, seeds, table

from labcore.errors import LabError
from labcore.stats import bare, cells, find, floors, resolved, summarise, with_floors


def test_interval_is_students():
    values = [1.0, 1.4, 0.7, 1.1]
    out = summarise(frame(seeds(values)), level=0.9).iloc[0]
    want = scipy.stats.t.interval(0.9, 3, np.mean(values), scipy.stats.sem(values))
    assert (out["lo"], out["hi"]) == pytest.approx(want, rel=1e-12)
    assert out["mean"] == pytest.approx(np.mean(values))
    assert (out["count"], out["failures"]) == (4, 0)


def test_interval_covers_at_its_level():
    """4000 settings of 5 seeds: 0.95 +- 0.0138 (4 sd). The normal quantile would cover 0.878."""
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, (4000, 5))
    rows = frame(*(seeds(v, n=1000 + i) for i, v in enumerate(values)))
    out = summarise(rows)
    assert ((out["lo"] <= 3.0) & (out["hi"] >= 3.0)).mean() == pytest.approx(0.95, abs=0.0138)


def test_one_seed_has_a_mean_and_no_interval():
    out = summarise(frame(seeds([2.0]))).iloc[0]
    assert (out["mean"], out["count"]) == (2.0, 1)
    assert np.isnan(out[["lo", "hi", "sd"]].to_numpy(dtype=float)).all()


def test_a_setting_whose_cells_all_failed_is_a_row():
    out = summarise(frame(seeds([np.nan, np.nan, np.nan]), seeds([1.0], steps=20, nfe=20)))
    assert len(out) == 2
    assert np.isnan(out.loc[0, "mean"])
    assert out[["count", "failures"]].to_numpy().tolist() == [[0, 3], [1, 0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_a_failure(value):
    out = summarise(frame([row(value=value), row(seed=1, value=4.0)])).iloc[0]
    assert (out["mean"], out["count"], out["failures"]) == (4.0, 1, 1)


@pytest.mark.parametrize("status", ["failed", "timeout", "killed", "invalid"])
def test_the_value_of_a_failed_cell_is_not_used(status):
    out = summarise(frame([row(value=9.0, status=status), row(seed=1, value=4.0)])).iloc[0]
    assert (out["mean"], out["failures"]) == (4.0, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from([5, 10]), st.integers(0, 3), st.booleans()
        ),
        unique_by=lambda c: c[:3],
        min_size=1,
    )
)
def test_every_cell_is_counted_once(drawn):
    rows = [(row if ok else failed)(sampler=s, steps=k, nfe=k, seed=i) for s, k, i, ok in drawn]
    shuffled = frame(rows).sample(frac=1.0, random_state=0)
    out = summarise(shuffled)
    assert out["count"].sum() == sum(ok for *_, ok in drawn)
    assert out["failures"].sum() == sum(not ok for *_, ok in drawn)
    assert len(out) == len({(s, k) for s, k, *_ in drawn})


def test_cells_that_share_a_seed_are_one_draw():
    """Pooled over grids, 2 grids x 2 seeds are 2 draws, not 4."""
    rows = frame(seeds([1.0, 3.0], grid="a"), seeds([2.0, 6.0], grid="b"))
    out = summarise(rows, by=["sampler", "metric"]).iloc[0]
    want = scipy.stats.t.interval(0.95, 1, 3.0, scipy.stats.sem([1.5, 4.5]))
    assert (out["mean"], out["count"]) == (3.0, 2)
    assert (out["lo"], out["hi"]) == pytest.approx(want)


def test_a_failed_cell_without_metric_fails_every_metric_of_its_study():
    rows = frame(
        seeds([1.0], metric="m:w2"),
        [row(seed=0, metric="m:moments.mean"), row(seed=0, metric="m:moments.cov")],
        [row(seed=0, metric="m:moments_of.x")],
        [failed(seed=1, metric="m:moments"), failed(seed=2, metric=None)],
        [row(seed=0, metric="m:elsewhere", study="other")],
    )
    lost = summarise(rows).set_index("metric")["failures"].to_dict()
    moments = {"m:moments.mean": 2, "m:moments.cov": 2, "m:moments_of.x": 1}
    assert lost == {"m:w2": 1, **moments, "m:elsewhere": 0}


def test_a_cell_of_two_studies_counts_once_and_a_rerun_replaces_its_failure():
    shared = frame([row(value=2.0), row(value=2.0, study="again")])
    assert summarise(shared)["count"].tolist() == [1]
    rerun = summarise(frame([failed(), row(value=2.0)])).iloc[0]
    back = summarise(frame([row(value=2.0), failed()])).iloc[0]
    for out in (rerun, back):
        assert (out["mean"], out["count"], out["failures"]) == (2.0, 1, 0)


def test_budgets_in_nfe_are_settings_of_their_own():
    rows = frame(*(seeds([v, v], steps=np.nan, nfe=k) for k, v in ((10, 1.0), (20, 0.5))))
    out = summarise(rows)
    assert out[["nfe", "mean"]].to_numpy().tolist() == [[10, 1.0], [20, 0.5]]


def test_a_failed_cell_sits_at_the_nfe_it_would_have_taken():
    heun = [row(sampler="heun", steps=k, nfe=2 * k, seed=0) for k in (10, 20)]
    stopped = [
        failed(sampler="heun", steps=10, nfe=3, seed=1),
        failed(sampler="heun", steps=40, nfe=np.nan, seed=1),
        failed(sampler="unknown", steps=7, nfe=np.nan, seed=1),
    ]
    out = cells(frame(heun, stopped))
    assert out["nfe"].tolist() == [20, 40, 20, 80, 7]


def test_the_frame_is_left_alone():
    rows = frame(seeds([1.0, np.nan]), floor([0.1, 0.2]))
    before = rows.copy(deep=True)
    summarise(rows)
    floors(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_rows_of_an_object_frame_read_alike():
    """As a store gives them: objects, and None where a number is missing."""
    rows = frame(seeds([1.0, 2.0]), seeds([1.5, np.nan], steps=None, nfe=30))
    pd.testing.assert_frame_equal(summarise(rows), summarise(rows.astype(object)))


@pytest.mark.parametrize("count", [5, 12, 60])
def test_floor_band_holds_the_next_repeat(count):
    """4000 floors: 0.95 +- 0.0138 at 4 sd. The extremes of 5 repeats alone would hold 0.67."""
    rng = np.random.default_rng(count)
    draws = rng.normal(0.0, 1.0, (4000, count + 1))
    settings, repeats = np.indices((4000, count)).reshape(2, -1)
    columns = {"n": settings, "seed": repeats, "value": draws[:, 1:].ravel()}
    band = floors(table(columns, **OF_A_FLOOR))
    inside = (band["lo"] <= draws[:, 0]) & (draws[:, 0] <= band["hi"])
    assert inside.mean() == pytest.approx(0.95, abs=0.0138)
    assert band["mean"].to_numpy() == pytest.approx(draws[:, 1:].mean(axis=1))


def test_floor_of_a_single_repeat_has_no_band():
    out = floors(frame(floor([0.3, np.nan]))).iloc[0]
    assert (out["mean"], out["count"], out["failures"]) == (0.3, 1, 1)
    assert np.isnan(out["hi"])


def test_the_process_own_floor_goes_first():
    rows = frame(
        seeds([1.0, 1.2], against="t_eps", process="linear:vp"),
        seeds([1.0, 1.2], against="t_eps", process="linear:ve"),
        seeds([1.0, 1.2], against="data"),
        floor([5.0] * 3, against="t_eps", process="linear:ve"),
        floor([2.0] * 3, against="t_eps"),
        floor([0.1] * 3, against="data"),
        floor([9.0] * 3, against="data", n=77),
    )
    out = with_floors(summarise(rows), floors(rows))
    assert out["floor_mean"].tolist() == pytest.approx([2.0, 5.0, 0.1])
    assert out["resolved"].tolist() == [False, False, True]


def test_without_a_floor_nothing_is_called_resolved():
    rows = frame(seeds([1.0, 1.2]), seeds([np.nan], steps=20, nfe=20), floor([0.1] * 9, n=5))
    out = with_floors(summarise(rows), floors(rows))
    assert out["resolved"].isna().all()
    several = frame(seeds([1.0]), floor([0.1] * 3), floor([0.2] * 3, target="other"))
    pooled = summarise(several, by=["sampler", "metric"])
    assert with_floors(pooled, floors(several))["resolved"].isna().all()


def test_resolved_looks_to_the_worse_side():
    band = {"lo": 0.2, "hi": 0.4}
    assert resolved(np.array([0.1, 0.3, 0.5, np.nan]), band).tolist() == [
        False,
        False,
        True,
        False,
    ]
    higher = resolved(np.array([0.1, 0.3, 0.5]), band, better="higher")
    assert higher.tolist() == [True, False, False]


def test_an_exact_sampler_is_seldom_called_resolved():
    """Null of 3000 single-seed settings, each with its own 60 repeats: 2.5 % +- 1.2 % at 4 sd."""
    draws = np.random.default_rng(3).exponential(size=(3000, 61))
    settings, repeats = np.indices((3000, 60)).reshape(2, -1)
    columns = {"n": settings, "seed": repeats, "value": draws[:, 1:].ravel()}
    floor_rows = table(columns, **OF_A_FLOOR)
    rows = table({"n": np.arange(3000), "value": draws[:, 0]})
    share = with_floors(summarise(rows), floors(floor_rows))["resolved"].mean()
    assert share == pytest.approx(0.025, abs=0.012)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("samplers:ddim(eta=0.0)", "ddim"),
        ("metrics:moments(order=2).mean", "moments.mean"),
        ("acme:pc(inner=samplers:ddim(eta=0))", "pc"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_bare_name(label, name):
    assert bare(label) == name


def test_a_short_name_finds_its_only_label():
    labels = ["a:ddim(eta=0)", "b:heun", "c:heun"]
    assert find(labels, "ddim", "sampler") == "a:ddim(eta=0)"
    assert find(labels, "c:heun", "sampler") == "c:heun"
    with pytest.raises(LabError, match=r"'heun': may be b:heun or c:heun"):
        find(labels, "heun", "sampler")
    with pytest.raises(LabError, match=r"'euler': not in these results; there are a:ddim"):
        find(labels, "euler", "sampler")


def test_bad_calls_are_named():
    rows = frame(seeds([1.0, 2.0]))
    with pytest.raises(LabError, match="no column seed"):
        summarise(rows.drop(columns="seed"))
    with pytest.raises(LabError, match="no column colour"):
        summarise(rows, by=["sampler", "colour"])
    with pytest.raises(LabError, match="level 95"):
        summarise(rows, level=95)


def test_no_rows_give_no_settings():
    rows = frame(seeds([1.0])).iloc[:0]
    assert summarise(rows).empty
    assert floors(rows).empty


def test_a_floor_of_two_studies_counts_once():
    rows = floor([0.1, 0.2])
    again = [{**r, "study": "again"} for r in rows]
    assert floors(frame(rows, again))["count"].tolist() == [2]


def test_floors_that_end_at_different_times_are_not_pooled():
    rows = frame(
        seeds([1.0], against="t_eps", t_eps=1e-3),
        floor([0.1] * 3, against="t_eps", t_eps=1e-3),
        floor([2.0] * 3, against="t_eps", t_eps=1e-1),
    )
    assert with_floors(summarise(rows), floors(rows))["floor_mean"].tolist() == pytest.approx(
        [0.1]
    )
    unknown = with_floors(summarise(rows.assign(t_eps=np.nan).iloc[:1]), floors(rows))
    assert unknown["resolved"].isna().all()
    only = rows[rows["t_eps"] < 0.01].assign(t_eps=rows["t_eps"].where(rows["kind"] == "floor"))
    assert with_floors(summarise(only), floors(only))["floor_mean"].tolist() == pytest.approx(
        [0.1]
    )
    ends = (seeds([1.0], t_eps=t, grid=f"to {t}") for t in (1e-3, 1e-2))
    data = frame(*ends, floor([0.3] * 3, t_eps=None))
    assert with_floors(summarise(data), floors(data))["floor_mean"].tolist() == [0.3, 0.3]


def test_the_band_of_a_mean_over_seeds_covers_exact_means() -> None:
    """Means over 4 seeds of exact cells fall in the band of 10 repeats 95 % of the time.

    4000 trials: the share's standard error is 0.35 %, and one seed's band would hold 99.97 %.
    """
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(4000):
        repeats = rng.normal(size=10)
        mean = rng.normal(size=4).mean()
        summary = pd.DataFrame({"target": ["t"], "mean": [mean], "count": [4]})
        measured = pd.DataFrame(
            {
                "target": ["t"],
                "process": [""],
                "mean": [repeats.mean()],
                "sd": [repeats.std(ddof=1)],
                "lo": [np.nan],
                "hi": [np.nan],
                "count": [10],
            }
        )
        got = with_floors(summary, measured).iloc[0]
        inside += got["floor_lo"] <= got["mean"] <= got["floor_hi"]
    assert abs(inside / 4000 - 0.95) < 0.015

"""Figures of scores: the values drawn are the rows' means and the errors on the plane."""

import numpy as np
import pandas as pd
import pytest
import torch

from labcore import LabError
from labcore.gallery import figures
from labcore.plots import score_curve, score_map, short_names
from labcore.stats import over_trainings, summarise
from labcore_linear import cld, vp
from labcore_scores.exact import exact
from labcore_scores.perturbed import perturbed
from labcore_targets.mixtures import gmm_ring

TIMES = (0.01, 0.1, 1.0)


def rows(scores: dict[str, float], cell_seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    """Rows of fisher at three times and its integral: value / t, and value."""
    found = []
    for score, value in scores.items():
        for seed in cell_seeds:
            values = {"integral": value} | {f"t={t:g}": value / t for t in TIMES}
            found += [
                {
                    "kind": "cell", "status": "ok", "seed": seed, "score": score,
                    "target": "targets:ring", "process": "linear:vp", "grid": "g",
                    "sampler": "s:ddim", "steps": 4, "nfe": 4, "n": 10, "seconds": 1.0,
                    "start": "prior", "end": "stop", "against": "data", "dtype": "float32",
                    "metric": f"metrics:fisher.{name}", "value": v + 0.001 * seed,
                }
                for name, v in values.items()
            ]  # fmt: skip
    return pd.DataFrame(found)


def test_trainings_that_differ_in_their_seed_are_repeats() -> None:
    frame = rows(
        {
            "scores:trained(objective=dsm, steps=9)": 1.0,
            "scores:trained(objective=dsm, seed=1, steps=9)": 2.0,
            "scores:trained(objective=dsm, seed=2, steps=9)": 3.0,
            "scores:trained(seed=7)": 5.0,
            "scores:exact": 0.0,
        },
        cell_seeds=(0, 1),
    )
    table = summarise(over_trainings(frame[frame["metric"] == "metrics:fisher.integral"]))
    found = table.set_index("score")
    dsm = found.loc["scores:trained(objective=dsm, steps=9)"]
    assert dsm["mean"] == pytest.approx(2.0005)
    assert dsm["sd"] == pytest.approx(1.0)
    assert dsm["count"] == 3
    assert found.loc["scores:exact", "count"] == 2  # of a score that is made once, the cells'
    assert found.loc["scores:trained(seed=7)", "count"] == 2
    pd.testing.assert_frame_equal(over_trainings(frame[["metric"]]), frame[["metric"]])


def test_the_curve_draws_means_over_t_with_their_intervals() -> None:
    frame = rows({"a:trained": 1.0, "a:trained(seed=1)": 3.0, "a:exact": 0.5})
    figure = score_curve(frame)
    (ax,) = figure.axes
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in ax.lines}
    assert drawn == {(200.0, 20.0, 2.0), (50.0, 5.0, 0.5)}
    assert [tuple(line.get_xdata()) for line in ax.lines] == [TIMES, TIMES]
    band = ax.collections[0].get_paths()[0].vertices
    half = 12.7062 * np.sqrt(2) / np.sqrt(2)
    assert band[:, 1].max() == pytest.approx((2 + half) * 100, rel=1e-3)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["trained", "exact"]


def test_the_curve_refuses_what_it_would_mix_or_lacks() -> None:
    frame = rows({"a:exact": 0.5})
    with pytest.raises(LabError, match="no row of 'energy' at one time"):
        score_curve(frame, "energy")
    other = frame.assign(target="targets:moons")
    with pytest.raises(LabError, match="several of target"):
        score_curve(pd.concat([frame, other]))


def test_a_gallery_draws_one_figure_of_all_times_and_no_figure_of_each() -> None:
    stems = [stem for stem, _ in figures(rows({"a:exact": 0.5, "a:trained": 1.0}))]
    assert stems == [
        "over_t_fisher_ring",
        "curve_fisher.integral_ring",
        "pareto_fisher.integral_ring",
    ]


def test_the_map_shows_the_error_where_it_is() -> None:
    process, ring = vp(), gmm_ring(modes=4, std=0.3)
    assert ring.mixture is not None
    scores = {
        "exact": exact(process, ring),
        "biased": perturbed(process, ring, bias=0.2),
        "half": lambda x, t: exact(process, ring)(x, t) + (x[:, :1] > 0).to(x),
    }
    figure = score_map(scores, process, ring.mixture, (0.05, 0.5), size=20)
    images = [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]
    assert len(images) == 6
    none, biased, half = images[0], images[2], images[4]
    assert biased == pytest.approx(np.full((20, 20), 0.2 * np.sqrt(2)), rel=1e-3)
    assert none.max() < 0.01 * biased.min()
    sigma = float(process.Sigma(torch.tensor(0.05).double()).param.sqrt())
    assert half[:, 12:] == pytest.approx(np.full((20, 8), sigma * np.sqrt(2)), rel=1e-3)
    assert half[:, :8].max() < 0.01 * half[:, 12:].min()
    with pytest.raises(LabError, match="it draws the plane"):
        score_map({"e": exact(cld(), ring)}, cld(), ring.mixture, (0.5,))


def test_names_keep_the_options_that_tell_them_apart() -> None:
    labels = [
        "scores:trained(batch=2, network=mlp(width=64, depth=2), objective=dsm, steps=3)",
        "s:trained(batch=2, network=mlp(width=64, depth=2), objective=ssm(slices=2), steps=9)",
        "scores:trained(batch=2, network=energy(backbone='mlp(..#ab12cd, objective=nce, steps=3)",
        "scores:exact",
    ]
    assert list(short_names(labels).values()) == [
        "trained(network=mlp(width=64, depth=2), objective=dsm, steps=3)",
        "trained(network=mlp(width=64, depth=2), objective=ssm(slices=2), steps=9)",
        "trained(network=energy(backbone='mlp(..#ab12cd, objective=nce, steps=3)",
        "exact",
    ]
    assert list(short_names(labels[:2]).values()) == [
        "trained(objective=dsm, steps=3)",
        "trained(objective=ssm(slices=2), steps=9)",
    ]

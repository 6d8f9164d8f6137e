"""Galleries: a file for each figure, and every metric drawn in its own direction."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_rows import floor, row, seeds
from synthetic_rows import frame as rows_of
from torch import Tensor

import labcore
from labcore import Study, use
from labcore.gallery import LONGEST, better_of, draw, figures, sheets, slug, slugs
from labcore.parts import Parts
from labcore.registry import load_registry

MEANS = [[-4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
LONG = "targets:mixture(weights=(0.6, 0.3, 0.1), means=((-4.0, 0.0), (4.0, 0.0), (0.0, 4.0)), of="


def frame(*lists: list[dict[str, Any]]) -> pd.DataFrame:
    return rows_of(*lists).assign(dtype="float32")


def of_two_grids(metric: str, worse: float, better: float) -> pd.DataFrame:
    """ddim is fast and worse, heun slow and better, on both grids."""
    made = []
    for grid in ("linear:uniform", "linear:karras"):
        for sampler, value, seconds in (("s:ddim", worse, 1.0), ("s:heun", better, 2.0)):
            named = {"sampler": sampler, "grid": grid, "metric": metric, "seconds": seconds}
            made += seeds([value, value * 1.01, value * 0.99], **named)
    repeats = floor(np.linspace(0.95, 0.99, 40), metric=metric)
    return frame(made, [{**repeat, "key": "floor"} for repeat in repeats])


def drawn(rows: pd.DataFrame, kind: str) -> Figure:
    [(_, figure)] = figures(rows, [kind])
    return figure


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts)


def has_front(figure: Figure) -> tuple[bool, bool]:
    """Whether a front is drawn, and whether the legend speaks of one."""
    lines = [line for ax in figure.axes for line in ax.lines if line.get_gid() == "front"]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    return bool(lines), "Pareto front" in said


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("metrics:prdc.coverage", "higher"),
        ("metrics:prdc(k=3).density", "higher"),
        ("metrics:sliced_w2", "lower"),
        ("metrics:moments.mean_error", "lower"),
        ("diagnostics.acceptance", None),
        ("elsewhere:unknown", None),
    ],
)
def test_the_direction_is_the_one_a_metric_declares(metric: str, better: str | None) -> None:
    assert better_of(metric, load_registry()) == better


def test_the_direction_of_a_scripts_own_metric_is_known_from_its_registry() -> None:
    @labcore.metric(better="higher")
    def share(outcome: labcore.Outcome) -> float:
        return 1.0

    rows = of_two_grids("local:share", worse=0.32, better=0.6)
    [(_, known)] = figures(rows, ["pareto"], registry=load_registry([share]))
    assert has_front(known) == (True, True)
    assert has_front(drawn(rows, "pareto")) == (False, False)


def test_coverage_far_below_that_of_exact_samples_is_not_at_the_floor() -> None:
    rows = of_two_grids("metrics:prdc.coverage", worse=0.32, better=0.97)
    said = texts(drawn(rows, "heatmap"))
    assert said.count("at floor") == 2
    assert "0.32\n± 0.008\nat floor" not in said


def test_the_front_of_coverage_goes_up() -> None:
    rows = of_two_grids("metrics:prdc.coverage", worse=0.32, better=0.6)
    figure = drawn(rows, "pareto")
    [first, *_] = [line for line in figure.axes[0].lines if line.get_gid() == "front"]
    assert np.asarray(first.get_ydata()) == pytest.approx([0.32, 0.6])
    assert has_front(figure) == (True, True)


def test_a_diagnostic_has_no_front_and_is_at_the_floor_only_within_it() -> None:
    rows = of_two_grids("diagnostics.acceptance", worse=0.32, better=1.5)
    assert has_front(drawn(rows, "pareto")) == (False, False)
    assert "at floor" not in texts(drawn(rows, "heatmap"))
    within = of_two_grids("diagnostics.acceptance", worse=0.97, better=1.5)
    assert texts(drawn(within, "heatmap")).count("at floor") == 2


def test_only_of_an_error_is_a_slope_fitted() -> None:
    def said(metric: str) -> str:
        rows = [row(metric=metric, steps=k, nfe=k, value=1 / k, seed=0) for k in (4, 8, 16, 32)]
        return drawn(frame(rows), "curve").legends[0].get_texts()[0].get_text()

    assert "slope" in said("metrics:sliced_w2")
    assert "slope" not in said("metrics:prdc.coverage")


def test_no_legend_of_a_front_where_one_run_beats_all() -> None:
    rows = frame(
        seeds([0.1], sampler="s:ddim", seconds=1.0), seeds([0.5], sampler="s:heun", seconds=2.0)
    )
    assert has_front(drawn(rows, "pareto")) == (False, False)


def test_labels_that_differ_late_or_in_signs_have_files_of_their_own() -> None:
    labels = [f"{LONG}1)", f"{LONG}2)", "t:gaussian(mean=1)", "t:gaussian(mean=-1)", "t:rings"]
    names = slugs(labels)
    assert len({name.lower() for name in names.values()}) == len(labels)
    assert max(map(len, names.values())) <= LONGEST
    assert names["t:rings"] == "rings"
    assert slug(f"{LONG}1)") == names[f"{LONG}1)"]  # the same in a study of its own


def test_figures_of_two_long_targets_are_as_many_files(tmp_path: Path) -> None:
    rows = frame([row(target=f"{LONG}{i})", seed=s) for i in (1, 2) for s in (0, 1)])
    paths = list(draw(rows, tmp_path, kinds=["curve"], formats=["svg"]))
    assert len(paths) == len(set(paths)) == len(list(tmp_path.iterdir())) == 2


@labcore.sampler(order=1, evals=1)
def short(  # type: ignore[no-untyped-def]
    process, score, x, ts, noise
) -> Iterator[Tensor]:
    """Yields one state too few."""
    for _ in ts[2:]:
        yield x


def sheet_of(**axes: object) -> Figure:
    given = {
        **{"name": "s", "question": "?", "target": "gmm_ring", "process": "vp"},
        **{"grid": "log_snr", "seed": [0], "n": 8, "metrics": ["sliced_w2"]},
    }
    study = Study(**{**given, **axes})  # type: ignore[arg-type]
    registry = study.registry()
    [(_, figure)] = sheets(study.cells(registry), Parts(registry))
    return figure


def table(figure: Figure) -> dict[tuple[str, str], str]:
    """What is written under or in each panel, by sampler and column title."""
    axes = figure.axes
    titles = [ax.get_title() for ax in axes if ax.get_title()]
    found = {}
    for i, ax in enumerate(axes):
        name = axes[i - i % len(titles)].get_ylabel()
        said = [ax.get_xlabel(), *(text.get_text() for text in ax.texts)]
        found[name, titles[i % len(titles)]] = " ".join(t for t in said if "outside" not in t)
    return found


def test_a_sampler_that_fails_leaves_the_sheet_to_the_others() -> None:
    said = table(sheet_of(sampler=["local:short", "ddim"], nfe=[4], entries=[short]))
    assert said["short", "4 NFE"].split() == ["failed", "SamplerError"]
    assert not said["ddim", "4 NFE"].strip()


@pytest.mark.parametrize("end", ["stop", "denoise"])
def test_pictures_stand_under_the_budget_that_was_asked_for(end: str) -> None:
    samplers = ["ddim", "samplers:heun", "samplers:rk4"]
    said = table(sheet_of(sampler=samplers, nfe=[10, 11, 20], end=end))
    last = end == "denoise"
    for budget in (10, 11, 20):
        for sampler, evals in (("ddim", 1), ("heun", 2), ("rk4", 4)):
            cost = (budget - last) // evals * evals + last
            note = f"{cost} NFE" if cost != budget else ""
            assert said[sampler, f"{budget} NFE"].strip() == note
    assert {title for _, title in said} == {"10 NFE", "11 NFE", "20 NFE"}


def test_equal_steps_stand_beside_each_other_with_their_costs() -> None:
    said = table(sheet_of(sampler=["ddim", "samplers:heun"], steps=[1, 4]))
    assert said["heun", "1 step"].strip() == "2 NFE"
    assert [said[name, "4 steps"].strip() for name in ("ddim", "heun")] == ["4 NFE", "8 NFE"]


def test_the_grid_is_named_where_there_are_several() -> None:
    def title(**axes: object) -> str:
        return sheet_of(sampler="ddim", nfe=[4], **axes).get_suptitle()

    assert title(grid=["log_snr", "karras"]) == "grid log_snr"
    assert title(grid=["karras", "log_snr"], end=["stop", "denoise"]) == "grid karras, end stop"
    assert title() == ""


def test_a_sampler_without_the_sheets_grid_says_its_own() -> None:
    said = table(
        sheet_of(
            sampler=["ddim", "samplers:heun"],
            grid=["log_snr", "karras"],
            nfe=[4],
            where=lambda cell: ("ddim" in str(cell.sampler)) == ("log_snr" in str(cell.grid)),
        )
    )
    assert said["heun", "4 NFE"].strip() == "grid karras"
    assert not said["ddim", "4 NFE"].strip()


def test_sheets_of_two_mixtures_of_like_names_are_two() -> None:
    study = Study(
        name="two", question="?", process="vp", grid="log_snr", sampler="ddim", nfe=[2], seed=[0],
        n=4, metrics=["sliced_w2"],
        target=[
            use("mixture", weights=[0.6, 0.3, 0.1], means=MEANS, covs=[[[v, 0.0], [0.0, v]]] * 3)
            for v in (0.25, 0.01)
        ],
    )  # fmt: skip
    registry = study.registry()
    stems = [stem for stem, _ in sheets(study.cells(registry), Parts(registry))]
    assert len(set(stems)) == 2

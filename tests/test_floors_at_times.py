"""Cells held against p_{t_eps}: each grid's end has a law and a noise floor of its own."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import labcore
from labcore import plots, stats, use
from labcore.lab import run_study
from labcore.parts import Parts
from labcore.store import open_store, rows
from labcore.study import Floor

ENDS = (0.01, 0.9)
SPEC = rows._spec


@labcore.grid
def to(
    process: labcore.Process, n: int, *, t_eps: float | None = None, end: float = 0.1 * 0.1
) -> Tensor:
    """Equal steps to ``end``; 0.1 * 0.1 is not quite 0.01."""
    return torch.linspace(process.T, end, n + 1, dtype=torch.float64)


@labcore.metric(better="lower")
def mean_square(outcome: labcore.Outcome) -> float:
    """Of the samples: on a mixture, near |x0|^2 at small t and near d at large ones."""
    return float(outcome.samples.double().square().sum(-1).mean())


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    store = tmp_path_factory.mktemp("ends") / "s.sqlite"
    run_study(STUDY, store)
    with open_store(store) as opened:
        return opened.frame()


STUDY = labcore.Study(
    name="ends",
    question="What is the band of exact samples where the grid ends?",
    target="gmm_ring",
    process="vp",
    grid=[*(use("to", end=t) for t in ENDS), "to"],
    sampler=["ddim", "samplers:heun"],
    steps=[4],
    seed=range(2),
    n=400,
    start="exact",
    against="t_eps",
    metrics=["mean_square"],
    floor_repeats=3,
    entries=[to, mean_square],
)


def test_rows_tell_the_time_of_the_law_they_are_held_against(frame: pd.DataFrame) -> None:
    ran = frame[frame["kind"] == "cell"]
    told = ran.groupby("grid")["t_eps"].unique().map(list).to_dict()
    assert {grid.partition(":")[2]: list(map(float, t)) for grid, t in told.items()} == {
        "to(end=0.01)": [0.01],
        "to(end=0.9)": [0.9],
        "to": [0.01],
    }


def test_each_end_has_the_floor_of_its_own_law(frame: pd.DataFrame) -> None:
    """E |x|^2 = (|x0|^2 + d Sigma / Phi^2) under p_t in data space, which is vast at t = 0.9."""
    parts = Parts(STUDY.registry())
    process = parts.process(use("vp"))
    floors = stats.floors(frame).set_index("t_eps")
    assert sorted(floors.index) == [*ENDS]
    assert (floors["count"] == 3).all()
    table = stats.with_floors(stats.summarise(frame), stats.floors(frame))
    x0 = parts.target(use("gmm_ring")).sample(100_000, torch.Generator())
    for t in ENDS:
        at = torch.tensor(t, dtype=torch.float64)
        perturbed = process.perturb(x0.double(), at, torch.randn(x0.shape).double())
        want = float(process.project(perturbed).square().sum(-1).mean())
        assert floors.loc[t, "mean"] == pytest.approx(want, rel=0.1)
        held = table.loc[table["t_eps"] == t, "floor_mean"]
        assert len(held) == (4 if t == ENDS[0] else 2)
        assert held.tolist() == [floors.loc[t, "mean"]] * len(held)


def test_ends_that_grids_decide_are_no_axis_of_figures_or_reversals(frame: pd.DataFrame) -> None:
    figure = plots.curve(frame, "mean_square", x="steps")
    titles = sorted(ax.get_title() for ax in figure.axes)
    assert titles == ["to", "to(end=0.01)", "to(end=0.9)"]
    better = frame.copy()
    first = better["grid"].str.endswith("end=0.9)") & better["sampler"].str.endswith("heun")
    cells = better["kind"] == "cell"
    better.loc[cells, "value"] = 10.0 + better.loc[cells, "seed"] / 100
    better.loc[cells & better["sampler"].str.endswith("ddim"), "value"] += 1.0
    better.loc[cells & first, "value"] += 2.0
    turned = stats.reversals(better[cells], "grid", at="steps")
    assert turned["grid_other"].str.endswith("end=0.9)").tolist() == [True]


def ran(study: labcore.Study, store: Path) -> pd.DataFrame:
    run_study(study, store)
    with open_store(store) as opened:
        return opened.frame()


def test_both_laws_in_one_study_are_two_panels_each_with_its_floor(tmp_path: Path) -> None:
    both = ran(replace(STUDY, grid="to", against=["data", "t_eps"]), tmp_path / "s.sqlite")
    for facet in (None, ["against"]):
        figure = plots.curve(both, "mean_square", x="steps", facet=facet)
        drawn = {ax.get_title(): [p.get_y() for p in ax.patches] for ax in figure.axes}
        assert sorted(drawn) == ["against: data", "against: t_eps"]
        assert all(len(of) == 1 for of in drawn.values())
    assert plots.heatmap(both, "mean_square").axes
    cells = both[both["kind"] == "cell"].copy()
    ddim, at_end = cells["sampler"].str.endswith("ddim"), cells["against"] == "t_eps"
    cells["value"] = 10.0 + cells["seed"] / 100 + ddim + 2.0 * (at_end & ~ddim)
    assert stats.reversals(cells, "against", at="steps")["against_other"].tolist() == ["t_eps"]


@pytest.mark.parametrize("seeds", [2, 4])
def test_a_store_of_old_goes_on(tmp_path: Path, monkeypatch: Any, seeds: int) -> None:
    """Its rows do not tell t_eps, and its floors had another key."""
    store, small = tmp_path / "s.sqlite", replace(STUDY, grid="to")
    with monkeypatch.context() as old:
        old.setattr(rows, "_spec", lambda t_eps, *uses: SPEC(None, *uses))
        old.setattr(Floor, "key", property(lambda floor: f"{floor.n:032d}"))
        before = ran(small, store)
    assert before["t_eps"].isna().all()
    after = ran(replace(small, seed=range(seeds)), store)
    table = stats.with_floors(stats.summarise(after), stats.floors(after))
    assert table["count"].tolist() == [seeds, seeds]
    assert table["floor_mean"].notna().all()
    assert plots.curve(after, "mean_square", x="steps").axes


def test_a_spec_tells_its_parts_with_and_without_a_time() -> None:
    parts = [["targets:rings", {}], ["linear:vp", {}]]
    assert rows.read_spec(json.dumps(parts)) == (parts, pytest.approx(math.nan, nan_ok=True))
    assert rows.read_spec(json.dumps([0.5, *parts])) == (parts, 0.5)

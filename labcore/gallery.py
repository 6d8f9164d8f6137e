"""All figures of a study: which to draw, of which rows, under which file name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labcore import plots, seeds
from labcore.errors import LabError
from labcore.parts import Parts
from labcore.plots.marks import states_of
from labcore.run import sample
from labcore.stats import at_times, over_trainings
from labcore.study import Cell, Use
from labcore.targets import Target

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

MOST_PANELS = 6
"""More panels than this in one figure are split into a figure for each process."""

KINDS = ("curve", "heatmap", "pareto")

TILES = (4, 6)
"""Rows and columns of pictures in a panel of a sample sheet."""


def draw(
    frame: pd.DataFrame,
    folder: Path,
    *,
    kinds: Sequence[str] = KINDS,
    metrics: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
) -> Iterator[Path]:
    """The figures of a study's rows, one file per metric, target and kind; the paths written.

    A heat map is drawn where grids are compared. Raises LabError for a metric that has no rows.
    """
    for stem, figure in figures(frame, kinds, metrics):
        yield from plots.save(figure, folder / stem, formats)


def figures(
    frame: pd.DataFrame, kinds: Sequence[str] = KINDS, metrics: Sequence[str] = ()
) -> Iterator[tuple[str, Figure]]:
    """(file stem, figure) of every metric, target and kind."""
    frame = over_trainings(frame)
    cells = frame[frame["kind"] == "cell"]
    known = [m for m in cells["metric"].unique() if m]
    chosen = [m for m in known if not metrics or any(_named(m, name) for name in metrics)]
    if not chosen:
        raise LabError(
            f"plots: no rows of metric {', '.join(metrics) or 'any'}; the store has "
            f"{', '.join(known) or 'none'}"
        )
    at_t = at_times(cells[cells["metric"].isin(chosen)])
    for metric in at_t["of"].unique():
        for part, rows in _parts(frame[frame["metric"].str.startswith(metric)], metric):
            yield f"over_t_{slug(metric)}_{part}", plots.score_curve(rows, metric)
    for metric in chosen:
        if metric in set(at_t["metric"]):
            continue
        for part, rows in _parts(frame, metric):
            for kind in kinds:
                if kind == "heatmap" and rows["grid"].replace("", None).dropna().nunique() < 2:
                    continue
                yield f"{kind}_{slug(metric)}_{part}", getattr(plots, kind)(rows, metric)


def _named(metric: str, name: str) -> bool:
    """Whether a metric may be called so: "metrics:moments.mean" also moments.mean and moments."""
    short = metric.rpartition(":")[2]
    return name in (metric, short, short.partition(".")[0], short.partition("(")[0])


def _parts(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each target, and of each process where the panels would be too many."""
    cells = frame[frame["kind"] == "cell"]
    for target in cells["target"].unique():
        rows = frame[frame["target"] == target]
        mine = rows[rows["kind"] == "cell"]
        axes = ("process", "score", "grid", "start", "end", "against", "dtype", "n")
        panels = 1
        for axis in axes:
            panels *= max(mine[axis].nunique(), 1)
        if panels <= MOST_PANELS or mine["process"].nunique() < 2:
            yield slug(target), rows
            continue
        for process in mine["process"].unique():
            kept = rows[(rows["process"] == process) | (rows["process"] == "")]
            yield f"{slug(target)}_{slug(process)}", kept


def slug(label: str) -> str:
    """A label as part of a file name: without its plugin, letters and digits only."""
    name = re.sub(r"\b\w+:", "", label)
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60] or "all"


def sheets(
    cells: Sequence[Cell], parts: Parts, frame: pd.DataFrame | None = None
) -> Iterator[tuple[str, Figure]]:
    """Samples a person can look at: each sampler at a few budgets, below exact draws.

    With the study's rows samplers are marked by what these say of their certificates.

    One sheet a target, process and score (of more than MOST_PANELS scores the first alone);
    pictures where the target has an image shape, a scatter over the true density where it is in
    the plane, none otherwise.
    """
    scores = list(dict.fromkeys(c.score for c in cells))
    kept = scores if len(scores) <= MOST_PANELS else scores[:1]
    for target, process, score in dict.fromkeys((c.target, c.process, c.score) for c in cells):
        law = parts.target(target)
        if score not in kept or (law.image is None and law.event != (2,)):
            continue
        mine = [c for c in cells if (c.target, c.process, c.score) == (target, process, score)]
        n = 1500 if law.image is None else TILES[0] * TILES[1]
        columns = _budgets(mine, parts)
        shown = {
            ("exact draws", title): law.sample(n, seeds.generator("sheet", title))
            for title in columns
        }
        for title, few in columns.items():
            for cell in few:
                alone = replace(cell, n=n, end="stop")
                shown[str(cell.sampler), title] = sample([alone], parts).x
        rows = None if frame is None else frame[frame["process"] == str(process)]
        of = {} if rows is None else states_of(rows[rows["kind"] == "cell"])
        states = {
            name: text for name, text in of.items() if name in {str(c.sampler) for c in mine}
        }
        stem = f"samples_{slug(str(target))}_{slug(str(process))}"
        by_score = f"_{scores.index(score)}_{_short(score)}" if len(kept) > 1 else ""
        yield stem + by_score, _sheet(law, shown, states)


def _short(score: Use) -> str:
    """The name of a score without its options."""
    return slug(score.name)


def _budgets(cells: Sequence[Cell], parts: Parts) -> dict[str, list[Cell]]:
    """At most four budgets, each with one cell a sampler, by the NFE it costs at most."""
    by_sampler: dict[Use, dict[int, Cell]] = {}
    for cell in cells:
        by_sampler.setdefault(cell.sampler, {}).setdefault(cell.steps, cell)
    ladders = [[of[steps] for steps in sorted(of)] for of in by_sampler.values()]
    most = max(map(len, ladders))
    ranks = sorted({round(i * (most - 1) / 3) for i in range(4)})
    columns: dict[str, list[Cell]] = {}
    for rank in ranks:
        few = [ladder[rank] for ladder in ladders if rank < len(ladder)]
        cost = max(cost_of(cell, parts) for cell in few)
        columns[f"{cost} NFE"] = few
    return columns


def cost_of(cell: Cell, parts: Parts) -> int:
    """The declared NFE of a cell; its steps where the sampler declares none."""
    entry = parts.registry.get("sampler", cell.sampler.name)
    return entry.nfe(cell.steps, dict(cell.sampler.options)) or cell.steps


def _sheet(law: Target, shown: dict[tuple[str, str], Tensor], states: Mapping[Any, str]) -> Figure:
    if law.image is not None:
        return plots.sheet_images(shown, law.image[-2:], tiles=TILES, certificates=states)
    return plots.sheet_2d(shown, law.log_prob, certificates=states)

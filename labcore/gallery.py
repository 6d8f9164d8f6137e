"""All figures of a study: which to draw, of which rows, under which file name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labcore import plots, seeds
from labcore.errors import LabError
from labcore.parts import Parts
from labcore.plots.marks import states_of
from labcore.registry import Registry, load_registry
from labcore.run import sample
from labcore.stats import at_times, over_trainings
from labcore.stats.intervals import Better
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

BUDGETS = 4
"""At most so many columns of a sample sheet."""

LONGEST = 60
"""Letters of a label in a file name; of a longer one the end is a hash of all of it."""

SETTING = ("grid", "start", "end", "dtype")
"""What a sample sheet has one of, beside its target, process and score."""


def draw(
    frame: pd.DataFrame,
    folder: Path,
    *,
    kinds: Sequence[str] = KINDS,
    metrics: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
    registry: Registry | None = None,
) -> Iterator[Path]:
    """The figures of a study's rows, one file per metric, target and kind; the paths written.

    A heat map is drawn where grids are compared. ``registry``, by default that of the installed
    plugins, says which direction of a metric is better. Raises LabError for a metric that has no
    rows.
    """
    for stem, figure in figures(frame, kinds, metrics, registry):
        yield from plots.save(figure, folder / stem, formats)


def figures(
    frame: pd.DataFrame,
    kinds: Sequence[str] = KINDS,
    metrics: Sequence[str] = (),
    registry: Registry | None = None,
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
    names = slugs([*at_t["of"].unique(), *known])
    for metric in at_t["of"].unique():
        for part, rows in _parts(frame[frame["metric"].str.startswith(metric)]):
            yield f"over_t_{names[metric]}_{part}", plots.score_curve(rows, metric)
    registry = registry or load_registry()
    for metric in chosen:
        if metric in set(at_t["metric"]):
            continue
        drawn = _kinds(better_of(metric, registry))
        for part, rows in _parts(frame):
            for kind in kinds:
                if kind == "heatmap" and rows["grid"].replace("", None).dropna().nunique() < 2:
                    continue
                yield f"{kind}_{names[metric]}_{part}", drawn[kind](rows, metric)


def _kinds(better: Better | None) -> Mapping[str, Callable[..., Figure]]:
    """How each kind is drawn; only of an error is the slope an order of convergence."""
    return {
        "curve": partial(plots.curve, fit=better == "lower"),
        "heatmap": partial(plots.heatmap, better=better),
        "pareto": partial(plots.pareto, better=better),
    }


def better_of(metric: str, registry: Registry) -> Better | None:
    """The direction that a metric declares as better; None for diagnostics and unknown ones."""
    label = metric.partition("(")[0]
    for name, entry in registry.all("metric"):
        if label == name or label.startswith(f"{name}."):
            declared: Better | None = entry.traits.get("better")
            return declared
    return None


def _named(metric: str, name: str) -> bool:
    """Whether a metric may be called so: "metrics:moments.mean" also moments.mean and moments."""
    short = metric.rpartition(":")[2]
    return name in (metric, short, short.partition(".")[0], short.partition("(")[0])


def _parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each target, and of each process where the panels would be too many."""
    cells = frame[frame["kind"] == "cell"]
    targets, processes = slugs(cells["target"].unique()), slugs(cells["process"].unique())
    for target in cells["target"].unique():
        rows = frame[frame["target"] == target]
        mine = rows[rows["kind"] == "cell"]
        axes = ("process", "score", "grid", "start", "end", "against", "dtype", "n")
        panels = 1
        for axis in axes:
            panels *= max(mine[axis].nunique(), 1)
        if panels <= MOST_PANELS or mine["process"].nunique() < 2:
            yield targets[target], rows
            continue
        for process in mine["process"].unique():
            kept = rows[(rows["process"] == process) | (rows["process"] == "")]
            yield f"{targets[target]}_{processes[process]}", kept


def slug(label: str) -> str:
    """A label as part of a file name: without its plugin, letters and digits only."""
    name = re.sub(r"\b\w+:", "", label)
    text = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "all"
    return text if len(text) <= LONGEST else _hashed(text, label)


def slugs(labels: Iterable[str]) -> dict[str, str]:
    """The slug of each label; those that would share one, such as of 1 and -1, have a hash."""
    made = {label: slug(label) for label in labels}
    often = Counter(text.lower() for text in made.values())
    return {
        label: text if often[text.lower()] == 1 else _hashed(text, label)
        for label, text in made.items()
    }


def _hashed(text: str, label: str) -> str:
    return f"{text[: LONGEST - 7].rstrip('-.')}-{sha256(label.encode()).hexdigest()[:6]}"


def sheets(
    cells: Sequence[Cell], parts: Parts, frame: pd.DataFrame | None = None
) -> Iterator[tuple[str, Figure]]:
    """Samples a person can look at: each sampler at a few budgets, below exact draws.

    A run that fails is said to have failed in its place. Budgets are in NFE; the cost of a run is
    written under its picture where it is another, and the grid is named where there are several.
    With the study's rows samplers are marked by what these say of their certificates.

    One sheet a target, process and score (of more than MOST_PANELS scores the first alone);
    pictures where the target has an image shape, a scatter over the true density where it is in
    the plane, none otherwise.
    """
    scores = list(dict.fromkeys(c.score for c in cells))
    kept = scores if len(scores) <= MOST_PANELS else scores[:1]
    targets = slugs(dict.fromkeys(str(c.target) for c in cells))
    processes = slugs(dict.fromkeys(str(c.process) for c in cells))
    for target, process, score in dict.fromkeys((c.target, c.process, c.score) for c in cells):
        law = parts.target(target)
        if score not in kept or (law.image is None and law.event != (2,)):
            continue
        mine = [c for c in cells if (c.target, c.process, c.score) == (target, process, score)]
        shown, notes = _pictures(mine, law, parts)
        rows = None if frame is None else frame[frame["process"] == str(process)]
        of = {} if rows is None else states_of(rows[rows["kind"] == "cell"])
        states = {
            name: text for name, text in of.items() if name in {str(c.sampler) for c in mine}
        }
        stem = f"samples_{targets[str(target)]}_{processes[str(process)]}"
        by_score = f"_{scores.index(score)}_{_short(score)}" if len(kept) > 1 else ""
        title = _differing(mine[0], mine, _axes(mine))
        yield stem + by_score, _sheet(law, shown, notes, states, title)


def _short(score: Use) -> str:
    """The name of a score without its options."""
    return slug(score.name)


Place = tuple[str, str]
"""A sampler and a budget, as the sheet writes them."""


def _pictures(
    cells: Sequence[Cell], law: Target, parts: Parts
) -> tuple[dict[Place, Tensor], dict[Place, str]]:
    """The samples at each place of a sheet, and what is to be said there."""
    n = 1500 if law.image is None else TILES[0] * TILES[1]
    columns = _budgets(cells, parts)
    shown = {
        ("exact draws", title): law.sample(n, seeds.generator("sheet", title)) for title in columns
    }
    notes: dict[Place, str] = {}
    axes = _axes(cells)
    runs: dict[Cell, tuple[Tensor | None, str]] = {}
    for title, few in columns.items():
        for cell in few:
            if cell not in runs:
                runs[cell] = _run(replace(cell, n=n), parts)
            x, cost = runs[cell]
            place = (str(cell.sampler), title)
            own = [a for a in axes if getattr(cell, a) != getattr(cells[0], a)]
            said = [cost if cost != title else "", _differing(cell, cells, own)]
            if x is not None:
                shown[place] = x
            if any(said):
                notes[place] = "\n".join(filter(None, said))
    return shown, notes


def _run(cell: Cell, parts: Parts) -> tuple[Tensor | None, str]:
    """The samples of a cell and the NFE they took; without samples, how it failed."""
    try:
        sampled = sample([cell], parts)
    except (Exception, SystemExit) as error:
        return None, f"failed\n{type(error).__name__}"
    return sampled.x, f"{sampled.nfe:g} NFE"


def _axes(cells: Sequence[Cell]) -> list[str]:
    """Of what a sheet has one the cells have several."""
    return [axis for axis in SETTING if len({getattr(c, axis) for c in cells}) > 1]


def _differing(cell: Cell, cells: Sequence[Cell], axes: Sequence[str]) -> str:
    """A cell's values on some axes, named so that they are told from those of other cells."""
    names = {axis: plots.short_names(str(getattr(c, axis)) for c in cells) for axis in axes}
    return ", ".join(f"{axis} {names[axis][str(getattr(cell, axis))]}" for axis in axes)


def _budgets(cells: Sequence[Cell], parts: Parts) -> dict[str, list[Cell]]:
    """At most BUDGETS budgets, each with what each sampler makes of it, on the first grid it has.

    A budget is an NFE that some sampler spends whole; another spends the most it can within it,
    which is more than half. Where all samplers have the same numbers of steps at unlike costs,
    these are the budgets.
    """
    ladders = [_ladder(cells, sampler) for sampler in dict.fromkeys(c.sampler for c in cells)]
    costs = [{cost_of(cell, parts): cell for cell in ladder.values()} for ladder in ladders]
    by_steps = all(of.keys() == ladders[0].keys() for of in ladders)
    if by_steps and any(of.keys() != costs[0].keys() for of in costs):
        return {
            f"{steps} step{'s' * (steps > 1)}": [of[steps] for of in ladders]
            for steps in _spread(sorted(ladders[0]))
        }
    columns: dict[int, list[Cell]] = {}
    covered: set[Cell] = set()
    for budget in sorted({cost for of in costs for cost in of}, reverse=True):
        within = [[cost for cost in of if budget / 2 < cost <= budget] for of in costs]
        few = [of[max(found)] for of, found in zip(costs, within, strict=True) if found]
        if not covered.issuperset(of[budget] for of in costs if budget in of):
            columns[budget] = few
            covered.update(few)
    return {f"{budget} NFE": columns[budget] for budget in _spread(sorted(columns))}


def _ladder(cells: Sequence[Cell], sampler: Use) -> dict[int, Cell]:
    """A sampler's cells by steps: those of the sheet's setting, or else of its own first one."""
    own = [c for c in cells if c.sampler == sampler]
    settings = [tuple(getattr(c, axis) for axis in SETTING) for c in (cells[0], *own)]
    chosen = settings[0] if settings[0] in settings[1:] else settings[1]
    mine = [c for c, setting in zip(own, settings[1:], strict=True) if setting == chosen]
    return {c.steps: c for c in reversed(mine)}


def _spread(values: Sequence[int]) -> list[int]:
    """At most BUDGETS of the values, the first and the last among them."""
    last = len(values) - 1
    return [values[i] for i in sorted({round(k * last / (BUDGETS - 1)) for k in range(BUDGETS)})]


def cost_of(cell: Cell, parts: Parts) -> int:
    """The declared NFE of a cell with its end; a call a step where the sampler declares none."""
    entry = parts.registry.get("sampler", cell.sampler.name)
    score = parts.registry.get("score", cell.score.name)
    calls = entry.nfe(cell.steps, dict(cell.sampler.options)) or cell.steps
    return (calls + (cell.end != "stop")) * int(score.traits.get("cost", 1))


def _sheet(
    law: Target,
    shown: Mapping[Place, Tensor],
    notes: Mapping[Place, str],
    states: Mapping[Any, str],
    title: str,
) -> Figure:
    told: dict[str, Any] = {"certificates": states, "notes": notes, "title": title}
    if law.image is not None:
        return plots.sheet_images(shown, law.image[-2:], tiles=TILES, **told)
    return plots.sheet_2d(shown, law.log_prob, **told)

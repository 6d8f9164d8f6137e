"""The work of a study: what a store lacks of its cells and floors, in batches for workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from labcore.engine import Failure, attempt, one_thread
from labcore.errors import InvalidStudy
from labcore.measure import run_floor
from labcore.parts import Parts
from labcore.registry import Registry
from labcore.run import Result, run_cells
from labcore.store import Store
from labcore.store.connect import is_url
from labcore.study import Cell, Floor, Study, Use

MOST_SEEDS, MOST_ROWS = 100, 50_000
"""A batch of seeds beyond these falls out of cache and gains nothing."""


@dataclass(frozen=True)
class Work:
    """What a worker is handed: cells that differ in their seed alone, or one noise floor."""

    metrics: tuple[Use, ...]
    cells: tuple[Cell, ...] = ()
    floor: Floor | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """Runs a Work in whatever process it is sent to, with the parts built once a process."""

    registry: Registry
    folder: Path = Path("scores")

    def __call__(self, work: Work) -> Any:
        parts = _parts(self.registry, self.folder)
        if work.floor is not None:
            return run_floor(work.floor, work.metrics, parts)
        return run_cells(work.cells, work.metrics, parts)


@lru_cache(maxsize=4)
def _parts(registry: Registry, folder: Path) -> Parts:
    return Parts(registry, folder, make=False)


def scores_folder(study: Study, where: str | Path) -> Path:
    """Where a study keeps the scores it trains: NAME.scores beside a store NAME.sqlite, in the
    folder out where the store is a server's."""
    return (
        Path("out", f"{study.name}.scores")
        if is_url(where)
        else Path(where).with_suffix(".scores")
    )


def keep(cells: Sequence[Cell], filters: Sequence[str]) -> list[Cell]:
    """The cells that pass every filter ``axis=text``; InvalidStudy for one that fits nothing."""
    kept = list(cells)
    for given in filters:
        axis, equals, text = given.partition("=")
        if not equals or axis not in cells[0].columns():
            known = ", ".join(cells[0].columns())
            raise InvalidStudy(f"filter '{given}': write axis=text, with an axis of {known}")
        kept = [cell for cell in kept if _matches(cell.columns()[axis], text)]
        if not kept:
            values = ", ".join(sorted({str(c.columns()[axis]) for c in cells})[:12])
            raise InvalidStudy(f"filter '{given}': it keeps no cell; {axis} has {values}")
    return kept


def _matches(value: Any, text: str) -> bool:
    """A number is met exactly, a label by a part of it."""
    return text in value if isinstance(value, str) else str(value) == text


def pending(
    study: Study,
    cells: Sequence[Cell],
    metrics: Sequence[Use],
    store: Store | None,
    registry: Registry,
    retry_failed: bool = False,
) -> Iterator[Work]:
    """The noise floors and batches of cells that the store lacks values of."""
    labels = {str(metric): metric for metric in metrics}
    for floor in floors_of(study, cells, Parts(registry)):
        held = store.floor_done([floor.key]).get(floor.key, {}) if store else {}
        floored = {k: m for k, m in labels.items() if has_floor(m, registry)}
        lacking = tuple(m for label, m in floored.items() if held.get(label, 0) < floor.repeats)
        if lacking:
            yield Work(lacking, floor=floor)
    keys = [cell.key for cell in cells]
    todo = store.todo(keys, list(labels), retry_failed) if store else dict.fromkeys(keys, labels)
    open_cells = [(c, tuple(labels[m] for m in todo[c.key])) for c in cells if c.key in todo]

    def alike(item: tuple[Cell, tuple[Use, ...]]) -> tuple[Any, ...]:
        return item[0].but_seed, item[1]

    first = {name: i for i, name in reversed(list(enumerate(map(alike, open_cells))))}
    open_cells.sort(key=lambda item: first[alike(item)])
    for _, group in groupby(open_cells, key=alike):
        batch = list(group)
        size = _batch_size(batch[0][0], registry)
        for i in range(0, len(batch), size):
            some = batch[i : i + size]
            yield Work(some[0][1], cells=tuple(cell for cell, _ in some))


def _batch_size(cell: Cell, registry: Registry) -> int:
    if registry.get("sampler", cell.sampler.name).traits.get("coupled"):
        return 1
    return max(1, min(MOST_SEEDS, MOST_ROWS // cell.n))


def floors_of(study: Study, cells: Iterable[Cell], parts: Parts) -> list[Floor]:
    """The noise floors that the cells are to be read against."""
    floors: dict[str, Floor] = {}
    for cell in cells:
        floor = Floor(cell.target, cell.n, study.floor_repeats)
        if cell.against == "t_eps":
            floor = replace(floor, process=cell.process, t_eps=compared_at(cell, parts))
        floors.setdefault(floor.key, floor)
    return list(floors.values())


def compared_at(cell: Cell, parts: Parts) -> float | None:
    """The t_eps of the law p_{t_eps} that a cell is held against; None against the data.

    To 12 digits: grids that end at one time by different formulas have one floor.
    """
    return float(f"{float(parts.times(cell)[-1]):.12g}") if cell.against == "t_eps" else None


def has_floor(metric: Use, registry: Registry) -> bool:
    """Whether two exact sample sets have a distance by it: not where it judges the score."""
    return bool(registry.get("metric", metric.name).traits.get("floor", True))


def make_scores(works: Iterable[Work], parts: Parts) -> dict[Any, Failure]:
    """Make, one after the other, the scores that take long; those that failed."""
    named = {score_of(work): None for work in works if work.cells}
    failures = {}
    for uses in named:
        if parts.registry.get("score", uses[0].name).traits.get("from_uses"):
            made = attempt(lambda uses: parts.score(*uses), uses, one_thread())
            if isinstance(made, Failure):
                failures[uses] = made
    return failures


def score_of(work: Work) -> tuple[Use, Use, Use]:
    """What a score is made from: itself, its process and its target."""
    return work.cells[0].score, work.cells[0].process, work.cells[0].target


def one_by_one(work: Work) -> list[Work]:
    """The batch as batches of one cell, for when the whole could not be finished."""
    return [replace(work, cells=(cell,)) for cell in work.cells]


def results_of(work: Work, payload: Any) -> list[Result]:
    """Of each cell, also where the whole batch failed."""
    if isinstance(payload, Failure):
        return [
            Result(c, payload.status, reason=payload.reason, traceback=payload.traceback)
            for c in work.cells
        ]
    results: list[Result] = payload
    return results

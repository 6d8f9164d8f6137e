"""A study from its question to stored rows: expand, leave out what is done, run the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, groupby
from math import nan
from pathlib import Path
from typing import Any

from labcore.certificates import Certificate
from labcore.certification import inspect_all, of_cells
from labcore.engine import Failure, attempt, execute, one_thread
from labcore.errors import InvalidStudy
from labcore.measure import run_floor
from labcore.parts import Parts
from labcore.registry import Registry
from labcore.run import Result, run_cells
from labcore.store import Store, Versions, cell_row, floor_rows, open_store
from labcore.store.connect import is_url
from labcore.study import Cell, Event, Floor, Study, Use

Reporter = Callable[[Event], None]

MOST_SEEDS, MOST_ROWS = 100, 50_000
"""A batch of seeds beyond these falls out of cache and gains nothing."""


@dataclass(frozen=True)
class Work:
    """What a worker is handed: cells that differ in their seed alone, or one noise floor."""

    metrics: tuple[Use, ...]
    cells: tuple[Cell, ...] = ()
    floor: Floor | None = None


@dataclass(frozen=True)
class Summary:
    """How a study ended: cells done now, found done before, and failed now."""

    total: int
    done: int
    skipped: int
    failed: int
    seconds: float


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


def run_study(
    study: Study,
    where: str | Path,
    *,
    workers: int = 0,
    timeout: float | None = None,
    filters: Sequence[str] = (),
    retry_failed: bool = False,
    reporters: Iterable[Reporter] = (),
) -> Summary:
    """Run what ``where`` does not hold yet of ``study``; finished (cell, metric) pairs stay.

    ``filters`` such as "sampler=ddim" keep the cells whose label contains the text. A failing cell
    is a row with its reason and the rest goes on; an interrupt leaves a store that continues.
    Scores that are trained are trained first, here, and kept in ``scores_folder``.
    Raises InvalidStudy before anything runs, StoreError where the store cannot be written.
    """
    registry = study.registry()
    cells = keep(study.cells(registry), filters)
    metrics = study.metric_uses(registry)
    with open_store(where, write=True) as store:
        store.check()  # what is found done must be sound, or it would never be run again
        works = list(pending(study, cells, metrics, store, registry, retry_failed))
        floors = floors_of(study, cells, Parts(registry))
        store.join(study.name, [c.key for c in cells] + [f.key for f in floors])
        task = Task(registry, scores_folder(study, where).absolute())
        return _drive(study, cells, works, store, task, workers, timeout, tuple(reporters))


def scores_folder(study: Study, where: str | Path) -> Path:
    """Where a study keeps the scores it trains: NAME.scores beside a store NAME.sqlite, in the
    folder out where the store is a server's."""
    return (
        Path("out", f"{study.name}.scores")
        if is_url(where)
        else Path(where).with_suffix(".scores")
    )


def make_scores(works: Iterable[Work], parts: Parts) -> dict[Any, Failure]:
    """Make, one after the other, the scores that take long; those that failed."""
    named = {_score_of(work): None for work in works if work.cells}
    failures = {}
    for uses in named:
        if parts.registry.get("score", uses[0].name).traits.get("from_uses"):
            made = attempt(lambda uses: parts.score(*uses), uses, one_thread())
            if isinstance(made, Failure):
                failures[uses] = made
    return failures


def _score_of(work: Work) -> tuple[Use, Use, Use]:
    return work.cells[0].score, work.cells[0].process, work.cells[0].target


def unmade(study: Study, where: str | Path, filters: Sequence[str] = ()) -> list[str]:
    """What a run would first have to train, in a line each."""
    registry = study.registry()
    cells = keep(study.cells(registry), filters)
    parts = Parts(registry, scores_folder(study, where), make=False)
    found = make_scores((Work((), (cell,)) for cell in cells), parts)
    return [failure.reason for failure in found.values()]


def certify_study(
    study: Study,
    where: str | Path,
    *,
    filters: Sequence[str] = (),
    workers: int = 0,
    timeout: float | None = None,
    follow: Callable[[Certificate], None] = lambda certificate: None,
) -> list[Certificate]:
    """Certificates of a study's samplers on its processes, as far as ``where`` lacks them.

    They are kept there as they are made. A pair is left out where the process does not give what
    the sampler needs, and stays uncertified.
    """
    registry = study.registry()
    cells = keep(study.cells(registry), filters)
    with open_store(where, write=True) as store:
        held = store.certificates()
    wanted = of_cells(cells, registry, held)
    return list(inspect_all(wanted, registry, where, workers, timeout, follow))


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
            t_eps = float(parts.times(cell)[-1])
            floor = replace(floor, process=cell.process, t_eps=t_eps)
        floors.setdefault(floor.key, floor)
    return list(floors.values())


def has_floor(metric: Use, registry: Registry) -> bool:
    """Whether two exact sample sets have a distance by it: not where it judges the score."""
    return bool(registry.get("metric", metric.name).traits.get("floor", True))


def versions_of(registry: Registry) -> Versions:
    """What results are computed with: labcore, torch and every plugin's distribution."""
    import json

    plugins = {r.name: r.version for r in registry.records if r.status == "loaded"}
    return Versions(version("labcore"), version("torch"), json.dumps(plugins, sort_keys=True))


def _drive(
    study: Study,
    cells: Sequence[Cell],
    works: Sequence[Work],
    store: Store,
    task: Task,
    workers: int,
    timeout: float | None,
    reporters: tuple[Reporter, ...],
) -> Summary:
    """Make scores, execute, store and report; one durable transaction a batch."""
    begun = time.perf_counter()
    versions = versions_of(task.registry)
    total = len(cells)
    skipped = total - sum(len(work.cells) for work in works)
    done = failed = 0

    def tell(kind: str, rows: Sequence[Mapping[str, Any]] = (), message: str = "") -> None:
        seconds = time.perf_counter() - begun
        event = Event(kind, done, total, failed, skipped, seconds, message, tuple(rows))
        for reporter in reporters:
            reporter(event)

    tell("start", message=study.question)
    parts = Parts(task.registry, task.folder, tell=lambda text: tell("note", message=text))
    failures = make_scores(works, parts)
    lacking = [(w, failures[_score_of(w)]) for w in works if w.cells and _score_of(w) in failures]
    rest = [w for w in works if not w.cells or _score_of(w) not in failures]
    run = execute(rest, task, workers=workers, timeout=timeout, split=one_by_one)
    for work, payload in chain(lacking, run):
        if work.floor is not None:
            if isinstance(payload, Failure):
                tell("note", message=f"{work.floor}: {payload.reason}; plots will show none")
            else:
                store.put_many(floor_rows(study.name, work.floor, payload, versions, nan))
            continue
        results = _results(work, payload)
        rows = [cell_row(study.name, result, versions) for result in results]
        store.put_many(rows)
        for result in results:
            done += 1
            failed += result.status != "ok" or bool(result.unmeasured)
            tell("cell", [_told(result)])
    tell("finish")
    return Summary(total, done, skipped, failed, time.perf_counter() - begun)


def _told(result: Result) -> dict[str, Any]:
    """A finished cell as a reporter sees it."""
    reason = result.reason or "; ".join(f"{m}: {r}" for m, r in result.unmeasured.items())
    return {
        "key": result.cell.key,
        **result.cell.columns(),
        "cell": str(result.cell),
        "status": result.status,
        "reason": reason,
        "nfe": result.nfe,
        "seconds": result.seconds,
        "values": result.values,
    }


def one_by_one(work: Work) -> list[Work]:
    """The batch as batches of one cell, for when the whole could not be finished."""
    return [replace(work, cells=(cell,)) for cell in work.cells]


def _results(work: Work, payload: Any) -> list[Result]:
    if isinstance(payload, Failure):
        return [
            Result(c, payload.status, reason=payload.reason, traceback=payload.traceback)
            for c in work.cells
        ]
    results: list[Result] = payload
    return results


def estimate(
    study: Study, workers: int = 0, filters: Sequence[str] = (), where: str | Path = ""
) -> tuple[int, float]:
    """The number of cells and the seconds they may take, from a short probe of each sampler.

    Cells of scores that are still to be trained (see ``unmade``) are counted without their time.
    The shortest batch of each setting is run with two steps, after one run that builds its parts;
    stepping is scaled by the steps, measuring by the cells.
    """
    registry = study.registry()
    cells = keep(study.cells(registry), filters)
    groups: dict[Any, list[Work]] = {}
    for work in pending(study, cells, study.metric_uses(registry), None, registry):
        if work.cells:
            first = work.cells[0]
            setting = (first.target, first.process, first.score, first.sampler, first.n)
            groups.setdefault(setting, []).append(work)
    task = Task(registry, scores_folder(study, where or f"{study.name}.sqlite"))
    seconds = sum(_probed(works, task) for works in groups.values())
    return len(cells), seconds / max(workers, 1)


def _probed(works: Sequence[Work], task: Task) -> float:
    """Seconds that batches of one setting may take, from the shortest run with two steps."""
    shortest = min(works, key=lambda work: work.cells[0].steps)
    probe = replace(shortest, cells=tuple(replace(cell, steps=2) for cell in shortest.cells))
    runs = execute([replace(probe, cells=probe.cells[:1]), probe], task)
    next(runs)
    begun = time.perf_counter()
    _, payload = next(runs)
    whole = time.perf_counter() - begun
    stepping = sum(r.seconds for r in _results(probe, payload) if r.status == "ok")
    shares = [len(work.cells) / len(probe.cells) for work in works]
    steps = [work.cells[0].steps for work in works]
    return sum(
        share * (stepping / 2 * n + whole - stepping)
        for share, n in zip(shares, steps, strict=True)
    )

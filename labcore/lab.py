"""A study from its question to stored rows: what is left of its work is done and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any

from labcore import stale
from labcore.certificates import Certificate
from labcore.certification import inspect_all, of_cells
from labcore.engine import Failure, execute
from labcore.parts import Parts
from labcore.registry import Registry
from labcore.run import Result
from labcore.store import Store, Versions, cell_row, floor_rows, open_store
from labcore.study import Cell, Event, Study
from labcore.work import (
    Task,
    Work,
    compared_at,
    floors_of,
    keep,
    make_scores,
    one_by_one,
    pending,
    results_of,
    score_of,
    scores_folder,
)

Reporter = Callable[[Event], None]


@dataclass(frozen=True)
class Summary:
    """How a study ended: cells done now, found done before, failed now, and failed before.

    Those that failed before are of no use and were not run again.
    """

    total: int
    done: int
    skipped: int
    failed: int
    seconds: float
    failed_before: int = 0


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
        broken = [] if retry_failed else store.failed([c.key for c in cells], map(str, metrics))
        ended = _drive(study, cells, works, store, task, workers, timeout, tuple(reporters))
        return replace(ended, failed_before=len(broken))


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
    for line in stale.told(cells, store, versions):
        tell("note", message=line)
    parts = Parts(task.registry, task.folder, tell=lambda text: tell("note", message=text))
    failures = make_scores(works, parts)
    lacking = [(w, failures[score_of(w)]) for w in works if w.cells and score_of(w) in failures]
    rest = [w for w in works if not w.cells or score_of(w) not in failures]
    run = execute(rest, task, workers=workers, timeout=timeout, split=one_by_one)
    for work, payload in chain(lacking, run):
        if work.floor is not None:
            if isinstance(payload, Failure):
                tell("note", message=f"{work.floor}: {payload.reason}; plots will show none")
            else:
                store.put_many(floor_rows(study.name, work.floor, payload, versions, nan))
            continue
        results = results_of(work, payload)
        t_eps = compared_at(work.cells[0], parts)
        rows = [cell_row(study.name, result, versions, t_eps) for result in results]
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

"""What a study would take, before it runs: cells, seconds, scores still to be trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labcore.engine import execute
from labcore.parts import Parts
from labcore.study import Study
from labcore.work import Task, Work, keep, make_scores, pending, results_of, scores_folder


def unmade(study: Study, where: str | Path, filters: Sequence[str] = ()) -> list[str]:
    """What a run would first have to train, in a line each."""
    registry = study.registry()
    cells = keep(study.cells(registry), filters)
    parts = Parts(registry, scores_folder(study, where), make=False)
    found = make_scores((Work((), (cell,)) for cell in cells), parts)
    return [failure.reason for failure in found.values()]


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
    stepping = sum(r.seconds for r in results_of(probe, payload) if r.status == "ok")
    shares = [len(work.cells) / len(probe.cells) for work in works]
    steps = [work.cells[0].steps for work in works]
    return sum(
        share * (stepping / 2 * n + whole - stepping)
        for share, n in zip(shares, steps, strict=True)
    )

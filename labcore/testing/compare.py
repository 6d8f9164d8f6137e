"""What two probing runs have in common, and what differs between times that their grids share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import torch
from torch import Tensor

from labcore.testing.case import Case
from labcore.testing.probe import F64, TAIL, Asked, Probe, family, run_probe


@dataclass(frozen=True)
class Difference:
    """How far two probes differ between times they share, and in what."""

    size: float = 0.0
    what: str = ""


START, MEMORY = 6, 4
"""Steps that a method may start with, which are not like the rest, and those it may look back
at, where nothing better is known (see ``habits``)."""


def habits(case: Case) -> tuple[int, int]:
    """The steps a method starts with and those it looks back at, as a few short runs show them.

    The first: grids that are ends of one another. The second: a grid with one time moved.
    """
    return case.once("habits", lambda: _habits(case))


def _habits(case: Case) -> tuple[int, int]:
    if case.least > 2:
        return START, MEMORY
    ts = family(case.process, 12)
    moved = ts.clone()
    moved[-TAIL - 1] = 0.6 * ts[-TAIL - 1] + 0.4 * ts[-TAIL - 2]
    ends = [run_probe(case, ts[-n - 1 :]) for n in (8, 9, 10)]
    start = min(_steps_apart(p, q, p.steps) for p, q in pairwise(ends))
    memory = _steps_apart(run_probe(case, ts), run_probe(case, moved), TAIL - 1)
    return min(start, START), min(memory, MEMORY)


def _steps_apart(p: Probe, q: Probe, steps: int) -> int:
    """Of the last steps, how many at their beginning are not the same in both."""
    last = min(steps, TAIL)
    for n in range(last, 0, -1):
        if max(_tails(p, q, n, 0), key=lambda d: d.size).size < 1e-6:
            return steps - n
    return steps


def difference(p: Probe, q: Probe, start: int = START, memory: int = MEMORY) -> Difference:
    """The largest relative difference of states before, and of formulas after, the times that
    only one of the grids has. Zero up to rounding for a method that looks at nothing else."""
    head, tail = _shared(p.ts, q.ts), _shared(p.ts.flip(0), q.ts.flip(0))
    found = [Difference(), _heads(p, q, head - 2)]
    steps = min(tail - 1, p.steps - start, q.steps - start, TAIL)
    if steps > 0:
        found += _tails(p, q, steps, memory)
    return max(found, key=lambda d: d.size)


def _shared(a: Tensor, b: Tensor) -> int:
    """How many of the first entries are equal."""
    n = min(len(a), len(b))
    same = (a[:n] == b[:n]).tolist()
    return same.index(False) if False in same else n


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return inf
    if a.numel() == 0:
        return 0.0
    size = torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-300)
    return float((a - b).abs().max() / size)


def _heads(p: Probe, q: Probe, steps: int) -> Difference:
    if steps < 1:
        return Difference()
    return Difference(
        _relative(p.states[:steps], q.states[:steps]), "what it makes of the first steps"
    )


def _tails(p: Probe, q: Probe, steps: int, memory: int) -> list[Difference]:
    """Of the last steps: when the score is called, and what answers and draws do to the states,
    for those that look back at shared times only."""
    times = [
        torch.tensor([a.time for a in r.calls if 0 < r.steps - a.step <= steps], dtype=F64)
        for r in (p, q)
    ]
    found = [Difference(_relative(*times), "when it calls the score")]
    last = steps - memory
    if last > 0 and p.linear and q.linear:
        for name, of in (("a score", "calls"), ("a draw", "draws")):
            R = [_last(r, getattr(r, of), last) for r in (p, q)]
            found.append(Difference(_relative(*R), f"the weight of {name}"))
    return found


def _last(p: Probe, asked: Sequence[Asked], steps: int) -> Tensor:
    """The response of the last states to what was asked in the last steps."""
    rows = [a.row for a in asked if a.row >= 0 and p.steps - a.step <= steps]
    return p.response[-steps:, rows]

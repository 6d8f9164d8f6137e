"""Every number of steps: one algorithm, no step that goes nowhere, nothing that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from labcore.certificates import Check
from labcore.testing.case import Broken, Case, passed
from labcore.testing.checks.precision import computational_noise
from labcore.testing.compare import Difference, difference, habits
from labcore.testing.probe import Probe, probe

EVERY = 64
SPARSE = (100, 128, 250, 500, 1000)
COUPLED = (1, 2, 3, 5, 8, 13, 33, 64, 250)
SAME = 1e-4
"""Relative difference up to which formulas are the same; more, for a sampler whose arithmetic is
noisy (see ``precision``)."""


def steps(case: Case) -> Check:
    """At every number of steps up to 64, and some above, the same algorithm runs.

    A switch shows in what is asked for in a step, or in the numbers a step is made of between
    times that two grids share (labcore.testing.probe); both are compared from each number of
    steps to the next, and above 64 the number at which a change happens is searched for.
    """
    counts = numbers(case)
    if case.coupled:
        return _coupled(case, counts)
    probes = {n: probe(case, n) for n in counts}
    for n, p in probes.items():
        _sound(case, n, p)
    changes = {q.steps: _change(case, p, q) for p, q in pairwise(probes.values())}
    switches, drift = _switches(case, changes)
    if switches:
        raise Broken(
            "; ".join(f"from {n} steps on {what}" for n, what in list(switches.items())[:3]),
            "make the algorithm an option, not a matter of the number of steps",
        )
    refused = "" if case.least == 1 else f"; it refuses fewer than {case.least}"
    note = (f"; {drift}" if drift else "") + refused
    return passed(
        f"one algorithm at every number of steps to {EVERY} and at {SPARSE}{note}",
        figures={"steps": list(counts), "calls": [len(p.calls) for p in probes.values()]},
        plots=(_plot(changes),),
    )


def numbers(case: Case) -> tuple[int, ...]:
    """The numbers of steps to look at."""
    counts = COUPLED if case.coupled else (*range(1, EVERY + 1), *SPARSE)
    return tuple(n for n in counts if n >= case.least)


def _coupled(case: Case, counts: Sequence[int]) -> Check:
    """Steps that follow a tolerance: finite on every grid, and the end does not depend on it."""
    ends = {n: case.run(n)[-1] for n in counts}
    bad = [n for n, x in ends.items() if not bool(torch.isfinite(x).all())]
    if bad:
        raise Broken(f"NaN or Inf at {bad[0]} steps", "check its coefficients")
    spread = float((torch.stack(list(ends.values())) - ends[counts[0]]).abs().max())
    return passed(
        f"finite at {counts} steps; its steps follow a tolerance, and its ends are within "
        f"{spread:.1g} of each other",
        figures={"steps": list(counts), "spread": spread},
    )


def _sound(case: Case, n: int, p: Probe) -> None:
    if not bool(torch.isfinite(p.states).all()):
        raise Broken(f"NaN or Inf at {n} steps", "check its coefficients at that number of steps")
    if "log_p_t" in case.entry.needs:  # it may stay where it is, and ask again where it stays
        return
    if p.still:
        raise Broken(
            f"at {n} steps, step {p.still[0] + 1} does not move",
            "look for a time that is there twice, or a step of length zero",
        )
    if p.twice:
        raise Broken(
            f"at {n} steps it calls the score twice in a row at the same x and t={p.twice[0]:.4g}",
            "keep the value, or look for a step of length zero",
        )


def _change(case: Case, p: Probe, q: Probe) -> Difference:
    """What changes between two numbers of steps, in pattern or in numbers."""
    before, after = p.pattern(), q.pattern()
    if not inserted(before, after):
        return Difference(float("inf"), f"a step asks for other things ({_told(before, after)})")
    return difference(p, q, *habits(case))


def inserted(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether ``after`` is ``before`` with equal steps inserted in one place."""
    first = _prefix(before, after)
    last = min(_prefix(before[::-1], after[::-1]), len(before) - first)
    middle = after[first : len(after) - last]
    return first + last == len(before) and len(set(middle[1:-1])) <= 1


def _prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _told(before: Sequence[Any], after: Sequence[Any]) -> str:
    calls = [sum(n for n, _ in each) for each in (before, after)]
    return f"{calls[0]} score calls in {len(before) - 1} steps, {calls[1]} in {len(after) - 1}"


def _switches(case: Case, changes: Mapping[int, Difference]) -> tuple[dict[int, str], str]:
    """The numbers of steps from which on something else runs; or what depends on their number
    throughout, which is no switch but is told."""
    same = max(SAME, min(1000 * computational_noise(case), 1e-2))
    told = {n: d for n, d in changes.items() if d.size > same}
    every = [n for n in told if n <= EVERY]
    if len(every) > EVERY // 8:
        return _outliers(changes, every), f"{_what(told[every[0]])} depends on their number"
    found = {n: _says(told[n]) for n in every}
    drift = ""
    for low, high in pairwise((EVERY, *SPARSE)):
        if high in told and not (drift and told[high].size < float("inf")):
            n, change = _search(case, low, high)
            if change.size > 0.3 * min(told[high].size, 1.0):
                found[n] = _says(change)
            else:
                drift = f"above {low} steps {_what(told[high])} depends on their number"
    return found, drift


def _what(change: Difference) -> str:
    return "what a step asks for" if change.what.startswith("a step") else change.what


def _says(change: Difference) -> str:
    if change.size == float("inf"):
        return change.what
    return f"{change.what} changes, by {change.size:.1g}"


def _outliers(changes: Mapping[int, Difference], every: Sequence[int]) -> dict[int, str]:
    """Among changes at most numbers of steps, those ten times as large as all near them."""
    found = {}
    for n in every:
        near = [changes[m].size for m in range(n - 3, n + 4) if m != n and m in changes]
        drifts = sum(size > SAME for size in near) > len(near) // 2
        if drifts and 10 * max(near) < changes[n].size < float("inf"):
            found[n] = _says(changes[n])
    return found


def _search(case: Case, low: int, high: int) -> tuple[int, Difference]:
    """The neighbouring numbers of steps between which most of a change happens, by halving."""
    while high - low > 1:
        mid = (low + high) // 2
        below, above = (
            _change(case, probe(case, a), probe(case, b)) for a, b in ((low, mid), (mid, high))
        )
        low, high = (low, mid) if below.size >= above.size else (mid, high)
    return high, _change(case, probe(case, low), probe(case, high))


def _plot(changes: Mapping[int, Difference]) -> dict[str, Any]:
    finite = {n: d.size for n, d in changes.items() if d.size < float("inf")}
    return {
        "kind": "lines",
        "title": "Change of the formula from one number of steps to the next",
        "xlabel": "steps",
        "ylabel": "largest relative change",
        "xscale": "log",
        "yscale": "log",
        "series": [
            {
                "label": "measured",
                "x": list(finite),
                "y": [max(v, 1e-17) for v in finite.values()],
            },
            {"label": "a switch", "x": [2, 1000], "y": [SAME, SAME], "dashed": True},
        ],
    }

"""What a sampler costs: the evaluations it declares against those that the lab counts."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.scores import ScoreWith, counted
from labcore.testing.case import Broken, Case, passed
from labcore.testing.checks.steps import EVERY, SPARSE, numbers
from labcore.testing.probe import probe

SINGLE = (1, 2, 5, 10)
"""Numbers of steps at which float32 is counted beside float64."""


class Tally:
    """The lab's own count, out of a sampler's reach: evaluations over rows of the batch."""

    def __init__(self, case: Case, rows: int) -> None:
        self._case, self._rows, self.seen = case, rows, 0.0

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen += len(x) / self._rows
        return self._case.score(x, t)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen += len(x) / self._rows
        return self._case.log_prob(x, t)

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        self.seen += len(x) / self._rows
        return self._case.reverse(x, t, s, z, u)


def count(case: Case, steps: int, dtype: torch.dtype) -> tuple[float, float]:
    """Evaluations in a run, from first state to exhaustion: the lab's count and the meter's."""
    tally = Tally(case, 3)
    meter = counted(ScoreWith(tally.score, tally.log_prob, 1, tally.reverse), 3)
    case.run(steps, dtype=dtype, score=meter)
    return tally.seen, meter.nfe


def nfe(case: Case) -> Check:
    """What is counted is what the meter says and what is declared, at every number of steps."""
    declared = partial(case.entry.nfe, options=case.options)
    counts, found = numbers(case), {}
    for steps in counts:
        if case.coupled:
            seen, told = count(case, steps, torch.float64)
        else:
            seen, told = probe(case, steps).seen, probe(case, steps).told
        found[steps] = seen
        _agree(steps, seen, told, declared(steps), torch.float64)
    for steps in (n for n in SINGLE if n >= case.least):
        seen, told = count(case, steps, torch.float32)
        _agree(steps, seen, told, declared(steps), torch.float32)
    figures = {"steps": list(found), "evaluations": list(found.values())}
    if declared(1) is None:
        return passed(
            f"no fixed cost is declared: {min(found.values()):g} to {max(found.values()):g} "
            f"evaluations in {min(counts)} to {max(counts)} steps",
            figures=figures,
            plots=(_plot(found),),
        )
    return passed(
        f"{_cost(case)}, at every number of steps to {EVERY} and at {SPARSE} in float64, and at "
        f"{SINGLE} in float32",
        figures=figures,
    )


def _cost(case: Case) -> str:
    """What is declared, in words."""
    if "nfe_of" in case.entry.traits:
        return f"{case.entry.nfe(1, case.options)} in one step and on as nfe_of has it"
    extra = case.entry.traits.get("extra", 0)
    return f"{case.entry.evals(case.options)} a step" + (f" + {extra}" if extra else "")


def _agree(steps: int, seen: float, told: float, declared: int | None, dtype: torch.dtype) -> None:
    if abs(told - seen) > 1e-6 * max(seen, 1.0):
        raise Broken(
            f"the meter says {told:g} score evaluations in {steps} steps where {seen:g} were made",
            "leave score.nfe and score.model alone: the lab counts",
        )
    if declared is not None and abs(seen - declared) > 1e-6 * max(seen, 1.0):
        raise Broken(
            f"{seen:g} score evaluations in {steps} steps ({dtype}), declared {declared}",
            "correct evals= and extra=, or nfe_of=",
        )


def _plot(found: dict[int, float]) -> dict[str, Any]:
    return {
        "kind": "lines",
        "title": "Score evaluations",
        "xlabel": "steps",
        "ylabel": "evaluations",
        "xscale": "log",
        "yscale": "log",
        "series": [{"label": "counted", "x": list(found), "y": list(found.values())}],
    }

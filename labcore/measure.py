"""Samples to numbers: exact draws to compare with, metrics on them, and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labcore import seeds
from labcore.errors import LabError, MetricError
from labcore.guards import OF_THREADS, undisturbed
from labcore.metrics import Outcome
from labcore.parts import Parts
from labcore.processes import Process
from labcore.study import Cell, Floor, Use
from labcore.targets import Mixture, Target, data_law
from labcore.text import one_line, reason_of

Values = dict[str, dict[str, float]]
"""Metric label -> sub name ("" for a metric of one number) -> value."""


def said(error: BaseException) -> str:
    """An error in one line; those of the lab speak for themselves."""
    return one_line(str(error)) if isinstance(error, LabError) else reason_of(error)


def outcome_of(cell: Cell, samples: Tensor, parts: Parts) -> Outcome:
    """A cell's samples beside as many exact ones of the law that they are compared with."""
    t_eps = float(parts.times(cell)[-1]) if cell.against == "t_eps" else None
    process = cell.process if cell.against == "t_eps" else None
    draw = exact(cell.target, process, t_eps, parts)
    drawn = draw(cell.n, seeds.generator("reference", cell.seed))
    reference = drawn.to(torch.promote_types(drawn.dtype, samples.dtype))
    target = parts.target(cell.target)
    law = exact_law(target, parts.process(process) if process else None, t_eps)
    if process and law is None:
        target = replace(target, log_prob=None)  # p_0's density is not that of p_{t_eps}
    score = parts.score(cell.score, cell.process, cell.target)
    made = parts.process(cell.process)
    return Outcome(samples, reference, target, law, cell.seed, made, score)


def exact(
    target: Use, process: Use | None, t_eps: float | None, parts: Parts
) -> Callable[[int, torch.Generator], Tensor]:
    """The sampler of exact draws: from the data law p_0, or from p_{t_eps} in data space."""
    law = parts.target(target)
    if process is None or t_eps is None:
        return law.sample
    made = parts.process(process)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        x0 = law.sample(n, generator)
        z = torch.randn(n, *made.event(law.event), generator=generator)
        return made.project(made.perturb(x0, t_eps, z))

    return draw


def exact_law(target: Target, process: Process | None, t_eps: float | None) -> Mixture | None:
    """The closed form of what ``exact`` draws from, where there is one."""
    if target.mixture is None or process is None or t_eps is None:
        return target.mixture
    return data_law(process, target.mixture, t_eps, target.event)


def measure(
    outcome: Outcome, metrics: Iterable[Use], parts: Parts
) -> tuple[Values, dict[str, str]]:
    """Every metric's values, and the reason of each that failed, by metric."""
    values: Values = {}
    unmeasured: dict[str, str] = {}
    for metric in metrics:
        try:
            values[str(metric)] = _numbers(metric, _asked(metric, outcome, parts))
        except (Exception, SystemExit) as error:
            unmeasured[str(metric)] = said(error)
    return values, unmeasured


def _asked(metric: Use, outcome: Outcome, parts: Parts) -> Any:
    """What a metric returns, with nothing that it does felt by the next one."""
    samples, reference = outcome.samples.clone(), outcome.reference.clone()
    own = replace(outcome, samples=samples, reference=reference)
    with undisturbed(but=OF_THREADS) as changed:
        got = parts.registry.get("metric", metric.name)(own, **dict(metric.options))
    if changed:
        raise MetricError(
            f"metric '{metric}': it changed {', '.join(changed)}; leave process-wide state alone "
            "and take every draw from outcome.generator(label)"
        )
    return got


def _numbers(metric: Use, got: Any) -> dict[str, float]:
    named: dict[str, Any] = got if isinstance(got, dict) else {"": got}
    if not named:
        raise MetricError(f"metric '{metric}': it returned no number; return at least one")
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise MetricError(
                f"metric '{metric}': it returned {type(value).__name__}"
                f"{f' for {name!r}' if name else ''}; return a float or a dict of floats"
            )
        if not math.isfinite(value):
            raise MetricError(f"metric '{metric}': {name or 'it'} is {value}; it must be finite")
    return {str(name): float(value) for name, value in named.items()}


def run_floor(floor: Floor, metrics: Sequence[Use], parts: Parts) -> list[Values]:
    """The metrics between two independent exact sets, once a repeat."""
    draw = exact(floor.target, floor.process, floor.t_eps, parts)
    target = parts.target(floor.target)
    process = parts.process(floor.process) if floor.process else None
    law = exact_law(target, process, floor.t_eps)
    repeats = []
    for r in range(floor.repeats):
        samples = draw(floor.n, seeds.generator("floor samples", r))
        reference = draw(floor.n, seeds.generator("floor reference", r))
        outcome = Outcome(samples, reference, target, law, seeds.derive("floor", r))
        repeats.append(measure(outcome, metrics, parts)[0])
    return repeats

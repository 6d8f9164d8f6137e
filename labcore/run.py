"""Cells to outcomes in a straight line: process, score, grid, noise -> sampler -> metrics."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labcore import seeds
from labcore.errors import LabError, MetricError, SamplerError, ScoreError
from labcore.guards import OF_THREADS, undisturbed
from labcore.metrics import Outcome
from labcore.noise import brownian, initial
from labcore.parts import Parts
from labcore.processes import Process
from labcore.scores import CountedScore, counted
from labcore.study import Cell, Floor, Use
from labcore.targets import Mixture, Target, data_law
from labcore.text import one_line, reason_of

Values = dict[str, dict[str, float]]
"""Metric label -> sub name ("" for a metric of one number) -> value."""

Diagnostics = dict[str, Tensor]
"""What a sampler says of itself, by name: one number a row."""

ENDS: Mapping[str, Callable[..., Tensor]] = {
    "denoise": Process.tweedie,
    "extrapolate": Process.extrapolate,
}
"""(process, x, t_eps, score) -> x at 0, by the end rule of a cell that does not stop."""

DIAGNOSTICS = "diagnostics"
"""The metric label of what samplers say of themselves."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """The samples of a batch of cells, (B, *event) in data space, and what they took."""

    x: Tensor
    nfe: float
    seconds: float
    diagnostics: Diagnostics

    def split(self, cells: Sequence[Cell]) -> list[Sampled]:
        """The part of each cell, with its share of the seconds."""
        n = cells[0].n
        parts = {name: of.split(n) for name, of in self.diagnostics.items()}
        return [
            Sampled(x, self.nfe, self.seconds / len(cells), {k: v[i] for k, v in parts.items()})
            for i, x in enumerate(self.x.split(n))
        ]


@dataclass(frozen=True)
class Result:
    """What came of one cell: values by metric, or the reason there are none.

    ``unmeasured`` gives the reason of each metric that failed on good samples.
    """

    cell: Cell
    status: str
    values: Values = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    nfe: float = math.nan
    seconds: float = math.nan
    reason: str = ""
    traceback: str = ""


def run_cells(cells: Sequence[Cell], metrics: Sequence[Use], parts: Parts) -> list[Result]:
    """Run cells that differ in their seed alone as one batch; one Result each, never a raise.

    Each seed has its own noise, so the rows are those of running the cells one by one. Where the
    batch fails, the cells are run alone, so that only the guilty ones fail.
    """
    try:
        sampled = sample(cells, parts)
    except (Exception, SystemExit) as error:
        if len(cells) > 1:
            return [result for cell in cells for result in run_cells([cell], metrics, parts)]
        return [failure(cells[0], error)]
    return [_judge(c, s, metrics, parts) for c, s in zip(cells, sampled.split(cells), strict=True)]


def failure(cell: Cell, error: BaseException, status: str = "failed") -> Result:
    """The Result of a cell that raised."""
    text = "".join(traceback.format_exception(error))
    return Result(cell, status, reason=said(error), traceback=text[-20_000:])


def said(error: BaseException) -> str:
    """An error in one line; those of the lab speak for themselves."""
    return one_line(str(error)) if isinstance(error, LabError) else reason_of(error)


def sample(cells: Sequence[Cell], parts: Parts) -> Sampled:
    """The samples of a batch of cells, len(cells) n of them, the first cell's first.

    Raises ScoreError or SamplerError where a contract is broken; NaN is told by a Result each.
    """
    cell = cells[0]
    process, target = parts.process(cell.process), parts.target(cell.target)
    score = parts.score(cell.score, cell.process, cell.target)
    ts = parts.times(cell)
    x = _start(cells, process, target)
    metered = counted(score, len(x))
    with torch.inference_mode():
        begun = time.perf_counter()
        x, told = drive(parts, cell, metered, x, ts, [c.seed for c in cells])
        if cell.end != "stop":
            x = ENDS[cell.end](process, x, ts[-1], metered(x, ts[-1]))
        seconds = time.perf_counter() - begun
        x = process.project(x)
    return Sampled(x, metered.nfe, seconds, told)


def _start(cells: Sequence[Cell], process: Process, target: Target) -> Tensor:
    """x_T for every cell, from the prior or from the exact p_T; independent of the grid."""
    cell = cells[0]
    event = process.event(target.event)
    dtype = getattr(torch, cell.dtype)
    z = initial([c.seed for c in cells], cell.n, event, dtype=dtype)
    if cell.start == "prior":
        return process.prior().chol @ z
    x0 = [target.sample(cell.n, seeds.generator("start", c.seed)) for c in cells]
    return process.perturb(torch.cat(x0).to(dtype), process.T, z)


def drive(
    parts: Parts, cell: Cell, score: CountedScore, x: Tensor, ts: Tensor, numbers: Sequence[int]
) -> tuple[Tensor, Diagnostics]:
    """Run the sampler over the grid and hold it to its contract; x at ts[-1], diagnostics.

    A generator sampler may return {name: number, or one a row}, such as acceptance rates, which
    become rows beside the metrics. ``numbers`` are the seeds of x, ``cell.n`` rows of each.
    """
    entry = parts.registry.get("sampler", cell.sampler.name)
    process = parts.process(cell.process)
    noise = brownian(ts, x.shape[1:], numbers, cell.n, dtype=x.dtype)
    given, grid = x.clone(), ts.clone()
    steps = 0
    out = x
    told: Mapping[str, Any] = {}
    with undisturbed(but=OF_THREADS) as changed:
        states = iter(entry(process, score, x, ts, noise, **dict(cell.sampler.options)))
        while True:
            try:
                out = next(states)
            except StopIteration as end:
                told = _diagnostics(cell, end.value)
                break
            steps += 1
            _check_yield(cell, out, given, steps)
            if steps > cell.steps:  # it might never end
                break
    if steps != cell.steps:
        many = f"{steps}" if steps < cell.steps else f"more than {cell.steps}"
        raise SamplerError(
            f"sampler '{cell.sampler}': it yielded {many} states for {cell.steps} steps; "
            "yield x once for each of ts[1:]"
        )
    if not (torch.equal(x, given) and torch.equal(ts, grid)):
        raise SamplerError(
            f"sampler '{cell.sampler}': it changed its input x or ts in place; "
            "work on a copy, such as x = x.clone()"
        )
    if changed:
        raise SamplerError(
            f"sampler '{cell.sampler}': it changed {', '.join(changed)}; leave process-wide state "
            "alone and take every draw from noise(t, s)"
        )
    return out, {name: _of_rows(value, len(x)) for name, value in told.items()}


def _diagnostics(cell: Cell, returned: Any) -> Mapping[str, Any]:
    if returned is None or isinstance(returned, Mapping):
        return returned or {}
    raise SamplerError(
        f"sampler '{cell.sampler}': it returned a {type(returned).__name__}; yield states, and "
        "return nothing or a dict of diagnostics"
    )


def _of_rows(value: Any, rows: int) -> Tensor:
    """A diagnostic as one number a row."""
    return torch.as_tensor(value, dtype=torch.float64).expand(rows)


def _check_yield(cell: Cell, x: Tensor, given: Tensor, step: int) -> None:
    if not isinstance(x, Tensor) or x.shape != given.shape or x.dtype != given.dtype:
        got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise SamplerError(
            f"sampler '{cell.sampler}': at step {step} it yielded {got} for x of "
            f"{tuple(given.shape)} {given.dtype}; keep shape and dtype"
        )


def _judge(cell: Cell, sampled: Sampled, metrics: Sequence[Use], parts: Parts) -> Result:
    """Measure one cell's samples; a metric that fails leaves the others standing."""
    nfe, seconds = sampled.nfe, sampled.seconds
    if not bool(torch.isfinite(sampled.x).all()):
        return replace(failure(cell, _blame(cell, parts)), nfe=nfe, seconds=seconds)
    try:
        values, unmeasured = measure(_outcome(cell, sampled.x, parts), metrics, parts)
    except Exception as error:
        return replace(failure(cell, error), nfe=nfe, seconds=seconds)
    told = {name: float(of.mean()) for name, of in sampled.diagnostics.items()}
    if told:
        values[DIAGNOSTICS] = told
    return Result(cell, "ok", values, unmeasured, nfe, seconds)


def _blame(cell: Cell, parts: Parts) -> LabError:
    """Run a cell that ended in NaN or Inf again, to say where it first went wrong."""
    process, target = parts.process(cell.process), parts.target(cell.target)
    score = parts.score(cell.score, cell.process, cell.target)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            raise SamplerError(
                f"sampler '{cell.sampler}': x is not finite at t={float(t.reshape(-1)[0]):.4g}; "
                "the step is too large for this process, take more steps or another grid"
            )
        s = score(x, t)
        if not bool(torch.isfinite(s).all()):
            raise ScoreError(
                f"score '{cell.score}': NaN or Inf at t={float(t.reshape(-1)[0]):.4g} for finite "
                "x; end the grid at a larger t_eps or mend the score"
            )
        return s

    try:
        x, ts = _start([cell], process, target), parts.times(cell)
        with torch.inference_mode():
            metered = counted(score, len(x))
            metered = replace(metered, model=replace(metered.model, score=watched))
            drive(parts, cell, metered, x, ts, [cell.seed])
    except LabError as error:
        return error
    return SamplerError(
        f"sampler '{cell.sampler}': its last step gave NaN or Inf; take more steps"
    )


def _outcome(cell: Cell, samples: Tensor, parts: Parts) -> Outcome:
    t_eps = float(parts.times(cell)[-1]) if cell.against == "t_eps" else None
    process = cell.process if cell.against == "t_eps" else None
    draw = exact(cell.target, process, t_eps, parts)
    reference = draw(cell.n, seeds.generator("reference", cell.seed))
    target = parts.target(cell.target)
    law = exact_law(target, parts.process(process) if process else None, t_eps)
    if process and law is None:
        target = replace(target, log_prob=None)  # p_0's density is not that of p_{t_eps}
    return Outcome(samples, reference, target, law, cell.seed)


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

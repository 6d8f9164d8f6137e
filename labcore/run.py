"""Cells to outcomes in a straight line: process, score, grid, noise -> sampler -> metrics."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from labcore import seeds
from labcore.errors import LabError, SamplerError, ScoreError
from labcore.guards import OF_THREADS, undisturbed
from labcore.measure import Values, measure, outcome_of, said
from labcore.noise import brownian, initial
from labcore.parts import Parts
from labcore.processes import Process
from labcore.scores import CountedScore, counted
from labcore.study import Cell, Use
from labcore.targets import Target

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
        values, unmeasured = measure(outcome_of(cell, sampled.x, parts), metrics, parts)
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
    sizes: list[float] = []  # of x, the largest |x_i| a call

    def watched(x: Tensor, t: Tensor) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            raise SamplerError(
                f"sampler '{cell.sampler}': x is not finite at t={float(t.reshape(-1)[0]):.4g}; "
                f"{_cause(sizes)}"
            )
        sizes.append(float(x.abs().max()))
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
        f"sampler '{cell.sampler}': its last step gave NaN or Inf; {_cause(sizes)}"
    )


GROWN = 1e3
"""How many times its size at T a state has where the steps were too large for it."""


def _cause(sizes: Sequence[float]) -> str:
    """Why states of these sizes were followed by one that is not finite, and what to do."""
    if sizes and max(sizes) > GROWN * sizes[0] > 0:
        return (
            f"x grew from {sizes[0]:.2g} to {max(sizes):.2g} before: the step is too large for "
            "this process, take more steps or another grid"
        )
    before = f"x was {sizes[-1]:.2g} at most just before" if sizes else "it was the first step"
    return (
        f"{before}: look for 0/0, a root or log of a negative number, or an overflow in the "
        "coefficients there"
    )

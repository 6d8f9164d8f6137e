"""Metamorphic checks: change the problem in a way whose effect on the answer is known.

With R orthogonal and c a number, and z the draws,

    rotation      data, A, G, x_T, z rotated               x -> R x        in law for matrices
    scaling       data and G times c                       x -> c x
    permutation   rows of x_T and z in another order       rows of x in that order
    variables     x/alpha and sigma/alpha for time, so EDM's; from A = 0 to VP's
                  exp(t/T) x for matrices                  ends in these variables

A change of variables leaves methods alone that treat the linear part exactly and look at nothing
but signal and noise; for others both results tend to one limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import log
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.errors import InvalidProcess, SamplerError
from labcore.noise import Noise, brownian
from labcore.processes import Process
from labcore.targets import Mixture
from labcore.testing.audit import Audit, audit
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.changes import change_of_variables, conjugated, orthogonal, same, scaled
from labcore.testing.checks.precision import computational_noise
from labcore.testing.gaussians import gaussian
from labcore.testing.models import quadratic, uneven
from labcore.testing.probe import F64, Fixed

EQUAL = 1e-9
STEPS, ROWS, MANY = 6, 4, 32
"""Many rows where what is looked for, as a clamp, may not act on every one."""
SCALE = 1024.0
"""A power of two, so that scaling rounds nothing; far from one, so that a constant shows."""


class Mapped(Noise):
    """Another noise, with a map applied to every draw."""

    def __init__(self, noise: Noise, turn: Callable[[Tensor], Tensor]) -> None:
        self._noise, self._turn = noise, turn

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        return tuple(map(self._turn, self._noise.draw(t, s, stream, parts)))


class Turned(Fixed):
    """The draws of Fixed with a map applied, except to the streams in ``but``."""

    def __init__(
        self,
        case: Case,
        turn: Callable[[Tensor], Tensor],
        but: Iterable[str] = (),
        rows: int = ROWS,
    ) -> None:
        super().__init__(case.event, rows, case.seed)
        self._case, self._rows, self._turn, self._but = case, rows, turn, frozenset(but)
        self.streams: set[str] = set()

    def fresh(self, key: tuple[float, float, str, int]) -> Tensor:
        z, name = super().fresh(key), stream_of(key[2])
        self.streams.add(name)
        return z if name in self._but else self._turn(z)

    def tree(self, resolution: float) -> Noise:
        case = self._case
        path = brownian(_grid(case), case.event, [case.seed], self._rows, dtype=F64)
        return Mapped(path.tree(resolution), self._turn)


def stream_of(label: str) -> str:
    """A stream's name without the numbers in it."""
    return "".join(c for c in label if not c.isdigit()).strip()


def _grid(case: Case) -> Tensor:
    return uneven(case.process, max(STEPS, case.least))


def _start(case: Case, rows: int = ROWS) -> Tensor:
    return case.start([case.seed], rows, F64)


def _equal(case: Case) -> float:
    """Up to what results are the same: EQUAL, a thousand times the noise of the sampler's own
    arithmetic (see ``precision``), or what steps that follow a tolerance make of rounding: on a
    path, another length of step is another draw within it."""
    if case.coupled:
        return _tolerance(case) if case.entry.traits.get("stochastic") else 1e-6
    return min(max(EQUAL, 1000 * computational_noise(case)), 1e-2)


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest number."""
    return float(
        (a - b).abs().max() / torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-300)
    )


def _plain(case: Case, rows: int = ROWS) -> Tensor:
    """The end of the run that others are compared with."""
    return case.once(
        ("plain", rows),
        lambda: case.end(_start(case, rows), _grid(case), Turned(case, same, rows=rows)),
    )


def permutation(case: Case) -> Check:
    """Rows in another order give the rows of the result in that order."""
    order = torch.tensor([2, 0, 3, 1])
    noise = Turned(case, lambda z: z[order])
    apart = _apart(case.end(_start(case)[order], _grid(case), noise), _plain(case)[order])
    if apart > _equal(case):
        raise Broken(
            f"rows in another order give other results, by {apart:.1g}",
            "let no row depend on where in the batch it stands",
        )
    return passed(f"equal to {apart:.0e}", figures={"difference": apart})


def _tolerance(case: Case) -> float:
    """What a sampler whose steps follow a tolerance may differ by: ten times that."""
    tolerances = [v for k, v in case.options.items() if "tol" in k and isinstance(v, float)]
    return 10 * max([*tolerances, 1e-3])


def rotation(case: Case) -> Check:
    """A rotated problem gives the rotated result: on each path for scalar and block processes,
    in law, by the exact audit, for those that are themselves rotated to dense ones."""
    d = torch.Size(case.data_event).numel()
    R = orthogonal(d, case.seed)
    data = gaussian(case.data.means[0] @ R.T, R @ case.data.covs[0] @ R.T)
    if case.process.structure not in ("scalar", "channel"):
        return _rotated_in_law(case, R, data)

    def turn(x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(case.data_event)]
        return (x.reshape(*lead, d) @ R.T).reshape(x.shape)

    plain, other = turn(_plain(case, MANY)), case.beside(data=data)
    x, whole = turn(_start(case, MANY)), Turned(case, turn, rows=MANY)
    apart = _apart(other.end(x, _grid(case), whole), plain)
    if apart <= _equal(case):
        return passed(f"equal to {apart:.0e}", figures={"difference": apart})
    for name in sorted(whole.streams):  # a stream that a uniform number is made of does not turn
        noise = Turned(case, turn, but=[name], rows=MANY)
        part = _apart(other.end(x, _grid(case), noise), plain)
        if part <= _equal(case):
            return passed(
                f"equal to {part:.0e}, where draws of '{name}' are numbers, not vectors",
                figures={"difference": part},
            )
    if case.coupled and apart < _tolerance(case):
        return passed(
            f"within {apart:.1g}: its steps follow an error that is measured by coordinates",
            figures={"difference": apart},
        )
    raise Broken(
        f"the result of a rotated problem is another one, by {apart:.1g}",
        "look for a coordinate, or a constant vector, that is treated apart",
    )


def _rotated_in_law(case: Case, R: Tensor, data: Mixture) -> Check:
    if case.process.structure not in ("diag", "dense") or len(case.data_event) > 1:
        return skipped(f"no rotation of a {case.process.structure} process of {case.data_event}")
    if case.entry.needs & {"log_p_t", "reverse"}:
        return skipped("no exact law to compare: the audit's score knows no density")
    turned = case.beside(process=conjugated(case.process, R), data=data)
    try:
        before, after = _law(case, _grid(case)), _law(turned, _grid(case))
    except SamplerError as error:
        return skipped(f"no exact law to compare: {str(error).split(';')[0]:.80}")
    apart = max(_apart(after.mean, before.mean @ R.T), _apart(after.cov, R @ before.cov @ R.T))
    if apart > _equal(case):
        raise Broken(
            f"the law of a rotated problem is another one, by {apart:.1g}",
            "treat matrices as operators: a root or a product is taken entry by entry",
        )
    return passed(f"equal in law to {apart:.0e}", figures={"difference": apart})


def scaling(case: Case) -> Check:
    """Data and process in other units give the result in those units, or tend to it.

    Options may carry a unit: those that must be scaled along are found and told.
    """
    apart = _in_units(case, SCALE, _grid(case))
    if apart <= _equal(case):
        return passed(f"equal to {apart:.0e}", figures={"difference": apart})
    for names in _units(case.options):
        part = _in_units(case, SCALE, _grid(case), names)
        if part <= _equal(case):
            return passed(
                f"equal to {part:.0e}, where {', '.join(names)} in the unit of the data",
                figures={"difference": part, "units": list(names)},
            )
    if case.order is not None:
        limit = limit_of(case, lambda ts: _in_units(case, 2.0, ts))
        if limit.reached:
            return passed(f"not the same in other units, but {limit.told}", figures=limit.figures)
    raise Broken(
        f"the result in other units is another one, by {apart:.1g}",
        "look for a constant that the size of the data is compared with or added to",
    )


def _in_units(case: Case, c: float, ts: Tensor, names: Iterable[str] = ()) -> float:
    """How far the result in units c times as small is from c times the result."""
    options = {k: c * v if k in names else v for k, v in case.options.items()}
    data = gaussian(c * case.data.means[0], c**2 * case.data.covs[0])
    other = case.beside(process=scaled(case.process, c), data=data, options=options)
    x = _start(case, MANY)
    plain = case.end(x, ts, Turned(case, same, rows=MANY))
    return _apart(other.end(c * x, ts, Turned(case, same, rows=MANY)), c * plain)


def _units(options: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """Sets of options that are numbers, smallest first."""
    numbers = [k for k, v in options.items() if isinstance(v, float) and v != 0]
    for size in range(1, min(len(numbers), 4) + 1):
        yield from combinations(numbers, size)


def variables(case: Case) -> Check:
    """In other variables it gives the same result, or one that tends to it with more steps."""
    if case.coupled:
        return skipped("its steps follow a tolerance, which is another one in other variables")
    if "channel" in case.entry.needs:
        return skipped("it is made for the variables of its process")
    name, process, time, into = change_of_variables(case.process)
    try:
        apart = _in_both(case, _grid(case), process, time, into)
    except InvalidProcess as error:
        return skipped(f"it refuses the process in {name} variables: {error!s:.120}")
    if apart <= _equal(case):
        return passed(
            f"the same in {name} variables, to {apart:.0e}", figures={"difference": apart}
        )
    limit = limit_of(case, lambda ts: _in_both(case, ts, process, time, into))
    if case.order is None:
        return passed(
            f"not the same in {name} variables: {limit.told}, and it declares no order",
            figures=limit.figures,
        )
    if not limit.reached:
        raise Broken(
            f"in {name} variables it tends elsewhere: {limit.told}",
            "look for a part of the drift that is left out where A is not zero",
        )
    return passed(f"not the same in {name} variables, but {limit.told}", figures=limit.figures)


@dataclass(frozen=True)
class Limit:
    """Whether differences vanish with more steps, in words and in figures."""

    reached: bool
    told: str
    figures: Mapping[str, Any]


def limit_of(case: Case, apart: Callable[[Tensor], float]) -> Limit:
    """Whether the differences apart(grid) go to zero: down to rounding, or by at least half of
    order 1, which every consistent method has on a path (one normal a step is one thing in both
    problems to that order, whatever the order in law)."""
    steps, found = list[int](), list[float]()
    for counts in ((64, 128, 256), (512, 1024)):  # more where they do not fall yet
        for n in counts:
            steps.append(n)
            found.append(apart(quadratic(case.process, n)))
        first, last = found[-3], found[-1]
        falls = log(first / last) / log(steps[-1] / steps[-3]) if min(first, last) > 0 else 0.0
        reached = last < max(1e-8, _equal(case)) or falls > 0.5
        if reached or case.order is None:
            break
    figures = {"steps": steps, "difference": found, "order": falls}
    if reached:
        return Limit(True, f"tends to it with order {falls:.1f}", figures)
    told = f"{last:.1g} apart at {steps[-1]} steps, falling with order {falls:.1f}"
    return Limit(False, told, figures)


def _in_both(
    case: Case,
    ts: Tensor,
    process: Process,
    time: Callable[[Tensor], Tensor],
    into: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """How far apart the ends are, on one path."""
    other = case.beside(process=process)
    x = _start(case, MANY)
    plain = into(case.end(x, ts, Turned(case, same, rows=MANY)), ts[-1])
    moved = other.end(into(x, ts[0]), time(ts), Turned(case, same, rows=MANY))
    return float((moved - plain).square().mean().sqrt() / plain.square().mean().sqrt())


def _law(case: Case, ts: Tensor) -> Audit:
    if case.entry.needs & {"log_p_t", "reverse"}:
        raise SamplerError("it asks for more than a score; its law is not read off")
    return audit(
        case.entry, case.process, ts, case.data, event=case.data_event, options=case.options
    )

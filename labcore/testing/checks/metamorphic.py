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
from dataclasses import replace
from itertools import combinations
from math import log
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.errors import InvalidProcess, SamplerError
from labcore.linop import LinOp, Mat, Scalar
from labcore.noise import Noise, brownian
from labcore.processes import Process
from labcore.targets import Mixture
from labcore.testing.audit import Audit, audit
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.gaussians import gaussian
from labcore.testing.models import quadratic, uneven
from labcore.testing.probe import F64, Fixed

EQUAL = 1e-9
STEPS, ROWS, MANY = 6, 4, 32
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


def _same(z: Tensor) -> Tensor:
    return z


def _grid(case: Case) -> Tensor:
    return uneven(case.process, max(STEPS, case.least))


def _start(case: Case, rows: int = ROWS) -> Tensor:
    return case.start([case.seed], rows, F64)


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest number."""
    return float(
        (a - b).abs().max() / torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-300)
    )


def _plain(case: Case) -> Tensor:
    """The end of the run that others are compared with."""
    return case.once("plain", lambda: case.end(_start(case), _grid(case), Turned(case, _same)))


def permutation(case: Case) -> Check:
    """Rows in another order give the rows of the result in that order."""
    order = torch.tensor([2, 0, 3, 1])
    noise = Turned(case, lambda z: z[order])
    apart = _apart(case.end(_start(case)[order], _grid(case), noise), _plain(case)[order])
    if apart > EQUAL:
        raise Broken(
            f"rows in another order give other results, by {apart:.1g}",
            "let no row depend on where in the batch it stands",
        )
    return passed(f"equal to {apart:.0e}", figures={"difference": apart})


def _tolerance(case: Case) -> float:
    """What a sampler whose steps follow a tolerance may differ by: ten times that."""
    tolerances = [v for k, v in case.options.items() if "tol" in k and isinstance(v, float)]
    return 10 * max([*tolerances, 1e-3])


def orthogonal(d: int, seed: int) -> Tensor:
    """A d x d rotation or reflection that leaves no axis alone."""
    g = torch.Generator().manual_seed(seed + 1)
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=F64))
    Q = Q * R.diagonal().sign()
    return -Q if d == 1 else Q


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

    plain, other = turn(_plain(case)), case.beside(data=data)
    whole = Turned(case, turn)
    apart = _apart(other.end(turn(_start(case)), _grid(case), whole), plain)
    if apart <= EQUAL:
        return passed(f"equal to {apart:.0e}", figures={"difference": apart})
    for name in sorted(whole.streams):  # a stream that a uniform number is made of does not turn
        noise = Turned(case, turn, but=[name])
        part = _apart(other.end(turn(_start(case)), _grid(case), noise), plain)
        if part <= EQUAL:
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


def conjugated(process: Process, R: Tensor) -> Process:
    """The process of R X, with dense operators."""
    event = process.event_shape or (len(R),)

    def turned(op: LinOp) -> LinOp:
        return Mat(R @ op.dense(event) @ R.T)

    closed = process.closed_Q
    return replace(
        process,
        A=lambda t: turned(process.A(t)),
        G=lambda t: turned(process.G(t)),
        Phi=lambda t, s: turned(process.Phi(t, s)),
        Sigma=lambda t: turned(process.Sigma(t)),
        closed_Q=None if closed is None else lambda t, s: turned(closed(t, s)),
        structure="dense",
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
    if apart > EQUAL:
        raise Broken(
            f"the law of a rotated problem is another one, by {apart:.1g}",
            "treat matrices as operators: a root or a product is taken entry by entry",
        )
    return passed(f"equal in law to {apart:.0e}", figures={"difference": apart})


def scaled(process: Process, c: float) -> Process:
    """The process of c X."""
    closed = process.closed_Q
    return replace(
        process,
        G=lambda t: c * process.G(t),
        Sigma=lambda t: c**2 * process.Sigma(t),
        closed_Q=None if closed is None else lambda t, s: c**2 * closed(t, s),
    )


def scaling(case: Case) -> Check:
    """Data and process in other units give the result in those units.

    Options may carry a unit: those that must be scaled along are found and told.
    """
    data = gaussian(SCALE * case.data.means[0], SCALE**2 * case.data.covs[0])
    other = case.beside(process=scaled(case.process, SCALE), data=data)
    x, plain = SCALE * _start(case), SCALE * _plain(case)
    apart = _apart(other.end(x, _grid(case), Turned(case, _same)), plain)
    if apart <= EQUAL:
        return passed(f"equal to {apart:.0e}", figures={"difference": apart})
    for names in _units(case.options):
        options = {k: SCALE * v if k in names else v for k, v in case.options.items()}
        part = _apart(
            other.beside(options=options).end(x, _grid(case), Turned(case, _same)), plain
        )
        if part <= EQUAL:
            return passed(
                f"equal to {part:.0e}, where {', '.join(names)} in the unit of the data",
                figures={"difference": part, "units": list(names)},
            )
    raise Broken(
        f"the result in other units is another one, by {apart:.1g}",
        "look for a constant that the size of the data is compared with or added to",
    )


def _units(options: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """Sets of options that are numbers, smallest first."""
    numbers = [k for k, v in options.items() if isinstance(v, float) and v != 0]
    for size in range(1, min(len(numbers), 4) + 1):
        yield from combinations(numbers, size)


def growing(process: Process) -> Process:
    """The process of Y = exp(t/T) X in the same time."""
    T, closed = process.T, process.closed_Q

    def c(t: Tensor) -> Tensor:
        return (t / T).exp()

    return replace(
        process,
        A=lambda t: process.A(t) + Scalar(torch.ones_like(t) / T),
        G=lambda t: c(t) * process.G(t),
        Phi=lambda t, s: (c(t) / c(s)) * process.Phi(t, s),
        Sigma=lambda t: c(t).square() * process.Sigma(t),
        closed_Q=None if closed is None else lambda t, s: c(t).square() * closed(t, s),
    )


def level_process(T: float, t_eps: float, event: tuple[int, ...] | None) -> Process:
    """EDM's: time is the noise level, Sigma(t) = t^2."""
    return Process(
        A=lambda t: Scalar(0.0 * t),
        G=lambda t: Scalar((2 * t).sqrt()),
        Phi=lambda t, s: Scalar(torch.ones_like(t + 0 * s)),
        Sigma=lambda t: Scalar(t.square()),
        closed_Q=lambda t, s: Scalar((t - s) * (t + s)),
        T=T,
        t_eps=t_eps,
        event_shape=event,
    )


def preserving(process: Process) -> Process:
    """The process of X / sqrt(1 + Sigma(t)) in the same time, of one with A = 0: Sigma < 1."""

    def level(t: Tensor) -> Tensor:
        return process.Sigma(t).param

    def shrink(t: Tensor) -> Tensor:
        return (1 + level(t)).rsqrt()

    return replace(
        process,
        A=lambda t: Scalar(-0.5 * process.GG(t).param * shrink(t).square()),
        G=lambda t: Scalar(shrink(t) * process.G(t).param),
        Phi=lambda t, s: Scalar(shrink(t) / shrink(s)),
        Sigma=lambda t: Scalar(level(t) * shrink(t).square()),
        closed_Q=lambda t, s: Scalar(shrink(t).square() * process.Q(t, s).param),
    )


Change = tuple[str, Process, Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
"""A name, the process in other variables, its times for times, and its state for (x, t)."""


def change_of_variables(process: Process) -> Change:
    """To EDM's variables for a scalar process, from those of VE to VP's where A = 0 already."""
    T = torch.tensor(process.T, dtype=F64)
    zero = torch.zeros((), dtype=F64)
    if process.structure != "scalar":
        return "growing", growing(process), _same, lambda x, t: float((t / process.T).exp()) * x
    if float(process.A(T).param) == 0 == float(process.A(T / 2).param):
        other = preserving(process)
        return "VP's", other, _same, lambda x, t: other.Phi(t, zero) @ x

    def level(t: Tensor) -> Tensor:
        alpha = process.Phi(t, torch.zeros_like(t)).param
        return process.Sigma(t).param.sqrt() / alpha

    other = level_process(
        float(level(T)), float(level(T * 0 + process.t_eps)), process.event_shape
    )
    return "EDM's", other, level, lambda x, t: process.Phi(t, zero).inv @ x


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
    if apart <= EQUAL:
        return passed(
            f"the same in {name} variables, to {apart:.0e}", figures={"difference": apart}
        )
    figures: dict[str, Any] = {"steps": [], "difference": []}
    for counts in ((64, 128, 256), (512, 1024)):  # more where they are not yet small
        for n in counts:
            ts = quadratic(case.process, n)
            figures["steps"].append(n)
            figures["difference"].append(_in_both(case, ts, process, time, into))
        slope = _falls(figures["steps"][-3:], figures["difference"][-3:])
        if case.order is None or _tends(figures["difference"][-1], slope):
            break
    told = f"{figures['difference'][-1]:.1g} apart at {figures['steps'][-1]} steps"
    if case.order is None:
        why = "and it declares no order"
        return passed(f"not the same in {name} variables: {told}, {why}", figures=figures)
    if not _tends(figures["difference"][-1], slope):
        raise Broken(
            f"in {name} variables it tends elsewhere: {told}, falling with order {slope:.1f}",
            "look for a part of the drift that is left out where A is not zero",
        )
    return passed(
        f"not the same in {name} variables, but tends to it with order {slope:.1f}",
        figures={**figures, "order": slope},
    )


def _falls(steps: list[int], found: list[float]) -> float:
    """The order with which the differences fall."""
    return log(found[0] / found[-1]) / log(steps[-1] / steps[0]) if min(found) > 0 else 0.0


def _tends(last: float, slope: float) -> bool:
    """Whether both go to one limit: down to rounding, or by at least half of order 1, which every
    consistent method has on a path (one normal a step is one thing in both variables to that
    order, whatever the order in law)."""
    return last < 1e-8 or slope > 0.5


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
    plain = into(case.end(x, ts, Turned(case, _same, rows=MANY)), ts[-1])
    moved = other.end(into(x, ts[0]), time(ts), Turned(case, _same, rows=MANY))
    return float((moved - plain).square().mean().sqrt() / plain.square().mean().sqrt())


def _law(case: Case, ts: Tensor) -> Audit:
    if case.entry.needs & {"log_p_t", "reverse"}:
        raise SamplerError("it asks for more than a score; its law is not read off")
    return audit(
        case.entry, case.process, ts, case.data, event=case.data_event, options=case.options
    )

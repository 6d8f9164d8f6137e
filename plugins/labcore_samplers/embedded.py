"""Embedded Runge-Kutta pairs on the probability-flow ODE, steps to a tolerance by PI control.

A step's error is h sum_i (b_i - b*_i) k_i in units of atol + rtol max(|x_t|, |x_s|), root mean
square over the batch: one stiff sample sets the step of all. The next step is

    h' = h min(5, max(1/5, 0.9 err^(-0.7/q) err_before^(0.4/q)))        q the pair's order

Both pairs end a step with the slope that starts the next. Steps run from ts[0] to ts[-1], which
the last one meets; the grid only says where x is given, in between by the cubic through the states
and slopes at both ends of a step. No score is asked outside the grid.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, SamplerError, Score, velocity
from labcore_samplers.runge_kutta import Tableau, combine

Positive = Annotated[float, Gt(0)]
BOSH3 = Tableau(
    3,
    (0, 1 / 2, 3 / 4, 1),
    ((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (2 / 9, 1 / 3, 4 / 9, 0),
    (7 / 24, 1 / 4, 1 / 3, 1 / 8),
)
DOPRI5 = Tableau(
    5,
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
)


@dataclass
class Tally:
    """What the steps of one run came to."""

    accepted: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Step:
    """A step from t to s with the states and slopes at its ends."""

    t: float
    s: float
    x_t: Tensor
    x_s: Tensor
    v_t: Tensor
    v_s: Tensor

    def at(self, u: float) -> Tensor:
        """Cubic Hermite interpolation."""
        if u == self.s:
            return self.x_s
        h, p = self.s - self.t, (u - self.t) / (self.s - self.t)
        q = 1 - p
        out = (q * q * (1 + 2 * p)) * self.x_t + (p * p * (1 + 2 * q)) * self.x_s
        return out.add_(self.v_t, alpha=h * p * q * q).sub_(self.v_s, alpha=h * q * p * p)


Field = Callable[[float, Tensor], Tensor]
"""(t, x) -> the slope of the probability flow."""


@dataclass(frozen=True)
class Control:
    """How steps of a pair follow a tolerance."""

    pair: Tableau
    rtol: float
    atol: float

    def error(self, step: Step, ks: Sequence[Tensor]) -> float:
        """err of the module's formula, by the difference of the pair's two results."""
        gap = [b - low for b, low in zip(self.pair.b, self.pair.lower, strict=True)]
        scale = torch.maximum(step.x_t.abs(), step.x_s.abs()).mul_(self.rtol).add_(self.atol)
        miss = combine(torch.zeros_like(step.x_t), step.s - step.t, gap, ks)
        error = max(float((miss / scale).square().mean().sqrt()), 1e-10)
        if not isfinite(error):
            raise SamplerError(
                f"adaptive: NaN or Inf in the step from t={step.t:.4g}; check the score there"
            )
        return error

    def after(self, error: float, before: float) -> float:
        """What an accepted step's length is multiplied by."""
        q = self.pair.order
        return min(5.0, max(0.2, 0.9 * error ** (-0.7 / q) * before ** (0.4 / q)))

    def again(self, h: float, error: float, t: float) -> float:
        """The length with which a refused step is tried again."""
        h *= max(0.2, 0.9 * error ** (-1 / self.pair.order))
        if t + h == t:
            raise SamplerError(
                f"adaptive: at t={t:.4g} the tolerance asks for steps below rounding; loosen "
                f"rtol={self.rtol:g} and atol={self.atol:g}"
            )
        return h


def metered(flow: Callable[[Tensor, Tensor], Tensor], most: int) -> Field:
    """The flow, for at most ``most`` evaluations."""
    calls = iter(range(most))

    def v(u: float, y: Tensor) -> Tensor:
        if next(calls, None) is None:
            raise SamplerError(
                f"adaptive: all {most} score evaluations are used up at t={u:.4g}; loosen rtol "
                "and atol, raise max_nfe, or use fixed steps"
            )
        return flow(torch.tensor(u, dtype=torch.float64), y)

    return v


def stepped(
    pair: Tableau, v: Field, x: Tensor, k0: Tensor, t: float, s: float
) -> tuple[Step, list[Tensor]]:
    """The step from t to s, whose first slope is known, and its slopes."""
    h, ks, y = s - t, [k0], x
    for c, row in zip(pair.c[1:], pair.a[1:], strict=True):
        y = combine(x, h, row, ks)
        ks.append(v(s if c == 1 else max(t + c * h, s), y))
    # The last row of a is b: y is x_s, and ks[-1] its slope.
    return Step(t, s, x, y, k0, ks[-1]), ks


def controlled(
    control: Control, v: Field, x: Tensor, t: float, end: float, tally: Tally
) -> Generator[Step]:
    """The accepted steps from t down to end."""
    k0, before = v(t, x), 1.0
    h = -min(t - end, 0.01 * float((x.norm() / k0.norm().clamp_min(1e-30)).clamp_min(1e-6)))
    while t > end:
        s = end if t + 1.01 * h <= end else t + h
        step, ks = stepped(control.pair, v, x, k0, t, s)
        h, error = s - t, control.error(step, ks)
        if error <= 1:
            yield step
            tally.accepted += 1
            t, x, k0 = s, step.x_s, step.v_s
            h, before = h * control.after(error, before), error
        else:
            tally.rejected += 1
            h = control.again(h, error, t)


def entry(name: str, pair: Tableau, cite: str, doc: str) -> Entry:
    """The sampler of one pair."""

    def integrate(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        rtol: Positive = 1e-3,
        atol: Positive = 1e-3,
        max_nfe: Annotated[int, Gt(0)] = 10_000,
    ) -> Generator[Tensor, None, dict[str, float]]:
        times, tally = ts.tolist(), Tally()
        v = metered(velocity(process, score), max_nfe)
        steps = controlled(Control(pair, rtol, atol), v, x, times[0], times[-1], tally)
        step = next(steps)
        for u in times[1:]:
            while step.s > u:
                step = next(steps)
            yield step.at(u)
        next(steps, None)
        return {"accepted": float(tally.accepted), "rejected": float(tally.rejected)}

    integrate.__doc__ = (
        f"{doc} Steps to a tolerance on the probability flow.\n\n"
        "Raises SamplerError after ``max_nfe`` score evaluations. The counts of accepted and\n"
        "rejected steps come back as rows."
    )
    made: Entry = labcore.sampler(name=name, stochastic=False, coupled=True, cite=cite)(integrate)
    return made


adaptive_rk23 = entry(
    "adaptive_rk23",
    BOSH3,
    "Bogacki, Shampine (1989) Appl. Math. Lett. 2; Gustafsson (1991)",
    "Bogacki-Shampine 3(2).",
)
adaptive_rk45 = entry(
    "adaptive_rk45",
    DOPRI5,
    "Dormand, Prince (1980) J. Comput. Appl. Math. 6; Gustafsson (1991)",
    "Dormand-Prince 5(4).",
)

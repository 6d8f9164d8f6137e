"""Steps to a tolerance on the reverse SDE: Euler-Maruyama beside the stochastic improved Euler.

With x' the step of Euler-Maruyama from t to s, x~ = x + h a(s, x') + b_s dB on the same increment
and x'' = (x' + x~)/2, the error of a sample is

    E = | (x' - x'') / delta | / sqrt(d),   delta = max( atol, rtol max(|x'|, |x'_before|) )

A step with E <= 1 goes to x''; the next one is of length theta h E^-r. The paper has one step
size a sample; a batch here shares its times, so the worst sample sets it. A refused step is tried
again on the same Brownian path, where the paper draws anew and so prefers small noise.
"""

from collections.abc import Generator
from dataclasses import dataclass
from math import isfinite
from typing import Annotated

import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor

import labcore
from labcore import Noise, Process, SamplerError, Score, reverse_drift

Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Step = tuple[float, Tensor, float, Tensor]  # t, x_t, s, x_s


@dataclass(frozen=True)
class Control:
    """How the step size follows the error."""

    rtol: float
    atol: float
    theta: float
    r: float
    least: float
    max_nfe: int

    def error(self, euler: Tensor, better: Tensor, before: Tensor, t: float) -> float:
        """E of the worst sample."""
        size = torch.maximum(euler.abs(), before).mul_(self.rtol).clamp_min_(self.atol)
        worst = float(((euler - better) / size).flatten(1).square().mean(1).max().sqrt())
        if not isfinite(worst):
            raise SamplerError(
                f"gotta_go_fast: NaN or Inf in the step from t={t:.4g}; check the score there"
            )
        return worst

    def next(self, h: float, error: float, t: float) -> float:
        """The length of the next step, no shorter than ``least``."""
        h = self.theta * h * max(error, 1e-6) ** -self.r
        if h < self.least and error > 1:
            raise SamplerError(
                f"gotta_go_fast: at t={t:.4g} the tolerance asks for steps below dt_min, {h:.2g}; "
                f"loosen rtol={self.rtol:g} and atol={self.atol:g}, or lower dt_min"
            )
        return max(h, self.least)


def pair(
    process: Process, score: Score, path: Noise, x: Tensor, t: float, s: float
) -> tuple[Tensor, Tensor]:
    """x' and x'' of the step from t to s, two evaluations."""
    now, after = (torch.tensor(u, dtype=torch.float64) for u in (t, s))
    drift, dB = reverse_drift(process, score, 1.0), (t - s) ** 0.5 * path(t, s)
    euler = process.G(now).accumulate(torch.add(x, drift(now, x), alpha=s - t), dB)
    again = process.G(after).accumulate(torch.add(x, drift(after, euler), alpha=s - t), dB)
    return euler, again.add_(euler).mul_(0.5)


def controlled(
    process: Process,
    score: Score,
    path: Noise,
    x: Tensor,
    span: tuple[float, float],
    h: float,
    control: Control,
    told: dict[str, float],
) -> Generator[Step]:
    """The accepted steps over the span (T, t_eps), the first one of length h."""
    (t, end), before, used = span, x.abs(), 0
    while t > end:
        used += 2
        if used > control.max_nfe:
            raise SamplerError(
                f"gotta_go_fast: all {control.max_nfe} score evaluations are used up at "
                f"t={t:.4g}; loosen rtol and atol, raise max_nfe, or use fixed steps"
            )
        s = end if t - h < end + control.least else t - h
        euler, better = pair(process, score, path, x, t, s)
        error, h = control.error(euler, better, before, t), t - s
        if error <= 1:
            told["accepted"] += 1
            yield t, x, s, better
            t, x, before = s, better, euler.abs()
        else:
            told["rejected"] += 1
        h = control.next(h, error, t)


@labcore.sampler(
    stochastic=True,
    coupled=True,
    cite="Jolicoeur-Martineau et al. (2021) arXiv:2105.14080, Algorithm 1",
)
def gotta_go_fast(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    rtol: Positive = 0.02,
    atol: Positive = 0.0078,
    dt: Fraction = 0.01,
    dt_min: Fraction = 1e-6,
    theta: Annotated[float, Gt(0), Lt(1)] = 0.9,
    r: Annotated[float, Gt(0), Le(1)] = 0.9,
    max_nfe: Annotated[int, Gt(0)] = 10_000,
) -> Generator[Tensor, None, dict[str, float]]:
    """Gotta Go Fast: adaptive steps for Anderson's reverse SDE, two evaluations each.

    ``dt`` is the first step and ``dt_min`` the smallest, as fractions of T - t_eps. The grid only
    says where x is given: between two steps x is linear. Raises SamplerError where the tolerance
    asks for less than ``dt_min``, or for more than ``max_nfe`` evaluations.
    """
    start, end = float(ts[0]), float(ts[-1])
    least = dt_min * (start - end)
    told = {"accepted": 0.0, "rejected": 0.0}
    steps = controlled(
        process,
        score,
        noise.tree(least / 2),
        x,
        (start, end),
        max(dt, dt_min) * (start - end),
        Control(rtol, atol, theta, r, least, max_nfe),
        told,
    )
    t, x_t, s, x_s = next(steps)
    for u in ts[1:].tolist():
        while s > u:
            t, x_t, s, x_s = next(steps)
        yield x_s if u == s else torch.lerp(x_t, x_s, (t - u) / (t - s))
    return told

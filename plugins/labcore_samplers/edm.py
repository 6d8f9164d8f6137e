"""Karras et al.'s samplers, the operators' own noise level in the place of sigma.

With R R^T = Sigma, R_s = Psi(s,t) R_t (gDDIM's R) and eps = -R^T s(x,t), the probability flow is

    d( Phi(t,0)^-1 x ) = d( Phi(t,0)^-1 R ) eps

which for a scalar process is dy = eps dsigma in y = x/alpha and sigma, the paper's coordinates. A
step from t to s keeps the linear part exact; with D = R_s - Phi(t,s)^-1 R_t

    x'  = Phi(t,s)^-1 x_t + D eps_t,    x_s = Phi(t,s)^-1 x_t + D (eps_t + eps_s)/2

Levels are in units of sigma/alpha: exp(-log_snr/2), on EDM's own process t itself. The paper's
last step, Euler's to sigma = 0, is Tweedie's formula at t_eps: ask the study for end="denoise".
"""

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

import labcore
from labcore import LinOp, Noise, Process, Score
from labcore_samplers.exponential_flow import frozen_flow
from labcore_samplers.exponential_plan import pick
from labcore_samplers.exponential_weights import between

CITE = "Karras et al. (2022) arXiv:2206.00364"
MOST = 2**0.5 - 1
"""The paper's bound on gamma: churn at most doubles the variance."""

NonNegative = Annotated[float, Ge(0)]


def level(process: Process, t: Tensor) -> Tensor:
    """sigma/alpha, its geometric mean over coordinates."""
    return (-process.log_snr(t) / 2).exp()


def raised(process: Process, ts: Tensor, half: Tensor, by: float) -> Tensor:
    """The time of ``by`` times the level at each of ts[:-1], the grid's first where it is beyond.

    It is sought between the two times of the grid whose levels, exp(-half), enclose it.
    """
    wanted = half[:-1] - math.log(by)
    after = torch.searchsorted(half, wanted, right=True).clamp(min=1)
    before = after - 1
    first = half[before]
    share = ((wanted - first) / (half[after] - first)).clamp(min=0)
    found = between(process, ts[before], ts[after], share)
    later = torch.maximum(found, ts[:-1])  # a share of 0 comes back rounded
    return torch.where(wanted <= half[0], ts[0], later)


def noise_roots(process: Process, *groups: Tensor) -> list[LinOp]:
    """R at each of the groups of times (n,): the Cholesky factor at the latest, carried by Psi.

    Where operators commute that is the factor at each time.
    """
    times = torch.cat(groups)
    if process.structure in ("scalar", "diag"):
        R = process.Sigma(times).chol
    else:
        latest = times.max().expand_as(times)
        grid = torch.stack([times.max(), times.min()])
        R = frozen_flow(process, grid)(times, latest) @ process.Sigma(latest[:1]).chol
    ends = accumulate(map(len, groups), initial=0)
    return [pick(R, slice(*at)) for at in pairwise(ends)]


def steps(process: Process, t: Tensor, s: Tensor, x: Tensor) -> list[tuple[Any, Any, Any]]:
    """For steps t to s (n,): Phi(t,s)^-1, -D R_t^T and -D R_s^T / 2, cast to the state."""
    R_t, R_s = noise_roots(process, t, s)
    back = process.Phi(t, s).inv
    less = back @ R_t - R_s
    pulls = ((less @ R_t.T).terms(x), (0.5 * (less @ R_s.T)).terms(x))
    return list(zip(back.per_step(x), *pulls, strict=True))


def trapezoid(step: tuple[Any, Any, Any], score: Score, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x_s = (Phi^-1 x_t + x')/2 + D eps(x', s)/2."""
    back, pull_t, pull_s = step
    g = score(x, t)
    carried = back @ x
    ahead = pull_t.added(carried, g)
    g = score(ahead, s)
    out: Tensor = pull_s.accumulate(carried.lerp_(ahead, 0.5), g)
    return out


@labcore.sampler(order=2, evals=2, stochastic=False, cite=f"{CITE}, Algorithm 1")
def edm_heun(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Heun's method in the noise level, EDM's Algorithm 1: on the EDM process it is heun."""
    plan = steps(process, ts[:-1], ts[1:], x)
    for (t, s), step in zip(pairwise(ts.unbind()), plan, strict=True):
        x = trapezoid(step, score, x, t, s)
        yield x


@labcore.sampler(order=2, evals=2, stochastic=True, cite=f"{CITE}, Algorithm 2")
def edm_churn(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    S_churn: NonNegative = 40.0,
    S_tmin: NonNegative = 0.0,
    S_tmax: NonNegative | None = None,
    S_noise: NonNegative = 1.0,
) -> Iterator[Tensor]:
    """EDM's Algorithm 2: up to t' by the process's own transition, then Heun in the level to s.

    t' has the level (1 + gamma) times that of t, gamma = min(S_churn/N, sqrt(2) - 1) where the
    level is in [S_tmin, S_tmax], but never exceeds the grid's first time: the first step has no
    churn, where the paper's would leave [0, T]. S_noise other than 1 changes the law that is
    reached, and with it the order.

    No strong order is declared: the churn of a step depends on N, not on the step's length, so
    that paths have a limit on smooth grids only, at order 1/2 where the first step's missing churn
    is felt and 1 without that. On steps that are long and short in turn there is none.
    """
    t, s = ts[:-1], ts[1:]
    half = process.log_snr(ts) / 2
    gamma = min(S_churn / len(t), MOST)
    up = raised(process, ts, half, 1 + gamma) if gamma else t
    if S_tmin or S_tmax is not None:
        now = torch.exp(-half[:-1])
        within = (now >= S_tmin) & (now <= (math.inf if S_tmax is None else S_tmax))
        up = torch.where(within, up, t)
    Phi, Q = process.transition(up, t)
    rise = (up > t).tolist(), Phi.per_step(x), (S_noise * Q.chol).terms(x)
    plan, times = steps(process, up, s, x), zip(up.unbind(), pairwise(ts.unbind()), strict=True)
    for (u, (t, s)), rises, lift, spread, step in zip(times, *rise, plan, strict=True):
        if rises:
            z = noise(t, s, stream="churn")
            x = spread.accumulate(lift @ x, z)
        x = trapezoid(step, score, x, u, s)
        yield x


@labcore.sampler(
    order=2, evals=2, stochastic=False, cite="Lu et al. (2022) arXiv:2206.00927; k-diffusion"
)
def dpm_2(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The midpoint rule in the noise level, its midpoint the geometric mean: k-diffusion's dpm_2.

    x_s = Phi(t,s)^-1 x_t + D eps_m at the level sqrt(sigma_t sigma_s). DPM-Solver-2 proper weighs
    the same two slopes exponentially.
    """
    t, s = ts[:-1], ts[1:]
    half = between(process, t, s, 0.5)
    R_t, R_m, R_s = noise_roots(process, t, half, s)
    to_m, to_s = process.Phi(t, half).inv, process.Phi(t, s).inv
    pull_m, pull_s = (to_m @ R_t - R_m) @ R_t.T, (to_s @ R_t - R_s) @ R_m.T
    plan = (to_m.per_step(x), pull_m.terms(x), to_s.per_step(x), pull_s.terms(x))
    for now, m, to, pull, on, drag in zip(t.unbind(), half.unbind(), *plan, strict=True):
        g = score(x, now)
        middle = pull.accumulate(to @ x, g)
        g = score(middle, m)
        x = drag.accumulate(on @ x, g)
        yield x

"""Adams-Bashforth methods on the probability-flow ODE, exact on grids of any spacing.

x_s = x_t + h sum_j w_j v_j, where v_j are the slopes at t and at the times before it and w_j the
integrals of their Lagrange polynomials: h w_j = int_t^s prod_k (u - t_k)/(t_j - t_k) du.

A method of order k needs k slopes, and a start whose error is of order h^k to keep its order.
Rising through the orders 1, 2, .. as in k-diffusion (``lms``) leaves an error h^2 from the first
step: the order is 2, whatever k. ``lms3`` starts with a step of Heun's, ``lms4`` with one of the
classical Runge-Kutta method, whose two slopes at the middle average to one that is right to h^3
and stands in the history as a node of its own. After that each step costs one evaluation.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

import labcore
from labcore import Noise, Process, Score
from labcore_samplers.runge_kutta import HEUN, RK4, Tableau, combine, stage_times, stages
from labcore_samplers.slopes import slopes

CITE = "Bashforth, Adams (1883); Liu et al. (2022) arXiv:2202.09778; k-diffusion, sample_lms"
GAUSS = ((-(0.6**0.5), 5 / 9), (0.0, 8 / 9), (0.6**0.5, 5 / 9))
STARTS: dict[int, tuple[Tableau, dict[float, tuple[float, ...]]]] = {
    3: (HEUN, {}),
    4: (RK4, {0.5: (0, 0.5, 0.5, 0)}),
}
"""The first step for an order, and the slopes within it that join the history, {c: weights}."""


def adams_weights(nodes: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """w (n, k) for nodes (n, k) and steps t to s (n,): exact, by Gauss-Legendre of degree 5."""
    r = (nodes - t[:, None]) / (s - t)[:, None]
    gap = r[:, :, None] - r[:, None, :]
    gap.diagonal(dim1=1, dim2=2).fill_(1)
    w = torch.zeros_like(r)
    for place, weight in GAUSS:
        factor = ((1 + place) / 2 - r)[:, None, :].expand_as(gap).clone()
        factor.diagonal(dim1=1, dim2=2).fill_(1)
        w += weight / 2 * (factor / gap).prod(-1)
    return w


def plan(ts: Tensor, inner: Tensor, k: int) -> list[list[float]]:
    """The weights of every step, latest slope first; ``inner`` are nodes within the first step."""
    known = torch.cat([ts[:1], inner, ts[1:-1]]).flip(0)
    n, m = len(ts) - 1, len(known)
    out: list[list[float]] = []
    for i in range(min(n, k)):  # fewer slopes than k
        now = 0 if i == 0 else len(inner) + i
        nodes = known[m - 1 - now : m][:k]
        out += adams_weights(nodes[None], ts[i : i + 1], ts[i + 1 : i + 2]).tolist()
    if n > k:
        windows = known.unfold(0, k, 1)[: n - k].flip(0)
        out += adams_weights(windows, ts[k:-1], ts[k + 1 :]).tolist()
    return out


def adams(
    process: Process, score: Score, x: Tensor, ts: Tensor, k: int, *, rising: bool = False
) -> Iterator[Tensor]:
    """Order k; ``rising`` starts through the lower orders, else by STARTS where k needs it."""
    first, within = (None, {}) if rising else STARTS.get(k, (None, {}))
    inner = stage_times(ts[:2], tuple(within))[0]
    weights, fields = plan(ts, inner, k), slopes(process, ts[:-1], x)
    past: list[Tensor] = []
    for i, h in enumerate(ts.diff().tolist()):
        if i == 0 and first:
            at = slopes(process, stage_times(ts[:2], first.c)[0], x)
            ks = stages(first, at, score, x, h)
            past = [combine(torch.zeros_like(x), 1.0, ws, ks) for ws in within.values()]
            past.append(ks[0])
            x = combine(x, h, first.b, ks)
        else:
            past = [fields[i](score, x), *past][:k]
            x = combine(x, h, weights[i], past)
        yield x


@labcore.sampler(order=2, evals=1, stochastic=False, cite=CITE)
def lms(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    k: Annotated[int, Ge(1), Le(4)] = 4,
) -> Iterator[Tensor]:
    """Linear multistep of k slopes as k-diffusion has it; Euler at k=1.

    It starts through the lower orders, whose first step keeps the order at 2 for k = 3 and 4.
    """
    return adams(process, score, x, ts, k, rising=True)


@labcore.sampler(order=2, evals=1, stochastic=False, cite=CITE)
def lms2(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of order 2, Euler's step first."""
    return adams(process, score, x, ts, 2)


@labcore.sampler(order=3, evals=1, extra=1, stochastic=False, cite=CITE)
def lms3(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of order 3, Heun's step first."""
    return adams(process, score, x, ts, 3)


@labcore.sampler(order=4, evals=1, extra=3, stochastic=False, cite=CITE)
def lms4(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of order 4, a classical Runge-Kutta step first."""
    return adams(process, score, x, ts, 4)

"""Grids that spend n steps where a method errs most, found by optimisation.

All are found in sigma = exp(-log_snr/2), in which every scalar process is the same: y = x / Phi
has the law of data + sigma noise. There a step from sigma_t to sigma_s has a cost, and a grid has
the sum of its steps' costs. For data N(0, c I), v = sigma^2, in closed form:

    sde   int_s^t sigma^-3 E |D(y_u) - D(y_t)|^2 d sigma, the KL divergence of the path laws, which
          bounds that of the samples
    ode   log[ sqrt((c + v_s) (c + v_t)) / (c + sigma_s sigma_t) ], the log of the factor by which
          DDIM's step falls short of the exact flow: they add up to that of the samples' spread

and for a reference mixture the local error of DDIM along the exact flow is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

import labcore
from labcore_linear.grids import _grid, _levels
from labcore_linear.snr import time_of_log_snr

Cost = Callable[[Tensor, Tensor], Tensor]
"""(log sigma_t, log sigma_s) -> cost of the step down from t to s, any shape."""

CANDIDATES = 400
COARSE = 48  # steps beyond which a grid is that of COARSE steps, refined


def ode_cost(c: float) -> Cost:
    """log[ sqrt((c + v_s)(c + v_t)) / (c + sigma_s sigma_t) ], of DDIM on N(0, c)."""

    def cost(t: Tensor, s: Tensor) -> Tensor:
        # (c + v_s)(c + v_t) = (c + sigma_s sigma_t)^2 + c (sigma_t - sigma_s)^2
        a, b = t.exp(), s.exp()
        return 0.5 * torch.log1p(c * ((a - b) / (c + a * b)).square())

    return cost


def sde_cost(c: float) -> Cost:
    """int_s^t sigma^-3 E|D(y_u) - D(y_t)|^2 d sigma on N(0, c), D(y) = c y / (c + sigma^2).

    E|D(y_u) - D(y_t)|^2 = c^2 [1/(c + v_u) - 1/(c + v_t)], as y_t adds independent noise to y_u.
    By Gauss-Legendre in log sigma: the closed form of the integral cancels for short steps.
    """
    nodes, weights = _gauss(8)

    def cost(t: Tensor, s: Tensor) -> Tensor:
        t, s = torch.broadcast_tensors(t, s)
        v = (2 * (s[..., None] + nodes * (t - s)[..., None])).exp()
        top = (2 * t).exp()[..., None]
        gap = c**2 * (top - v) / ((c + v) * (c + top))
        return (weights * gap / v).sum(-1) * (t - s)

    return cost


@lru_cache(maxsize=2)
def _gauss(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre on [0, 1]."""
    from scipy.special import roots_legendre

    nodes, weights = roots_legendre(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def cheapest(costs: Tensor, n: int) -> Tensor:
    """Indices 0 = i_0 < .. < i_n = M of least sum of costs[i_k, i_{k+1}], costs (M+1, M+1).

    By dynamic programming over the number of steps: exact among these candidates.
    """
    M = len(costs) - 1
    above = torch.ones_like(costs, dtype=torch.bool).triu(1)
    costs = torch.where(above, costs, torch.inf)
    best, back = costs[0], []
    for _ in range(n - 1):
        best, came = (best[:, None] + costs).min(0)
        back.append(came)
    path = [M]
    for came in reversed(back):
        path.append(int(came[path[-1]]))
    return torch.tensor([0, *reversed(path)])


def polish(u: Tensor, cost: Cost, sweeps: int = 60) -> Tensor:
    """The same grid u (n+1,), descending, with inner points moved to a minimum of the sum.

    Newton for odd and even points in turn: given its neighbours each is a problem of its own.
    A move that does not lower the cost of its two steps is halved, or left out.
    """
    for sweep in range(2 * sweeps if len(u) > 2 else 0):
        inner = torch.arange(1 + sweep % 2, len(u) - 1, 2)
        if not len(inner):
            continue
        left, right, now = u[inner - 1], u[inner + 1], u[inner]

        def both(x: Tensor, a: Tensor = left, b: Tensor = right) -> Tensor:
            return cost(a, x) + cost(x, b)

        h = 1e-3 * torch.minimum(left - now, now - right)
        low, mid, high = both(now - h), both(now), both(now + h)
        slope, bend = (high - low) / (2 * h), (high - 2 * mid + low) / h**2
        room = torch.minimum(left - now, now - right) / 2
        move = torch.where(bend > 0, -slope / bend, -slope.sign() * room).clamp(-room, room)
        for _ in range(4):
            move = torch.where(both(now + move) < mid, move, move / 4)
        move = torch.where(both(now + move) < mid, move, torch.zeros_like(move))
        u = u.index_copy(0, inner, now + move)
    return u


def settled(cost: Cost, first: float, last: float, n: int) -> Tensor:
    """log sigma (n+1,), from first down to last, of least total cost."""
    coarse = min(n, COARSE)
    knots = torch.linspace(first, last, CANDIDATES + 1, dtype=torch.float64)
    u = polish(knots[cheapest(cost(knots[:, None], knots[None]), coarse)], cost)
    return u if n == coarse else refined(u, n)


def refined(u: Tensor, n: int) -> Tensor:
    """u (m+1,) at n + 1 equal shares of its index, monotone (Fritsch & Carlson 1980)."""
    from scipy.interpolate import PchipInterpolator

    share = torch.linspace(0, 1, len(u), dtype=torch.float64)
    wanted = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    return torch.from_numpy(PchipInterpolator(share, u)(wanted))


@lru_cache(maxsize=256)
def _gaussian(family: str, stds: tuple[float, ...], first: float, last: float, n: int) -> Tensor:
    made = [COSTS[family](std**2) for std in stds]
    with torch.inference_mode(False):
        return settled(lambda t, s: sum((f(t, s) for f in made), t * 0), first, last, n)


COSTS: dict[str, Callable[[float], Cost]] = {"ode": ode_cost, "sde": sde_cost}


def _through(
    name: str,
    process: labcore.Process,
    n: int,
    t_eps: float | None,
    found: Callable[[float, float], Tensor],
) -> Tensor:
    """The grid of times whose log sigma is found(first, last), (n+1,)."""

    def times(r: Tensor, T: float, end: float) -> Tensor:
        if len(r) == 0:
            return r
        first, last = (-level / 2 for level in _levels(process, T, end).tolist())
        return time_of_log_snr(process, -2 * found(first, last)[1:-1], end)

    return _grid(name, process, n, t_eps, times)


@labcore.grid(cite="Sabour, Fidler & Kreis (2024) arXiv:2404.14507, sec. 3, in closed form")
def align_your_steps(
    process: labcore.Process,
    n: int,
    *,
    t_eps: float | None = None,
    family: Literal["ode", "sde"] = "ode",
    stds: tuple[float, ...] = (0.1, 1.0),
) -> Tensor:
    """Times of least error for Gaussian data of the standard deviations ``stds``, summed.

    "ode" minimises the error of DDIM in the spread of samples. "sde" minimises the paper's bound
    on the KL divergence of ancestral sampling, exactly; but that is of whole paths, far above the
    samples' own, and ancestral sampling too does better on the grid of "ode".
    """
    if not stds or not all(math.isfinite(std) and std > 0 for std in stds):
        raise labcore.InvalidGrid(
            f"grid 'align_your_steps': stds is {stds}; list standard deviations above 0"
        )
    return _through(
        "align_your_steps",
        process,
        n,
        t_eps,
        lambda first, last: _gaussian(family, tuple(stds), first, last, int(n)),
    )


@labcore.grid(
    cite="Watson et al. (2021) arXiv:2106.03802, dynamic programming; DDIM's local error"
)
def equal_error(
    process: labcore.Process,
    n: int,
    *,
    t_eps: float | None = None,
    modes: int = 8,
    std: float = 0.1,
) -> Tensor:
    """Times of the least sum of DDIM's squared local errors on a ring of Gaussians.

    The errors are measured between all pairs of candidate times, along exact trajectories of the
    probability flow of ``modes`` round Gaussians of standard deviation ``std`` on the unit circle.
    """
    if modes < 1 or not (math.isfinite(std) and std > 0):
        raise labcore.InvalidGrid(
            f"grid 'equal_error': modes is {modes} and std {std}; give 1 or more and above 0"
        )
    return _through(
        "equal_error",
        process,
        n,
        t_eps,
        lambda first, last: _ring(modes, std, first, last, int(n)),
    )


@lru_cache(maxsize=256)
def _ring(modes: int, std: float, first: float, last: float, n: int) -> Tensor:
    from labcore_linear.reference import CELLS, local_errors, ring

    with torch.inference_mode(False):
        knots = torch.linspace(first, last, CELLS + 1, dtype=torch.float64)
        coarse = min(n, COARSE)
        u = knots[cheapest(local_errors(ring(modes), std, knots), coarse)]
        return u if n == coarse else refined(u, n)

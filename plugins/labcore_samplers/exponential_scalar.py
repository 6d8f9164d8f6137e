"""Weights of exponential integrators for scalar processes, in half log-SNR.

There l = log(alpha/sigma) can stand for time, and the kernels are exponentials of it: with a step
of h = l_s - l_t, k = 1 + eta for data, k = -1 for noise and Lagrange's polynomials l_j

    W_j = c_j int_0^h e^(k (z - h)) l_j(z) dz,    c_j = (1+eta) alpha_s  or  sigma_s sigma_j

Their sum is known, and the others are Gauss sums over the whole step, so that the process is asked
at the ends and nodes only. exponential_weights.py has the same for operators of any structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, reduce
from operator import mul
from typing import Literal

import torch
from numpy.polynomial import legendre
from torch import Tensor

from labcore import LinOp, Process, Scalar

SIZES = ((2.0, 8), (12.0, 16), (50.0, 32), (float("inf"), 96))
"""Gauss points that make int_0^1 e^(a z) z^3 dz exact to rounding, for a up to each bound."""

VARIABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "log_snr": lambda level: level,
    "rho": lambda level: torch.exp(-level),
}


def scalar_weights(
    process: Process,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    form: Literal["data", "noise"],
    variable: str,
    rule: Literal["exact", "midpoint", "end"],
    eta: float,
) -> list[LinOp]:
    """W_j of the steps from t (n,) to s (n,), as exponential_weights.weights."""
    times = torch.cat([t, s, *nodes])
    alpha = process.Phi(times, torch.zeros_like(times)).param.expand_as(times)
    sigma = process.Sigma(times).param.sqrt().expand_as(times)
    level = (alpha / sigma).log().reshape(-1, len(t))
    (a_t, a_s), (s_t, s_s) = (v.reshape(-1, len(t))[:2] for v in (alpha, sigma))
    h = level[1] - level[0]
    if form == "data":
        k, scale = 1 + eta, (1 + eta) * a_s
        total = a_s - s_s / s_t * torch.exp(-eta * h) * a_t
        factors = [torch.ones_like(h)] * len(nodes)
    else:
        k, scale = -1.0, s_s
        # Phi(t,s) as the step itself has it: a_s / a_t differs by rounding, times its own size.
        total = (1 / process.Phi(t, s).param - s_s / s_t) * s_t
        factors = list(sigma.reshape(-1, len(t))[2:])
    at = VARIABLES[variable]
    known = list(at(level[2:]))
    if rule == "exact":
        parts = _integrals(level[0], h, k, known, at)
    else:
        halfway = _basis(known, at(level[0] + h / 2))
        parts = [b * total / scale for b in halfway]
        if rule == "end":
            parts = [b * h for b in halfway]
    others = [scale * p for p in parts]
    return [Scalar(f * w) for f, w in zip(factors, [total - sum(others), *others], strict=True)]


def _integrals(
    start: Tensor, h: Tensor, k: float, nodes: list[Tensor], at: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """int_0^h e^(k (z - h)) l_j(z) dz for j = 1, 2, .."""
    if len(nodes) == 1:
        return []
    z, weight = _gauss(next(n for most, n in SIZES if float(h.max()) * (abs(k) + 3) <= most))
    kernel = h * weight * torch.exp((k * h) * (z - 1))
    return [(kernel * b).sum(0) for b in _basis(nodes, at(start + h * z))]


def _basis(nodes: list[Tensor], v: Tensor) -> list[Tensor]:
    """l_j(v) for j = 1, 2, .. and v (.., n)."""
    gaps, basis = [v - b for b in nodes], []
    for a in nodes[1:]:
        others = [gap / (a - b) for b, gap in zip(nodes, gaps, strict=True) if b is not a]
        basis.append(reduce(mul, others))
    return basis


@cache
def _gauss(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1], (n, 1)."""
    z, w = (torch.tensor(v, dtype=torch.float64)[:, None] / 2 for v in legendre.leggauss(n))
    return z + 0.5, w

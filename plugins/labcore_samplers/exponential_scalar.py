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

FAR = 1e300

VARIABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "log_snr": lambda level: level,
    "rho": lambda level: torch.exp(-level),
}


def padded(process: Process, variable: str) -> bool:
    """Whether scalar_stage serves, which takes steps of different numbers of nodes at once."""
    return process.structure == "scalar" and variable in VARIABLES


def scalar_stage(
    process: Process,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    form: Literal["data", "noise"],
    variable: str,
    rule: Literal["exact", "midpoint", "end"],
    eta: float,
    count: Tensor | None = None,
) -> tuple[LinOp, list[LinOp]]:
    """What multiplies x_t, and W_j, of the steps from t (n,) to s (n,): exponential_weights.stage.

    A node that is not there stands far off, so far that in floating point the others' polynomials
    are what they are without it.
    """
    times = torch.cat([t, s, *nodes])
    alpha = process.Phi(times, torch.zeros_like(times)).param.expand_as(times)
    sigma = process.Sigma(times).param.sqrt().expand_as(times)
    level = (alpha / sigma).log().reshape(-1, len(t))
    (a_t, a_s), (s_t, s_s) = (v.reshape(-1, len(t))[:2] for v in (alpha, sigma))
    h = level[1] - level[0]
    if form == "data":
        k, scale = 1 + eta, (1 + eta) * a_s
        carry = s_s / s_t * torch.exp(-eta * h) if eta else s_s / s_t
        total = a_s - carry * a_t
    else:
        k, scale, carry = -1.0, s_s, a_s / a_t
        total = (carry - s_s / s_t) * s_t
    at = VARIABLES[variable]
    known = list(at(level[2:]))
    if count is not None:
        there = [count > j for j in range(len(nodes))]
        far = [FAR ** (1 / j) if j else 0.0 for j in range(len(nodes))]
        known[1:] = map(torch.where, there[1:], known[1:], far[1:])
    if rule == "exact":
        parts = _integrals(level[0], h, k, known, at)
    else:
        over = h if rule == "end" else total / scale
        parts = [b * over for b in _basis(known, at(level[0] + h / 2))]
    others = [scale * p for p in parts]
    W = [total - sum(others), *others]
    if form == "noise":
        W = [v * w for v, w in zip(sigma.reshape(-1, len(t))[2:], W, strict=True)]
    return Scalar(carry), [Scalar(w) for w in W]


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

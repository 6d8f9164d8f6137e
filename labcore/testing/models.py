"""Small models for contracts and audits, independent of every plugin."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from labcore.linop import Mat, Scalar
from labcore.processes import Process


@cache
def vp(b0: float = 0.1, b1: float = 20.0) -> Process:
    """The linear-beta VP process on [0, 1], written out in full."""

    def B(t: Tensor) -> Tensor:
        return b0 * t + (b1 - b0) * t * t / 2

    def beta(t: Tensor) -> Tensor:
        return b0 + (b1 - b0) * t

    return Process(
        A=lambda t: Scalar(-beta(t) / 2),
        G=lambda t: Scalar(beta(t).sqrt()),
        Phi=lambda t, s: Scalar(torch.exp(-(B(t) - B(s)) / 2)),
        Sigma=lambda t: Scalar(-torch.expm1(-B(t))),
        closed_Q=lambda t, s: Scalar(-torch.expm1(-(B(t) - B(s)))),
        T=1.0,
        t_eps=1e-3,
    )


@cache
def cld(beta: float = 4.0, gamma: float = 0.04) -> Process:
    """Critically damped Langevin with M = 1/4, Gamma = 1 and a constant rate, on [0, 1].

    A = beta K, (K + 2)^2 = 0, so that Phi = exp(-2 u) (1 + (K + 2) u) with u = beta (t - s).
    Q is the integral of Phi G G^T Phi^T by Gauss and Legendre, where nothing is subtracted.
    """
    K = torch.tensor([[0.0, 4.0], [-1.0, -4.0]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    spread = torch.tensor([[0.0, 0.0], [0.0, (2 * beta) ** 0.5]], dtype=torch.float64)
    nodes, weights = (torch.as_tensor(a) for a in leggauss(24))

    def Phi(t: Tensor, s: Tensor) -> Mat:
        u = (beta * (t - s)).reshape(-1, 1, 1)
        return Mat(torch.exp(-2 * u) * (eye + (K + 2 * eye) * u))

    def Q(t: Tensor, s: Tensor) -> Mat:
        h = (t - s).reshape(-1, 1)
        part = Phi(h * (nodes + 1) / 2, torch.zeros(())).param @ spread
        part = part.reshape(len(h), len(nodes), 2, 2)
        return Mat((part @ part.mT * (h / 2 * weights)[..., None, None]).sum(1))

    def Sigma(t: Tensor) -> Mat:
        start = Phi(t, torch.zeros_like(t)).param[..., 1:] * (gamma / 4) ** 0.5
        return Mat(Q(t, torch.zeros_like(t)).param + start @ start.mT)

    return Process(
        A=lambda t: Mat((beta * K).expand(t.numel(), 2, 2)),
        G=lambda t: Mat(spread.expand(t.numel(), 2, 2)),
        Phi=Phi,
        Sigma=Sigma,
        closed_Q=Q,
        T=1.0,
        t_eps=1e-3,
        structure="channel",
        channels=2,
    )


def quadratic(process: Process, n: int) -> Tensor:
    """Times whose square roots are equally spaced from T to the process's t_eps, exactly."""
    roots = torch.linspace(process.T**0.5, process.t_eps**0.5, n + 1, dtype=torch.float64)
    ts = roots.square()
    ts[0], ts[-1] = process.T, process.t_eps
    return ts


def uneven(process: Process, n: int) -> Tensor:
    """The quadratic times with every other step about twice its neighbour.

    On smooth grids neighbouring steps differ by O(1/n), which hides a multistep formula that
    takes them to be equal.
    """
    ts = quadratic(process, n)
    ts[1:-1:2] += 0.3 * (ts[2::2] - ts[1:-1:2])
    return ts


@lru_cache(maxsize=8)
def heart(process: Process, low: float = -3.0, high: float = 4.0) -> tuple[float, float]:
    """The times (t, s), t > s, at which log_snr is ``low`` and ``high``, within [t_eps, T].

    Between them the noise is as large as the data, and the score bends. Orders are read off here:
    over all of [t_eps, T], which is 11 powers of e in t on EDM, step counts that are asymptotic
    for a method of order 4 end below the rounding floor.
    """

    def where(level: float) -> float:
        a, b = math.log(process.t_eps), math.log(process.T)
        for _ in range(50):
            mid = (a + b) / 2
            a, b = (mid, b) if float(process.log_snr(math.exp(mid))) > level else (a, mid)
        return math.exp((a + b) / 2)

    return where(low), where(high)


def even_in_log(process: Process, n: int) -> Tensor:
    """Times in geometric progression over the process's heart."""
    t, s = heart(process)
    ts = torch.linspace(math.log(t), math.log(s), n + 1, dtype=torch.float64).exp()
    ts[0], ts[-1] = t, s
    return ts


def uneven_in_log(process: Process, n: int) -> Tensor:
    """The same with every other step about twice its neighbour (see ``uneven``)."""
    ts = even_in_log(process, n)
    ts[1:-1:2] += 0.3 * (ts[2::2] - ts[1:-1:2])
    return ts

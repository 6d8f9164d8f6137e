"""Small models for contracts and audits, independent of every plugin."""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.linop import Scalar
from labcore.processes import Process


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

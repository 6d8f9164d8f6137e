"""Problems that are others in a known way: rotated, in other units, in other variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from labcore.linop import LinOp, Mat, Scalar
from labcore.processes import Process

F64 = torch.float64


def orthogonal(d: int, seed: int) -> Tensor:
    """A d x d rotation or reflection that leaves no axis alone."""
    g = torch.Generator().manual_seed(seed + 1)
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=F64))
    Q = Q * R.diagonal().sign()
    return -Q if d == 1 else Q


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


def scaled(process: Process, c: float) -> Process:
    """The process of c X."""
    closed = process.closed_Q
    return replace(
        process,
        G=lambda t: c * process.G(t),
        Sigma=lambda t: c**2 * process.Sigma(t),
        closed_Q=None if closed is None else lambda t, s: c**2 * closed(t, s),
    )


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


def same(x: Tensor) -> Tensor:
    """x itself."""
    return x


def change_of_variables(process: Process) -> Change:
    """To EDM's variables for a scalar process, from those of VE to VP's where A = 0 already."""
    T = torch.tensor(process.T, dtype=F64)
    zero = torch.zeros((), dtype=F64)
    if process.structure != "scalar":
        return "growing", growing(process), same, lambda x, t: float((t / process.T).exp()) * x
    if float(process.A(T).param) == 0 == float(process.A(T / 2).param):
        other = preserving(process)
        return "VP's", other, same, lambda x, t: other.Phi(t, zero) @ x

    def level(t: Tensor) -> Tensor:
        alpha = process.Phi(t, torch.zeros_like(t)).param
        return process.Sigma(t).param.sqrt() / alpha

    other = level_process(
        float(level(T)), float(level(T * 0 + process.t_eps)), process.event_shape
    )
    return "EDM's", other, level, lambda x, t: process.Phi(t, zero).inv @ x

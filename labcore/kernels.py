"""Phi(t,0), L(t), L L^T = Sigma(t), and log SNR(t) for a batch of times that all differ.

Training asks for these at every step. Scalar and per-coordinate processes are asked directly; for
matrices they are interpolated: on Chebyshev nodes of log t over [t_eps, T], Phi as it is, and
L = diag(r) C by the logarithm of its row norms r = sqrt(diag Sigma) and the directions C, all of
which are smooth there although the entries of Sigma span many decades (t^3 for the position of
CLD); log SNR is smooth as it is. A batch costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labcore.errors import InvalidProcess
from labcore.linop import LinOp
from labcore.processes import Process, as_time

Kernel = Callable[[Tensor], tuple[LinOp, LinOp, Tensor]]
"""t () or (B,) -> Phi(t,0) and L(t), which carry the batch axis, and log SNR(t) in t's shape."""

MATRIX = 2
"""The rank of an operator whose parameters end in two matrix axes."""

WIDE = 1024
"""Columns of a table from which the product is worth doing in the dtype asked for."""


def exact_kernel(process: Process) -> Kernel:
    """The kernel by the process itself: Phi(t,0), the Cholesky factor of Sigma(t), log SNR."""

    def kernel(t: Tensor) -> tuple[LinOp, LinOp, Tensor]:
        t = as_time(t)
        return process.Phi(t, torch.zeros_like(t)), process.Sigma(t).chol, process.log_snr(t)

    return kernel


def perturbation_kernel(
    process: Process,
    t_eps: float | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-8,
) -> Kernel:
    """The kernel for t in [t_eps, T], to ``tolerance`` relative to the rows of L and of Phi, and
    of the range of log SNR.

    Raises InvalidProcess where 512 nodes do not reach it (a process with a kink in t).
    """
    if process.structure in ("scalar", "diag"):
        return exact_kernel(process)
    low = process.t_eps if t_eps is None else t_eps
    for nodes in (24, 48, 96, 192, 384):
        table = _Table(process, low, nodes)
        if table.error() < tolerance:
            return table.to(dtype)
    raise InvalidProcess(
        f"process: Phi and Sigma cannot be interpolated to {tolerance:g} between t={low:g} and "
        f"{process.T:g}; make them smooth in t, or train with the exact kernel"
    )


class _Table:
    """Values at Chebyshev points of the second kind in u = log t, and their barycentric sum."""

    def __init__(self, process: Process, low: float, nodes: int) -> None:
        self._exact = exact_kernel(process)
        j = torch.arange(nodes, dtype=torch.float64)
        ends = torch.tensor([low, process.T], dtype=torch.float64).log()
        self._middle, self._half = ends.mean(), (ends[1] - ends[0]) / 2
        self._points = torch.cos(torch.pi * j / (nodes - 1))
        self._signs = (-1.0) ** j
        self._signs[0] /= 2
        self._signs[-1] /= 2
        at = self._exact((self._points * self._half + self._middle).exp())
        self._Phi, self._L, log_snr = at
        Phi = self._Phi.param.expand(nodes, *self._Phi.param.shape[1:])
        parts = [Phi, *_polar(self._L), log_snr]
        self._shapes = [part.shape[1:] for part in parts]
        self._values = torch.cat([part.reshape(nodes, -1) for part in parts], 1)
        self._dtype = torch.float64

    def to(self, dtype: torch.dtype) -> _Table:
        """Answers in ``dtype``; a wide product is summed in it too, and loses a digit."""
        self._dtype = dtype
        if self._values.shape[1] > WIDE:
            self._values = self._values.to(dtype)
        return self

    def __call__(self, t: Tensor) -> tuple[LinOp, LinOp, Tensor]:
        u = (as_time(t).reshape(-1).log() - self._middle) / self._half
        gap = u[:, None] - self._points
        weights = self._signs / torch.where(gap == 0, torch.finfo(torch.float64).tiny, gap)
        weights /= weights.sum(1, keepdim=True)
        mixed = weights.to(self._values) @ self._values
        sizes = [shape.numel() for shape in self._shapes]
        Phi, log_rows, C, log_snr = (
            part.reshape(len(u), *shape)
            for part, shape in zip(mixed.split(sizes, 1), self._shapes, strict=True)
        )
        L = C.mul_(log_rows.exp()).to(self._dtype)
        operators = self._Phi.map(lambda _: Phi.to(self._dtype)), self._L.map(lambda _: L)
        return *operators, log_snr.to(torch.float64).reshape(t.shape)

    def error(self) -> float:
        """Largest error midway between nodes, relative to the rows of Phi and of L."""
        theta = torch.pi * (torch.arange(len(self._points) - 1) + 0.5) / (len(self._points) - 1)
        t = (torch.cos(theta.double()) * self._half + self._middle).exp()
        (*got, log_snr), (*ops, wanted) = self(t), self._exact(t)
        off = float((log_snr - wanted).abs().max() / (wanted.max() - wanted.min()))
        return max(off, *(_relative(g.param, op) for g, op in zip(got, ops, strict=True)))


def _polar(L: LinOp) -> tuple[Tensor, Tensor]:
    """log of the row norms of L, and L with its rows at length one."""
    if L.rank < MATRIX:
        return L.param.log(), torch.ones_like(L.param)
    rows = torch.linalg.vector_norm(L.param, dim=-1, keepdim=True)
    return rows.log(), L.param / rows


def _relative(got: Tensor, op: LinOp) -> float:
    size = op.param.abs()
    if op.rank == MATRIX:
        size = torch.linalg.vector_norm(op.param, dim=-1, keepdim=True)
    return float(((got - op.param).abs() / size.clamp_min(1e-12)).max())

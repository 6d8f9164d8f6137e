"""Phi of any smooth A(t) as Chebyshev polynomials on panels, found by collocation.

[0, T] is halved into panels [a, b] until, on each, Phi(., a) and the noise pulled back to a,
F(u) = Phi(a,u) G G^T Phi(a,u)^T, are polynomials of degree 16 to 1e-13 and |A| (b - a) <= 1. There
Phi(u,a) = I + int_a^u A Phi is solved at Chebyshev points by Picard iteration, which then gains a
factor k at its k-th round; all panels at once. (An adaptive ODE solver is as exact only where it
stops: between its steps it interpolates at a lower order.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

import labcore

DEGREE = 16
TAIL = 1e-13  # relative size of the last two Chebyshev coefficients of a resolved panel
STEP = 1.0  # largest |A| (b - a)
ROUNDS = 20  # of Picard iteration: 1/20! < 1e-18
HALVINGS = 40

MatrixFn = Callable[[Tensor], Tensor]


def _collocation() -> tuple[Tensor, Tensor, Tensor]:
    """Points on [0, 1]; values there -> coefficients; values there -> integrals from 0."""
    points = (1 - np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)) / 2
    to_coefficients = np.linalg.inv(chebyshev.chebvander(2 * points - 1, DEGREE))
    primitive = chebyshev.chebint(to_coefficients, lbnd=-1, axis=0)
    integrals = chebyshev.chebval(2 * points - 1, primitive).T / 2
    return _tensor(points), _tensor(to_coefficients), _tensor(integrals)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


POINTS, COEFFICIENTS, INTEGRALS = _collocation()


@dataclass(frozen=True)
class Panels:
    """Ends a_0=0 < .. < a_J=T (J+1,) and, on every panel, Chebyshev coefficients (J, K, d*d) of

    Phi(., a_j) and of the mean of the pulled-back noise, 1/(t - a_j) int_{a_j}^t F.
    """

    ends: Tensor
    flow: Tensor
    noise: Tensor
    d: int

    def of(self, t: Tensor) -> Tensor:
        """The panel of every time (n,); InvalidProcess for times outside [0, T]."""
        T = float(self.ends[-1])
        if not bool(((t >= 0) & (t <= T * (1 + 1e-12))).all()):
            raise labcore.InvalidProcess(
                f"process: times from {float(t.min()):g} to {float(t.max()):g} are asked for, its "
                f"tables cover [0, T={T:g}]; stay within"
            )
        return torch.bucketize(t.contiguous(), self.ends[1:-1], right=True)

    def local(self, t: Tensor, j: Tensor) -> Tensor:
        """Phi(t, a_j) for times (n,) in panels j (n,), (n, d, d)."""
        return self._read(self.flow, t, j)

    def added(self, t: Tensor, j: Tensor) -> Tensor:
        """int_{a_j}^t F, so that Sigma(t|a_j) = Phi(t,a_j) added Phi(t,a_j)^T, (n, d, d)."""
        return (t - self.ends[j])[:, None, None] * self._read(self.noise, t, j)

    def _read(self, table: Tensor, t: Tensor, j: Tensor) -> Tensor:
        a, b = self.ends[j], self.ends[j + 1]
        angle = torch.arccos((2 * (t - a) / (b - a) - 1).clamp(-1, 1))
        T_k = torch.cos(angle[:, None] * torch.arange(DEGREE + 1))
        out = torch.empty(len(t), table.shape[-1], dtype=torch.float64)
        for k in j.unique().tolist():
            rows = (j == k).nonzero().squeeze(1)
            out[rows] = T_k[rows] @ table[k]
        return out.reshape(-1, self.d, self.d)


def panels(A: MatrixFn, GG: MatrixFn, T: float, name: str) -> Panels:
    """Panels on which A (n,) -> (n, d, d) and GG = G G^T are resolved.

    Raises InvalidProcess where A or G is not finite, or is not smooth at some time.
    """
    pending = torch.tensor([[0.0, T]], dtype=torch.float64)
    done: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(HALVINGS):
        good, flow, noise = _solve(A, GG, pending, name)
        done += zip(pending[good], flow[good], noise[good], strict=True)
        a, b = pending[~good].unbind(1)
        if not len(a):
            break
        middle = (a + b) / 2
        pending = torch.cat([torch.stack([a, middle], 1), torch.stack([middle, b], 1)])
    else:
        raise labcore.InvalidProcess(
            f"process '{name}': A or G is not smooth near t={float(pending[0, 0]):.6g}; "
            "smooth it there, or end at a smaller T"
        )
    done.sort(key=lambda panel: float(panel[0][0]))
    ends, flow, noise = map(torch.stack, zip(*done, strict=True))
    ends = torch.cat([ends[:, 0], ends[-1:, 1]])
    return Panels(ends, flow, noise, round(flow.shape[-1] ** 0.5))


def _solve(A: MatrixFn, GG: MatrixFn, ends: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Which panels (J, 2) are resolved, and the two tables of Panels on each, (J, K, d*d)."""
    a, b = ends.unbind(1)
    u = torch.minimum(a[:, None] + (b - a)[:, None] * POINTS, b[:, None])
    drift, noise = (_at(f, u, name) for f in (A, GG))
    drift = (b - a)[:, None, None, None] * drift
    short = torch.linalg.matrix_norm(drift, 2).amax(1) <= STEP
    drift = drift * short[:, None, None, None]
    eye = torch.eye(drift.shape[-1], dtype=torch.float64)
    Phi = eye.expand_as(drift)
    for _ in range(ROUNDS):
        Phi = eye + _along(INTEGRALS, drift @ Phi)
    F = torch.linalg.solve(Phi, torch.linalg.solve(Phi, noise).mT)
    mean = _along(INTEGRALS, F) / POINTS.clamp_min(POINTS[1])[:, None, None]
    mean = torch.cat([F[:, :1], mean[:, 1:]], 1)
    flow, pulled, mean = (_along(COEFFICIENTS, M).flatten(2) for M in (Phi, F, mean))
    return short & _resolved(flow) & _resolved(pulled), flow, mean


def _along(M: Tensor, values: Tensor) -> Tensor:
    """M (K, K) applied to the points' axis of values (J, K, d, d)."""
    return (M @ values.flatten(2)).reshape(values.shape)


def _at(f: MatrixFn, u: Tensor, name: str) -> Tensor:
    """f at the times u (J, K), checked, (J, K, d, d)."""
    M = f(u.flatten())
    if M.ndim != 3 or M.shape[0] != u.numel() or M.shape[1] != M.shape[2]:
        raise labcore.InvalidProcess(
            f"process '{name}': for {u.numel()} times A and G G^T must be ({u.numel()}, d, d), "
            f"one is {tuple(M.shape)}; return one matrix a time"
        )
    if not bool(torch.isfinite(M).all()):
        raise labcore.InvalidProcess(
            f"process '{name}': A or G is NaN or infinite between t={float(u.min()):g} and "
            f"{float(u.max()):g}; end at a smaller T, before the singular time"
        )
    return M.reshape(*u.shape, *M.shape[1:])


def _resolved(coefficients: Tensor) -> Tensor:
    size = coefficients.abs().amax(2)
    return size[:, -2:].amax(1) <= TAIL * size.amax(1)

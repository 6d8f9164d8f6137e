"""Processes of any smooth A(t) and G(t), commuting or not, from Phi on panels (panels.py).

With a, b the left ends of the panels of s and t, and e the right end of that of s:

    Phi(t,s)   = Phi(t,b) Phi(b,a) Phi(s,a)^-1
    Q(t,s)     = int_s^t Phi(t,u) G G^T Phi(t,u)^T du           by Gauss quadrature, within a panel
    Sigma(t|s) = Phi(t,e) Q(e,s) Phi(t,e)^T + Phi(t,b) Sigma(b|e) Phi(t,b)^T + Q(t,b)

Phi(b,a) and Sigma(b|e) are tabulated for all pairs of ends. Positive terms are added throughout,
so Sigma(t|s) keeps its relative precision as s -> t, which a difference would lose. Sigma(t) is
read off the panel's polynomials, but in the first panel, where it goes to 0, off the quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.polynomial import legendre
from torch import Tensor

import labcore
from labcore_linear.checks import span
from labcore_linear.panels import MatrixFn, Panels, panels

GAUSS = 10  # points: exact to degree 19, that of the pulled-back noise is 16
LARGEST_TABLE = 2**25  # numbers in the tables over pairs of panels
SLICE = 2**22  # numbers held at once by a quadrature
NODES, WEIGHTS = (torch.tensor(v, dtype=torch.float64) / 2 for v in legendre.leggauss(GAUSS))


def numerical_process(
    A: MatrixFn,
    G: MatrixFn,
    *,
    T: float,
    t_eps: float,
    Sigma0: Tensor | None = None,
    name: str = "numerical",
) -> labcore.Process:
    """The process dX = A(t) X dt + G(t) dW of dense matrices on data of shape (d,).

    A maps float64 times (n,) to (n, d, d), G to (n, d, k); both smooth (a kink costs panels)
    and finite on [0, T]. Sigma0 is the covariance that the state has beside the data's at t=0,
    0 if not given. Raises InvalidProcess where A or G cannot be resolved.
    """
    span(name, T, t_eps)

    def GG(t: Tensor) -> Tensor:
        g = G(t)
        return g @ g.mT

    grid = panels(A, GG, T, name)
    of = Tabulated(grid, G, *_tables(grid, G, name), Sigma0)
    return labcore.Process(
        A=lambda t: labcore.Mat(A(t.reshape(-1))),
        G=lambda t: labcore.Mat(G(t.reshape(-1))),
        Phi=of.Phi,
        Sigma=of.Sigma,
        closed_Q=of.Q,
        T=T,
        t_eps=t_eps,
        structure="dense",
        event_shape=(grid.d,),
    )


@dataclass(frozen=True, eq=False)
class Tabulated:
    """The operators of the module's formulas, from Phi(b,a) and Sigma(b|e) for all pairs of ends.

    jump[j,i] and between[j,i], (J, J, d, d), belong to the left ends of the panels j and i.
    """

    grid: Panels
    G: MatrixFn
    jump: Tensor
    between: Tensor
    Sigma0: Tensor | None

    @cached_property
    def at_ends(self) -> Tensor:
        """Sigma at the left ends, (J, d, d)."""
        if self.Sigma0 is None:
            return self.between[:, 0]
        jump = self.jump[:, 0]
        return self.between[:, 0] + jump @ self.Sigma0.double() @ jump.mT

    def flow(self, t: Tensor, s: Tensor) -> Tensor:
        """Phi(t,s), (n, d, d), for times (n,)."""
        j, i = self.grid.of(t), self.grid.of(s)
        across = self.grid.local(t, j) @ self.jump[j, i]
        return torch.linalg.solve(self.grid.local(s, i), across, left=False)

    def Phi(self, t: Tensor, s: Tensor) -> labcore.LinOp:
        return labcore.Mat(self.flow(*_flat(t, s)))

    def Q(self, t: Tensor, s: Tensor) -> labcore.LinOp:
        t, s = _flat(t, s)
        grid, G = self.grid, self.G
        j, i = grid.of(t), grid.of(s)
        end = torch.where(i == j, t, grid.ends[i + 1])
        cov = _within(grid, G, end, s, i)
        k = (j > i).nonzero().squeeze(1)
        leave, cross = self.flow(t[k], end[k]), grid.local(t[k], j[k])
        cov[k] = leave @ cov[k] @ leave.mT + cross @ self.between[j[k], i[k] + 1] @ cross.mT
        cov[k] += _within(grid, G, t[k], grid.ends[j[k]], j[k])
        return labcore.Mat(cov)

    def Sigma(self, t: Tensor) -> labcore.LinOp:
        t = t.reshape(-1)
        grid, j = self.grid, self.grid.of(t)
        cross, inner, k = grid.local(t, j), self.at_ends[j], (j == 0).nonzero().squeeze(1)
        inner = inner + torch.where((j > 0)[:, None, None], grid.added(t, j), 0.0)
        cov = cross @ inner @ cross.mT
        cov[k] += _within(grid, self.G, t[k], torch.zeros_like(t[k]), j[k])
        return labcore.Mat(cov)


def _flat(t: Tensor, s: Tensor) -> list[Tensor]:
    return [u.reshape(-1) for u in torch.broadcast_tensors(t, s)]


def _within(grid: Panels, G: MatrixFn, t: Tensor, s: Tensor, j: Tensor) -> Tensor:
    """Q(t,s), (n, d, d), for t >= s in the same panels j."""
    rows = max(1, SLICE // (GAUSS * grid.d**2))
    parts = [torch.empty(0, grid.d, grid.d, dtype=torch.float64)]
    for t_, s_, j_ in zip(t.split(rows), s.split(rows), j.split(rows), strict=True):
        h = (t_ - s_)[:, None]
        u = (s_[:, None] + h * (NODES + 0.5)).flatten()
        back = torch.linalg.solve(grid.local(u, j_.repeat_interleave(GAUSS)), G(u))
        noise = grid.local(t_, j_)[:, None] @ back.reshape(-1, GAUSS, *back.shape[1:])
        root = (noise * (h * WEIGHTS).sqrt()[:, :, None, None]).transpose(1, 2).flatten(2)
        parts.append(root @ root.mT)
    return torch.cat(parts)


def _tables(grid: Panels, G: MatrixFn, name: str) -> tuple[Tensor, Tensor]:
    """Phi(a_j, a_i) for all pairs of left ends and Sigma(a_j | a_i) for j > i, (J, J, d, d)."""
    J, d = len(grid.flow), grid.d
    if J * J * d * d > LARGEST_TABLE:
        raise labcore.InvalidProcess(
            f"process '{name}': it takes {J} panels of {d} x {d} matrices, too many to tabulate; "
            "reduce T or the size of A"
        )
    every = torch.arange(J)
    across = grid.local(grid.ends[1:], every)
    back = torch.linalg.inv(across)
    added = _within(grid, G, grid.ends[1:], grid.ends[:-1], every)
    jump = torch.eye(d, dtype=torch.float64).repeat(J, J, 1, 1)
    between = torch.zeros(J, J, d, d, dtype=torch.float64)
    for j in range(1, J):
        step = across[j - 1]
        jump[j, :j] = step @ jump[j - 1, :j]
        jump[:j, j] = jump[:j, j - 1] @ back[j - 1]
        between[j, :j] = step @ between[j - 1, :j] @ step.mT + added[j - 1]
    return jump, between

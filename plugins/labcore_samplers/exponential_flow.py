"""gDDIM's R_t in a table: the flow of x - Phi x0 with the clean point x0 frozen.

    dR/dt = (A + GG^T Sigma^-1 / 2) R,  R R^T = Sigma,    Psi(s,t) = R_s R_t^-1

An exponential integrator asks for Psi at thousands of pairs of times. Where operators commute it
is sqrt(Sigma(s)/Sigma(t)). For matrices R is integrated once over the grid by Gauss collocation in
log t, on panels of at most WIDTH in half log-SNR, and read off the collocation polynomial.
Source: Zhang, Tao & Chen (2023) arXiv:2206.05564, eq. 17.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.polynomial import legendre
from torch import Tensor

from labcore import LinOp, Process

Psi = Callable[[Tensor, Tensor], LinOp]

WIDTH = 0.5
HALVINGS = 60
DEGREE = 12
LARGEST = 2**22  # numbers read off the table at once
ROUNDS = 200

NODES, WEIGHTS = (torch.tensor(v, dtype=torch.float64) / 2 for v in legendre.leggauss(DEGREE))
NODES = NODES + 0.5
AT_NODES = torch.tensor(legendre.legvander(2 * NODES.numpy() - 1, DEGREE - 1))


def panels(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The steps from t to s (n,), halved in log t to WIDTH: the step, start and end of each."""
    step, a, b = torch.arange(len(t)), t, s
    for _ in range(HALVINGS):
        wide = (process.log_snr(b) - process.log_snr(a)) / 2 > WIDTH
        if not bool(wide.any()):
            break
        mid = (a[wide] * b[wide]).sqrt()
        step, a, b = (
            torch.cat([step, step[wide]]),
            torch.cat([a, mid]),
            torch.cat([b.masked_scatter(wide, mid), b[wide]]),
        )
    return step, a, b


def frozen_flow(process: Process, ts: Tensor) -> Psi:
    """Psi(s,t) for s and t, (n,), within the grid ts."""
    if process.structure in ("scalar", "diag"):
        return process.Psi
    R = _table(process, ts[:1], ts[-1:])
    return lambda s, t: R(s) @ R(t).inv


def _table(process: Process, first: Tensor, last: Tensor) -> Callable[[Tensor], LinOp]:
    _, a, b = panels(process, first, last)
    a, b = a.sort(descending=True)[0], b.sort(descending=True)[0]
    h = (b / a).log()
    u = (a[:, None] * torch.exp(h[:, None] * NODES)).flatten()
    like = process.Sigma(u)
    shape = like.param.shape[1:]
    F = (process.A(u) + 0.5 * (process.GG(u) @ like.inv)).lift(like).param
    scale = (h[:, None] * u.reshape(len(a), -1)).reshape(-1, *[1] * len(shape))
    pull = (scale * F).reshape(len(a), DEGREE, -1, *shape[-2:])
    eye = torch.eye(shape[-1], dtype=torch.float64)
    slope = _collocate(pull, eye)
    ends = eye + torch.einsum("j,kj...->k...", WEIGHTS, slope)
    starts = [process.Sigma(first).chol.param.reshape(ends.shape[1:])]
    for end in ends[:-1]:
        starts.append(end @ starts[-1])
    start = torch.stack(starts)

    def R(t: Tensor) -> LinOp:
        parts = []
        for v in t.split(max(1, LARGEST // slope[0].numel())):
            k = torch.searchsorted(-a, -v, right=True).clamp(1, len(a)) - 1
            up_to = _integrals((v / a[k]).log() / h[k])
            grown = eye + torch.einsum("mj,mj...->m...", up_to, slope[k])
            parts.append((grown @ start[k]).reshape(-1, *shape))
        return like.map(lambda _: torch.cat(parts))

    return R


def _collocate(pull: Tensor, eye: Tensor) -> Tensor:
    """Slopes Y' = pull Y at the nodes of every panel, Y = 1 at its start, by iteration."""
    up_to = _integrals(NODES)
    slope = pull
    for _ in range(ROUNDS):
        new = pull @ (eye + torch.einsum("ij,kj...->ki...", up_to, slope))
        moved, slope = (new - slope).abs().max() / new.abs().max(), new
        if moved < 1e-14:  # a round takes off a factor of ten or more
            break
    return slope


def _integrals(c: Tensor) -> Tensor:
    """int_0^c l_j for Lagrange's polynomials on the nodes, (len(c), DEGREE)."""
    P = torch.tensor(legendre.legvander((2 * c - 1).numpy(), DEGREE))
    below = torch.cat([-P[:, :1], P[:, : DEGREE - 1]], 1)
    return 0.5 * (P[:, 1:] - below) @ (AT_NODES * WEIGHTS[:, None]).T

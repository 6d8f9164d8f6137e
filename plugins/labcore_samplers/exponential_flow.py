"""The flow of the reverse dynamics with the clean point x0 frozen, and the noise it gathers.

With lam^2 = eta the rate of the noise, x - Phi x0 moves from t to s by Psi(s,t) and N(0, C(s,t)):

    dPsi(s,t)/ds = (A + (1+eta)/2 GG^T Sigma^-1) Psi,    Psi(t,t) = 1
    C(s,t) = eta int_s^t Psi(s,u) GG^T(u) Psi(s,u)^T du = Sigma(s) - Psi Sigma(t) Psi^T

eta = 0 is gDDIM's R_s R_t^-1 with R R^T = Sigma, and eta = 1 the posterior given x0, whose Psi is
Sigma(s) Phi(t,s)^T Sigma(t)^-1. Where operators commute Psi is the geometric mean of the two,
Psi_0 (Psi_0^-1 Psi_1)^eta, and C = Sigma(s) (1 - (1 - C_1/Sigma(s))^eta).

An exponential integrator asks for Psi at thousands of pairs of times. For matrices, and eta < 1,
a fundamental matrix Y is integrated once over the grid by Gauss collocation in log t, on panels of
at most WIDTH in half log-SNR, and read off the collocation polynomial: Psi(s,t) = Y(s) Y(t)^-1.
C is then the integral, a Gauss sum of positive terms; the difference loses digits in short steps.
Source: Zhang, Tao & Chen (2023) arXiv:2206.05564, eq. 17, for eta = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.polynomial import legendre
from torch import Tensor

from labcore import LinOp, Process, Scalar

Psi = Callable[[Tensor, Tensor], LinOp]

WIDTH = 0.5
HALVINGS = 60
DEGREE = 12
LARGEST = 2**22  # numbers read off the table at once
ROUNDS = 200

NODES, WEIGHTS = (torch.tensor(v, dtype=torch.float64) / 2 for v in legendre.leggauss(DEGREE))
NODES = NODES + 0.5
POINTS = 8  # on panels of 0.5 below 1e-14, also beside the singularity of flows at t=1
AT, WEIGHT = (torch.tensor(v, dtype=torch.float64) / 2 for v in legendre.leggauss(POINTS))
AT = AT + 0.5
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


def frozen_flow(process: Process, ts: Tensor, eta: float = 0.0) -> Psi:
    """Psi(s,t) for s and t, (n,), within the grid ts."""
    if eta == 1:
        return lambda s, t: _posterior(process, s, t)
    if process.structure in ("scalar", "diag"):
        return process.Psi if eta == 0 else lambda s, t: _between(process, s, t, eta)
    Y = _table(process, ts[:1], ts[-1:], eta)
    return lambda s, t: Y(s) @ Y(t).inv


def _posterior(process: Process, s: Tensor, t: Tensor) -> LinOp:
    return process.Sigma(s) @ process.Phi(t, s).T @ process.Sigma(t).inv


def _between(process: Process, s: Tensor, t: Tensor, eta: float) -> LinOp:
    zero = process.Psi(s, t)
    return zero @ (zero.inv @ _posterior(process, s, t)).map(lambda p: p**eta)


def spread(process: Process, Psi: Psi, t: Tensor, s: Tensor, eta: float) -> LinOp:
    """C(s,t), the covariance of the noise that the steps from t to s, (n,), gather."""
    if eta == 1:
        return process.posterior(s, t)[1]
    if process.structure in ("scalar", "diag"):
        ratio = process.posterior(s, t)[1] @ process.Sigma(s).inv
        return process.Sigma(s) @ ratio.map(lambda p: -torch.expm1(eta * torch.log1p(-p)))
    which, u, du = quadrature(process, t, s)
    carry = Psi(s[which], u)
    C = gather(carry @ ((-eta * du) * process.GG(u)) @ carry.T, which, len(t))
    return 0.5 * (C + C.T)


def quadrature(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points u and weights du, (m,), of int_t^s for all steps, and the step of each, (m,)."""
    step, a, b = panels(process, t, s)
    span = (b / a).log()[:, None]
    u = a[:, None] * torch.exp(span * AT)
    return step.repeat_interleave(POINTS), u.flatten(), (u * span * WEIGHT).flatten()


def gather(op: LinOp, which: Tensor, n: int) -> LinOp:
    """Sum an operator a point into an operator a step."""
    ones = Scalar(torch.ones(len(which), dtype=torch.float64)) @ op

    def add(p: Tensor) -> Tensor:
        return p.new_zeros(n, *p.shape[1:]).index_add_(0, which, p)

    return ones.map(add)


def _table(process: Process, first: Tensor, last: Tensor, eta: float) -> Callable[[Tensor], LinOp]:
    """Y with Y Y^T = Sigma at the first time, and at all times where eta = 0."""
    _, a, b = panels(process, first, last)
    a, b = a.sort(descending=True)[0], b.sort(descending=True)[0]
    h = (b / a).log()
    u = (a[:, None] * torch.exp(h[:, None] * NODES)).flatten()
    like = process.Sigma(u)
    shape = like.param.shape[1:]
    F = (process.A(u) + (1 + eta) / 2 * (process.GG(u) @ like.inv)).lift(like).param
    scale = (h[:, None] * u.reshape(len(a), -1)).reshape(-1, *[1] * len(shape))
    pull = (scale * F).reshape(len(a), DEGREE, -1, *shape[-2:])
    eye = torch.eye(shape[-1], dtype=torch.float64)
    slope = _collocate(pull, eye)
    ends = eye + torch.einsum("j,kj...->k...", WEIGHTS, slope)
    starts = [process.Sigma(first).chol.param.reshape(ends.shape[1:])]
    for end in ends[:-1]:
        starts.append(end @ starts[-1])
    start = torch.stack(starts)

    def Y(t: Tensor) -> LinOp:
        parts = []
        for v in t.split(max(1, LARGEST // slope[0].numel())):
            k = torch.searchsorted(-a, -v, right=True).clamp(1, len(a)) - 1
            up_to = _integrals((v / a[k]).log() / h[k])
            grown = eye + torch.einsum("mj,mj...->m...", up_to, slope[k])
            parts.append((grown @ start[k]).reshape(-1, *shape))
        return like.map(lambda _: torch.cat(parts))

    return Y


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

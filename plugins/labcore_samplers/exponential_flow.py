"""The flow of the reverse dynamics with the clean point x0 frozen, and the noise it gathers.

With lam^2 = eta the rate of the noise, x - Phi x0 moves from t to s by Psi(s,t) and N(0, C(s,t)):

    dPsi(s,t)/ds = (A + (1+eta)/2 GG^T Sigma^-1) Psi,    Psi(t,t) = 1
    C(s,t) = eta int_s^t Psi(s,u) GG^T(u) Psi(s,u)^T du = Sigma(s) - Psi Sigma(t) Psi^T

eta = 0 is gDDIM's R_s R_t^-1 with R R^T = Sigma, and eta = 1 the posterior given x0, whose Psi is
Sigma(s) Phi(t,s)^T Sigma(t)^-1. Where operators commute Psi is the geometric mean of the two,
Psi_0 (Psi_0^-1 Psi_1)^eta, and C = Sigma(s) (1 - (1 - Sigma(t|s)/Sigma(t))^eta).

An exponential integrator asks for Psi at thousands of pairs of times. For matrices, unless eta is
1, its growth is integrated once over the grid by Gauss collocation in log t, on panels of at most
WIDTH in half log-SNR, and read off the collocation polynomial: Psi(s,t) = Y(s) Y(t)^-1 within one,
and a product over several. C is then the integral, a Gauss sum of positive terms, since the
difference loses digits in short steps.
Source: Zhang, Tao & Chen (2023) arXiv:2206.05564, eq. 17, for eta = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.polynomial import legendre
from torch import Tensor

from labcore import LinOp, Mat, Process, Scalar

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
    return _tabled(process, ts[:1], ts[-1:], eta)


def _posterior(process: Process, s: Tensor, t: Tensor) -> LinOp:
    return process.Sigma(s) @ process.Phi(t, s).T @ process.Sigma(t).inv


def _between(process: Process, s: Tensor, t: Tensor, eta: float) -> LinOp:
    zero = process.Psi(s, t)
    return zero @ (zero.inv @ _posterior(process, s, t)).map(lambda p: p**eta)


def spread(process: Process, Psi: Psi, t: Tensor, s: Tensor, eta: float) -> LinOp:
    """C(s,t), the covariance of the noise that the steps from t to s, (n,), gather."""
    if process.structure in ("scalar", "diag"):
        share = process.Q(t, s) @ process.Sigma(t).inv
        if eta != 1:
            share = share.map(lambda p: -torch.expm1(eta * torch.log1p(-p)))
        return process.Sigma(s) @ share
    if eta == 1:
        return process.posterior(s, t)[1]
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


def _tabled(process: Process, first: Tensor, last: Tensor, eta: float) -> Psi:
    """Psi from its growth Y' = F Y, Y = 1 at the start, on panels between the two times."""
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

    def grown(t: Tensor) -> tuple[Tensor, Tensor]:
        """The panel of each time, and how much Y has grown there."""
        k = torch.searchsorted(-a, -t, right=True).clamp(1, len(a)) - 1
        up_to = _integrals((t / a[k]).log() / h[k])
        return k, eye + torch.einsum("mj,mj...->m...", up_to, slope[k])

    def down(s: Tensor, t: Tensor) -> Tensor:
        """Psi(s,t) for s <= t, panel by panel, which no growth over many can spoil."""
        (k, Y), (j, old) = grown(s), grown(t)
        for back in range(1, int((k - j).max()) + 1):
            through = (k - back >= j).reshape(-1, *[1] * (Y.ndim - 1))
            Y = torch.where(through, Y @ ends[(k - back).clamp(0)], Y)
        return Y @ Mat(old).inv.param

    def Psi(s: Tensor, t: Tensor) -> LinOp:
        parts = []
        block = max(1, LARGEST // slope[0].numel())
        for v, w in zip(s.split(block), t.split(block), strict=True):
            P, up = down(torch.minimum(v, w), torch.maximum(v, w)), v > w
            parts.append(torch.where(up.reshape(-1, *[1] * (P.ndim - 1)), Mat(P).inv.param, P))
        return like.map(lambda _: torch.cat(parts).reshape(-1, *shape))

    return Psi


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

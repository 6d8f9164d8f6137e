"""Ornstein-Uhlenbeck processes: dX = A X dt + G dW with constant matrices.

    Phi(t,s) = expm(A h),    Sigma(t|s) = S(h) = int_0^h expm(A u) G G^T expm(A u)^T du,  h = t - s

On h <= h0, ||A|| h0 <= 1/2, both are Taylor series in h with fixed matrix coefficients,

    expm(A h) = sum_k A^k h^k/k!,    S(h) = sum_k M_k h^(k+1)/(k+1)!,
    M_0 = G G^T,  M_(k+1) = A M_k + M_k A^T

so n values of h cost one product of matrices. Longer times are j h0 + r, with expm(A j h0) and
S(j h0) tabulated once:  S(j h0 + r) = expm(A r) S(j h0) expm(A r)^T + S(r).  Nothing is
subtracted: S keeps its digits for small h, for stiff A, and where the noise reaches a coordinate
only through A. (Van Loan's block exponential multiplies exp(A h) by exp(-A h), and does not.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import labcore
from labcore_linear.checks import dimension, matrix, refuse, span

TERMS = 20  # (2 ||A|| h0)^20 / 20! < 1e-18
LARGEST_TABLE = 2**25  # numbers in the table of expm(A j h0)

Matrices = Callable[[Tensor], Tensor]


def _series(M: Tensor, step: Callable[[Tensor], Tensor], h: float, first: int) -> Tensor:
    """Coefficients c_k = step^k(M) h^(k+first)/(k+first)!, (TERMS, d*d), by recursion."""
    terms = [M * h**first]
    for k in range(1, TERMS):
        terms.append(step(terms[-1]) * (h / (k + first)))
    return torch.stack(terms).flatten(1)


def _tables(A: Tensor, GG: Tensor, T: float, name: str) -> tuple[Matrices, Matrices]:
    """h -> expm(A h) for |h| <= T and h -> S(h) for 0 <= h <= T, both (n,) -> (n, d, d)."""
    d = A.shape[0]
    size = min(float(torch.linalg.matrix_norm(A, p)) for p in (1, 2, math.inf))
    J = max(1, math.ceil(2 * size * T))
    if J * d * d > LARGEST_TABLE:
        raise refuse(name, f"|A| T = {size * T:.3g} is too large for d={d}; reduce T or rescale A")
    h0 = T / J
    eye = torch.eye(d, dtype=torch.float64)
    drift = _series(eye, lambda M: A @ M, h0, 0)
    noise = _series(GG, lambda M: A @ M + M @ A.T, h0, 1)

    def near(x: Tensor, coefficients: Tensor, first: int) -> Tensor:
        powers = torch.arange(first, first + TERMS, dtype=torch.float64)
        return (x.reshape(-1, 1) ** powers @ coefficients).reshape(-1, d, d)

    one = torch.ones(1, dtype=torch.float64)
    ahead, back, added = near(one, drift, 0)[0], near(-one, drift, 0)[0], near(one, noise, 1)[0]
    forward, backward, S = [eye], [eye], [torch.zeros_like(eye)]
    for _ in range(J):
        forward.append(ahead @ forward[-1])
        backward.append(back @ backward[-1])
        S.append(ahead @ S[-1] @ ahead.T + added)
    jumps, covs = torch.stack(backward[:0:-1] + forward), torch.stack(S)

    def split(h: Tensor) -> tuple[Tensor, Tensor]:
        x = h.reshape(-1) / h0
        j = x.floor().clamp(-J, J)
        return j.long(), x - j

    def Phi(h: Tensor) -> Tensor:
        j, x = split(h)
        return near(x, drift, 0) @ jumps[j + J]

    def cov(h: Tensor) -> Tensor:
        j, x = split(h)
        carry = near(x, drift, 0)
        return carry @ covs[j] @ carry.mT + near(x, noise, 1)

    return Phi, cov


def ornstein_uhlenbeck(
    A: Tensor, G: Tensor, *, T: float, t_eps: float, name: str = "ou"
) -> labcore.Process:
    """The process dX = A X dt + G dW for constant A (d, d) and G (d, d).

    Raises InvalidOption for shapes that do not fit and InvalidProcess where noise never reaches
    some direction of the state, so that Sigma(t) is singular.
    """
    span(name, T, t_eps)
    A, G = A.double(), G.double()
    d = A.shape[0]
    if A.shape != (d, d) or G.shape != (d, d):
        raise refuse(
            name, f"A is {tuple(A.shape)} and G {tuple(G.shape)}; give square ones of one size"
        )
    Phi, cov = _tables(A, G @ G.T, T, name)
    final = cov(torch.tensor(T, dtype=torch.float64))
    if int(torch.linalg.cholesky_ex(final)[1].max()) > 0:
        raise labcore.InvalidProcess(
            f"process '{name}': the noise of G never reaches some direction of the state, so "
            "Sigma(t) is singular; give a G of full rank, or one that A spreads"
        )

    def constant(M: Tensor) -> Callable[[Tensor], labcore.LinOp]:
        return lambda t: labcore.Mat(M.expand(t.numel(), d, d))

    return labcore.Process(
        A=constant(A),
        G=constant(G),
        Phi=lambda t, s: labcore.Mat(Phi(t - s)),
        Sigma=lambda t: labcore.Mat(cov(t)),
        closed_Q=lambda t, s: labcore.Mat(cov(t - s)),
        T=T,
        t_eps=t_eps,
        structure="dense",
        event_shape=(d,),
    )


def seeded(d: int, seed: int) -> tuple[Tensor, Tensor]:
    """A stable, non-normal A of rates 1..2 in a random basis, and a correlated G, both (d, d)."""
    g = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(d, d, generator=g, dtype=torch.float64)

    basis = torch.linalg.qr(draw())[0]
    shear = draw().triu(1) / math.sqrt(d)
    A = -basis @ (torch.linspace(1, 2, d, dtype=torch.float64).diag() + shear) @ basis.T
    G = math.sqrt(2) * (torch.eye(d, dtype=torch.float64) + 0.3 * draw().tril(-1) / math.sqrt(d))
    return A, G


@labcore.process(
    cite="Sarkka & Solin (2019), Applied Stochastic Differential Equations, sec. 6.2",
    gives=("dense",),
)
def ou(
    *,
    d: int | None = None,
    A: list[list[float]] | None = None,
    G: list[list[float]] | None = None,
    seed: int = 0,
    T: float = 5.0,
    t_eps: float = 5e-5,
) -> labcore.Process:
    """Ornstein-Uhlenbeck with constant matrices A and G, given as rows.

    An A or G not given is drawn from ``seed`` in dimension d (2 if nothing says more): A stable
    and non-normal, G correlated. By T = 5 the slowest mode keeps exp(-5) of the data, as in vp;
    at t_eps = 5e-5 the noise left has standard deviation 0.01, as in vp.
    """
    given = {key: matrix("ou", key, M) for key, M in (("A", A), ("G", G)) if M is not None}
    sizes = {M.shape[0] for M in given.values()} | ({d} if d is not None else set())
    if len(sizes) > 1:
        raise refuse("ou", f"d, A and G have sizes {sorted(sizes)}; give one dimension")
    size = sizes.pop() if sizes else 2
    dimension("ou", size)
    own_A, own_G = seeded(size, seed)
    return ornstein_uhlenbeck(given.get("A", own_A), given.get("G", own_G), T=T, t_eps=t_eps)

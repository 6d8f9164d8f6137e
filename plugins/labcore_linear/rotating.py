"""An example whose A(t) and A(s) do not commute: noise and contraction along turning axes."""

from __future__ import annotations

import torch
from torch import Tensor

import labcore
from labcore_linear.beta import linear_beta
from labcore_linear.checks import dimension, refuse, span
from labcore_linear.numerical import numerical_process


@labcore.process(
    cite="Sarkka & Solin (2019), Applied Stochastic Differential Equations, ch. 6",
    gives=("dense",),
)
def rotating(
    *,
    d: int = 2,
    omega: float = 3.0,
    b0: float = 0.1,
    b1: float = 20.0,
    T: float = 1.0,
    t_eps: float = 1e-3,
) -> labcore.Process:
    """Linear-beta process along axes that turn: [A(t), A(s)] != 0, so no closed form.

    A = -beta/2 R D R^T, G = sqrt(beta) R^T D^-1/2, R(t) = expm(omega t S) with S skew, turning
    neighbouring coordinates into each other, D = diag(1..2). Phi and Sigma are tabulated once.
    t_eps = 1e-3, as for vp: the noise left there has standard deviation 0.007 to 0.01.
    """
    dimension("rotating", d)
    span("rotating", T, t_eps)
    if not abs(omega) < 1e3:
        raise refuse("rotating", f"omega is {omega}; give a finite rate of turning below 1000")
    beta, _ = linear_beta("rotating", b0, b1, T)
    D = torch.linspace(1, 2, d, dtype=torch.float64)
    S = torch.diag(torch.ones(d - 1, dtype=torch.float64), 1)
    # R by the eigenvectors of the Hermitian matrix i S.
    angles, V = torch.linalg.eigh(1j * (S - S.T))

    def R(t: Tensor) -> Tensor:
        phase = torch.exp(-1j * omega * t[:, None] * angles)
        return ((V * phase[:, None]) @ V.mH).real

    def A(t: Tensor) -> Tensor:
        turn = R(t)
        return -beta(t)[:, None, None] / 2 * ((turn * D) @ turn.mT)

    def G(t: Tensor) -> Tensor:
        return beta(t).sqrt()[:, None, None] * (R(t).mT / D.sqrt())

    return numerical_process(A, G, T=T, t_eps=t_eps, name="rotating")

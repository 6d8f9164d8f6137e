"""Variance preserving processes: dX = -beta/2 X dt + sqrt(beta) dW.

    Phi(t,s) = exp(-B(t|s)/2),    Sigma(t|s) = 1 - exp(-B(t|s)),    B(t|s) = int_s^t beta

1 - exp(-B) is -expm1(-B), so that Sigma(t|s) keeps its digits for neighbouring times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import labcore
from labcore_linear.beta import Integral, Rate, cosine_beta, linear_beta
from labcore_linear.checks import span


def variance_preserving(
    beta: Rate,
    B: Integral,
    *,
    T: float,
    t_eps: float,
    op: Callable[[Tensor], labcore.LinOp] = labcore.Scalar,
) -> labcore.Process:
    """The VP process of any rate beta(t) with integral B(t, s), wrapped by ``op``.

    beta and B map float64 times () or (n,) to the parameters of ``op``: (n,) for Scalar, (n, d)
    for Diag.
    """

    def Q(t: Tensor, s: Tensor) -> labcore.LinOp:
        return op(-torch.expm1(-B(t, s)))

    return labcore.Process(
        A=lambda t: op(-beta(t) / 2),
        G=lambda t: op(beta(t).sqrt()),
        Phi=lambda t, s: op(torch.exp(-B(t, s) / 2)),
        Sigma=lambda t: Q(t, torch.zeros_like(t)),
        closed_Q=Q,
        T=T,
        t_eps=t_eps,
    )


@labcore.process(cite="Song et al. (2021) arXiv:2011.13456, eq. 11", gives=("scalar",))
def vp(
    *, b0: float = 0.1, b1: float = 20.0, T: float = 1.0, t_eps: float = 1e-3
) -> labcore.Process:
    """Variance preserving, linear rate: beta = b0 + (b1 - b0) t.

    t_eps = 1e-3 (Song et al. 2021, appendix C): the noise left there has standard deviation 0.01.
    """
    span("vp", T, t_eps)
    return variance_preserving(*linear_beta("vp", b0, b1, T), T=T, t_eps=t_eps)


@labcore.process(cite="Nichol & Dhariwal (2021) arXiv:2102.09672, eq. 17", gives=("scalar",))
def vp_cosine(*, s: float = 0.008, T: float = 0.9946, t_eps: float = 1e-3) -> labcore.Process:
    """Variance preserving, cosine schedule: exp(-B(t)) = cos^2 th(t) / cos^2 th(0).

    th(t) = (t + s)/(1 + s) pi/2. beta is infinite at t=1, so T = 0.9946 (Lu et al. 2022,
    arXiv:2206.00927). t_eps = 1e-3, as for vp: the noise left has standard deviation 0.006.
    """
    span("vp_cosine", T, t_eps)
    return variance_preserving(*cosine_beta("vp_cosine", s, T), T=T, t_eps=t_eps)


@labcore.process(cite="Song et al. (2021) arXiv:2011.13456, eq. 12", gives=("scalar",))
def sub_vp(
    *, b0: float = 0.1, b1: float = 20.0, T: float = 1.0, t_eps: float = 1e-3
) -> labcore.Process:
    """Sub-VP: the drift of vp with G^2 = beta (1 - exp(-2 B)), Sigma(t) = (1 - exp(-B))^2.

    Sigma(t|s) = (1 - exp(-B(t|s))) (1 - exp(-B(t) - B(s))). t_eps = 1e-3 (Song et al. 2021,
    appendix C): the noise left there has standard deviation 1e-4, less than that of vp.
    """
    span("sub_vp", T, t_eps)
    beta, B = linear_beta("sub_vp", b0, b1, T)

    def from_0(t: Tensor) -> Tensor:
        return B(t, torch.zeros_like(t))

    def Q(t: Tensor, s: Tensor) -> labcore.LinOp:
        return labcore.Scalar(torch.expm1(-B(t, s)) * torch.expm1(-from_0(t) - from_0(s)))

    return labcore.Process(
        A=lambda t: labcore.Scalar(-beta(t) / 2),
        G=lambda t: labcore.Scalar((-beta(t) * torch.expm1(-2 * from_0(t))).sqrt()),
        Phi=lambda t, s: labcore.Scalar(torch.exp(-B(t, s) / 2)),
        Sigma=lambda t: labcore.Scalar(torch.expm1(-from_0(t)).square()),
        closed_Q=Q,
        T=T,
        t_eps=t_eps,
    )

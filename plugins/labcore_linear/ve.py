"""Variance exploding processes: dX = g(t) dW, so Phi = 1 and Sigma(t|s) = int_s^t g^2."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import labcore
from labcore_linear.checks import positive, refuse, span


def variance_exploding(
    g2: Callable[[Tensor], Tensor],
    Q: Callable[[Tensor, Tensor], Tensor],
    *,
    T: float,
    t_eps: float,
) -> labcore.Process:
    """The process without drift of squared noise rate g2(t), whose integral from s to t is Q."""
    return labcore.Process(
        A=lambda t: labcore.Scalar(torch.zeros_like(t)),
        G=lambda t: labcore.Scalar(g2(t).sqrt()),
        Phi=lambda t, s: labcore.Scalar(torch.ones_like(t - s)),
        Sigma=lambda t: labcore.Scalar(Q(t, torch.zeros_like(t))),
        closed_Q=lambda t, s: labcore.Scalar(Q(t, s)),
        T=T,
        t_eps=t_eps,
    )


def geometric(start: float, growth: float, *, t_eps: float) -> labcore.Process:
    """g^2 = start exp(growth t) on [0, 1]; Sigma(t|s) = g(s)^2 expm1(growth (t - s)) / growth."""

    def g2(t: Tensor) -> Tensor:
        return start * torch.exp(growth * t)

    def Q(t: Tensor, s: Tensor) -> Tensor:
        return g2(s) * torch.expm1(growth * (t - s)) / growth

    return variance_exploding(g2, Q, T=1.0, t_eps=t_eps)


@labcore.process(cite="Song et al. (2021) arXiv:2011.13456, eq. 9", gives=("scalar",))
def ve(
    *, sigma_min: float = 0.01, sigma_max: float = 50.0, t_eps: float = 1e-3
) -> labcore.Process:
    """Variance exploding, geometric: Sigma(t) = sigma(t)^2 - sigma(0)^2 on [0, 1].

    sigma(t) = sigma_min (sigma_max/sigma_min)^t. The paper's kernel leaves sigma(0)^2 in, but the
    SDE started at the data has none. t_eps = 1e-3: the noise left has standard deviation
    0.13 sigma_min, well below the scale that the process calls negligible.
    """
    positive("ve", sigma_min=sigma_min, sigma_max=sigma_max)
    span("ve", 1.0, t_eps)
    if sigma_min >= sigma_max:
        raise refuse(
            "ve", f"sigma_min is {sigma_min}, not below sigma_max={sigma_max}; swap or change them"
        )
    growth = 2 * math.log(sigma_max / sigma_min)
    return geometric(sigma_min**2 * growth, growth, t_eps=t_eps)


@labcore.process(cite="Song (2021), score-SDE tutorial: dX = sigma^t dW", gives=("scalar",))
def sigma_t(*, sigma: float = 25.0, t_eps: float = 1e-3) -> labcore.Process:
    """Variance exploding with g = sigma^t: Sigma(t) = (sigma^(2t) - 1) / (2 log sigma) on [0, 1].

    t_eps = 1e-3, as in the tutorial: the noise left there has standard deviation 0.03.
    """
    span("sigma_t", 1.0, t_eps)
    positive("sigma_t", sigma=sigma)
    if sigma <= 1:
        raise refuse("sigma_t", f"sigma is {sigma}; give a number above 1, so that noise grows")
    return geometric(1.0, 2 * math.log(sigma), t_eps=t_eps)


@labcore.process(cite="Karras et al. (2022) arXiv:2206.00364, table 1", gives=("scalar",))
def edm(*, T: float = 80.0, t_eps: float = 0.002) -> labcore.Process:
    """EDM, sigma(t) = t: Sigma(t) = t^2, g^2 = 2 t.

    T = 80 and t_eps = 0.002 are sigma_max and sigma_min of the paper.
    """
    span("edm", T, t_eps)
    return variance_exploding(lambda t: 2 * t, lambda t, s: (t - s) * (t + s), T=T, t_eps=t_eps)

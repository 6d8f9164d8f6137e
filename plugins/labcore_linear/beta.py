"""Noise rates beta(t) with the integral B(t|s) of beta from s to t, free of cancellation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from labcore_linear.checks import positive, refuse

Rate = Callable[[Tensor], Tensor]
Integral = Callable[[Tensor, Tensor], Tensor]


def linear_beta(name: str, b0: float, b1: float, T: float) -> tuple[Rate, Integral]:
    """beta = b0 + (b1 - b0) t,  B(t|s) = (t - s) (b0 + (b1 - b0) (t + s) / 2).

    Raises InvalidOption unless beta >= 0 on [0, T] and not 0 throughout.
    """
    end = b0 + (b1 - b0) * T
    if not (math.isfinite(b0) and math.isfinite(b1)):
        raise refuse(name, f"b0 is {b0} and b1 is {b1}; give finite numbers")
    if min(b0, end) < 0 or b0 + end <= 0:
        raise refuse(
            name,
            f"b0={b0} and b1={b1} make beta(0)={b0:g} and beta(T)={end:g}; "
            "give rates that are not negative on [0, T], nor 0 throughout",
        )

    def beta(t: Tensor) -> Tensor:
        return b0 + (b1 - b0) * t

    def B(t: Tensor, s: Tensor) -> Tensor:
        return (t - s) * (b0 + (b1 - b0) * (t + s) / 2)

    return beta, B


def cosine_beta(name: str, s0: float, T: float) -> tuple[Rate, Integral]:
    """B(t|s) = -2 log(cos th(t) / cos th(s)), th(t) = (t + s0)/(1 + s0) pi/2, beta = dB/dt.

    With D = th(t) - th(s) the ratio of cosines is 1 - (2 sin^2(D/2) + tan th(s) sin D).
    Nichol & Dhariwal (2021) arXiv:2102.09672, eq. 17. Raises InvalidOption unless T < 1.
    """
    positive(name, s=s0, T=T)
    if T >= 1:
        raise refuse(name, f"T is {T} and beta is infinite at t=1; give T below 1, say 0.9946")
    slope = math.pi / 2 / (1 + s0)

    def beta(t: Tensor) -> Tensor:
        return 2 * slope * torch.tan(slope * (t + s0))

    def B(t: Tensor, s: Tensor) -> Tensor:
        D = slope * (t - s)
        lost = 2 * torch.sin(D / 2).square() + torch.tan(slope * (s + s0)) * torch.sin(D)
        return -2 * torch.log1p(-lost)

    return beta, B

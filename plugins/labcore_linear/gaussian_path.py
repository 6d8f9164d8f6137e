"""Processes read off a Gaussian path x_t = alpha(t) x_0 + sigma(t) eps.

    A = alpha'/alpha,    G^2 = 2 sigma sigma' - 2 A sigma^2,    Phi(t,s) = alpha(t)/alpha(s)
    Sigma(t|s) = sigma(t)^2 - (alpha(t)/alpha(s))^2 sigma(s)^2

The process started at the data has Sigma(t) = Sigma(t|0), which leaves out sigma(0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import labcore
from labcore_linear.checks import refuse, span

Curve = Callable[[Tensor], Tensor]


def slope(f: Curve, t: Tensor) -> Tensor:
    """df/dt at every time, by automatic differentiation."""
    with torch.inference_mode(False), torch.enable_grad():
        u = t.clone().requires_grad_(True)
        (derivative,) = torch.autograd.grad((f(u) + 0 * u).sum(), u)
    return derivative


def gaussian_path(
    alpha: Curve,
    sigma: Curve,
    *,
    T: float,
    t_eps: float,
    Q: Callable[[Tensor, Tensor], Tensor] | None = None,
    name: str = "gaussian_path",
) -> labcore.Process:
    """The process of x_t = alpha(t) x_0 + sigma(t) eps, alpha(0) = 1.

    alpha and sigma are elementwise torch functions of float64 times, smooth on [0, T], alpha
    positive, sigma/alpha increasing; their derivatives are taken automatically. Q(t, s) is
    Sigma(t|s) in closed form, if known. Raises InvalidProcess when they make no such path.
    """
    span(name, T, t_eps)
    _check(name, alpha, sigma, T, t_eps)

    def A(t: Tensor) -> Tensor:
        return slope(alpha, t) / alpha(t)

    def G(t: Tensor) -> Tensor:
        s = sigma(t)
        return (2 * s * (slope(sigma, t) - A(t) * s)).clamp_min(0).sqrt()

    def subtract(t: Tensor, s: Tensor) -> Tensor:
        kept = alpha(t) / alpha(s) * sigma(s)
        return (sigma(t) - kept) * (sigma(t) + kept)

    cov = Q or subtract
    return labcore.Process(
        A=lambda t: labcore.Scalar(A(t)),
        G=lambda t: labcore.Scalar(G(t)),
        Phi=lambda t, s: labcore.Scalar(alpha(t) / alpha(s)),
        Sigma=lambda t: labcore.Scalar(cov(t, torch.zeros_like(t))),
        closed_Q=lambda t, s: labcore.Scalar(cov(t, s)),
        T=T,
        t_eps=t_eps,
    )


def _check(name: str, alpha: Curve, sigma: Curve, T: float, t_eps: float) -> None:
    t = torch.cat([torch.zeros(1), torch.linspace(t_eps, T, 257)]).double()
    a, s = alpha(t), sigma(t)
    if not bool((torch.isfinite(a) & torch.isfinite(s) & (a > 0) & (s >= 0)).all()):
        raise labcore.InvalidProcess(
            f"process '{name}': alpha must be positive and sigma not negative on [0, {T:g}]; "
            "end at a smaller T if alpha reaches 0 there"
        )
    if abs(float(a[0]) - 1) > 1e-12:
        raise labcore.InvalidProcess(
            f"process '{name}': alpha(0) is {float(a[0]):g}, and x_0 is the data; "
            "divide alpha and sigma by alpha(0)"
        )
    falls = (s / a).diff() <= 0
    if bool(falls.any()):
        at = float(t[1:][falls][0])
        raise labcore.InvalidProcess(
            f"process '{name}': sigma/alpha does not increase before t={at:.4g}, so G^2 < 0; "
            "choose a path on which the noise-to-signal ratio grows"
        )


@labcore.process(
    cite="Liu et al. (2023) arXiv:2209.03003; Lipman et al. (2023) arXiv:2210.02747",
    gives=("scalar",),
)
def rectified_flow(*, T: float = 0.999, t_eps: float = 1e-3) -> labcore.Process:
    """Rectified flow, x_t = (1 - t) x_0 + t eps: A = -1/(1-t), Sigma(t) = t^2.

    A is singular at t=1, so T = 0.999: the start is N(0, T^2) and 0.001 of the data is left.
    t_eps = 1e-3 mirrors it: the noise left has standard deviation 0.001.
    """
    if T >= 1:
        raise refuse(
            "rectified_flow", f"T is {T} and A is infinite at t=1; give T below 1, say 0.999"
        )

    def Q(t: Tensor, s: Tensor) -> Tensor:
        return (t - s) * (t * (1 - s) + s * (1 - t)) / (1 - s).square()

    return gaussian_path(
        lambda t: 1 - t, lambda t: t, T=T, t_eps=t_eps, Q=Q, name="rectified_flow"
    )


@labcore.process(cite="Albergo & Vanden-Eijnden (2023) arXiv:2209.15571", gives=("scalar",))
def trigonometric(*, T: float = 0.999, t_eps: float = 1e-3) -> labcore.Process:
    """Trigonometric path, x_t = cos(pi t/2) x_0 + sin(pi t/2) eps, variance preserving.

    A is singular at t=1, so T = 0.999: 0.0016 of the data is left at the start. t_eps = 1e-3: the
    noise left has standard deviation 0.0016.
    """
    if T >= 1:
        raise refuse(
            "trigonometric", f"T is {T} and A is infinite at t=1; give T below 1, say 0.999"
        )
    c = math.pi / 2

    def Q(t: Tensor, s: Tensor) -> Tensor:
        return torch.sin(c * (t - s)) * torch.sin(c * (t + s)) / torch.cos(c * s).square()

    return gaussian_path(
        lambda t: torch.cos(c * t),
        lambda t: torch.sin(c * t),
        T=T,
        t_eps=t_eps,
        Q=Q,
        name="trigonometric",
    )

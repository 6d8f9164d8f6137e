"""A reference to measure local errors on: the exact flow of round Gaussians in the plane.

In y = x / Phi the probability flow is dy/d sigma = (y - D(y, sigma)) / sigma with the denoiser
D = sum_k r_k (std^2 y + sigma^2 m_k) / (std^2 + sigma^2), r_k ~ N(y; m_k, std^2 + sigma^2),
and DDIM goes from sigma_t to sigma_s by D(y_t) + (sigma_s / sigma_t) (y_t - D(y_t)).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

CELLS = 160  # candidate steps
INSIDE = 4  # Runge-Kutta steps within each
PATHS = 64


def ring(modes: int) -> Tensor:
    """Means (modes, 2) on the unit circle."""
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return torch.stack([angle.cos(), angle.sin()], 1)


def denoiser(means: Tensor, std: float, y: Tensor, u: Tensor) -> Tensor:
    """E[data | y] at log sigma u (), for y (B, 2)."""
    v, w = (2 * u).exp(), std**2
    r = torch.softmax(-(torch.cdist(y, means).square()) / (2 * (w + v)), 1)
    return (w * y + v * (r @ means)) / (w + v)


def trajectory(means: Tensor, std: float, knots: Tensor) -> Tensor:
    """The flow at log sigma = knots, (len(knots), PATHS, 2), from exact samples of the first."""
    g = torch.Generator().manual_seed(0)
    k = torch.arange(PATHS) % len(means)
    z = torch.randn(PATHS, 2, generator=g, dtype=torch.float64)
    y = means[k] + math.sqrt(std**2 + math.exp(2 * float(knots[0]))) * z
    states = [y]

    def slope(y: Tensor, u: Tensor) -> Tensor:  # dy / d log sigma
        return y - denoiser(means, std, y, u)

    for a, b in pairwise(knots):
        h = (b - a) / INSIDE
        for i in range(INSIDE):
            u = a + i * h
            k1 = slope(y, u)
            k2 = slope(y + h / 2 * k1, u + h / 2)
            k3 = slope(y + h / 2 * k2, u + h / 2)
            k4 = slope(y + h * k3, u + h)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states.append(y)
    return torch.stack(states)


def local_errors(means: Tensor, std: float, knots: Tensor) -> Tensor:
    """Mean square error of one DDIM step between all pairs of knots, (M+1, M+1), from i to j > i.

    Relative to the variance std^2 + sigma^2 about a mode where it arrives.
    """
    y = trajectory(means, std, knots)
    rows = []
    for i, u in enumerate(knots):
        D = denoiser(means, std, y[i], u)
        ratio = (knots - u).exp()[:, None, None]
        error = (D + ratio * (y[i] - D) - y).square().sum(-1).mean(1)
        rows.append(error / (std**2 + (2 * knots).exp()))
    return torch.stack(rows)

"""Variance preserving with a rate of its own for every coordinate."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import labcore
from labcore_linear.beta import linear_beta
from labcore_linear.checks import dimension, span
from labcore_linear.vp import variance_preserving


@labcore.process(
    cite="Hoogeboom & Salimans (2022) arXiv:2209.05557",
    gives=("diag",),
)
def diag_vp(
    *,
    d: int = 2,
    b0: tuple[float, float] = (0.1, 0.2),
    b1: tuple[float, float] = (20.0, 30.0),
    T: float = 1.0,
    t_eps: float = 1e-3,
) -> labcore.Process:
    """Per-coordinate VP: beta_i = b0_i + (b1_i - b0_i) t on data of shape (d,).

    b0 and b1 run linearly from their first number (coordinate 0) to their second (coordinate
    d - 1). t_eps = 1e-3, as for vp: the noise left has standard deviation 0.01.
    """
    dimension("diag_vp", d)
    span("diag_vp", T, t_eps)
    for start, end in zip(b0, b1, strict=True):
        linear_beta("diag_vp", start, end, T)
    low = torch.linspace(*b0, d, dtype=torch.float64)
    rise = torch.linspace(*b1, d, dtype=torch.float64) - low

    def beta(t: Tensor) -> Tensor:
        return low + rise * t.reshape(-1, 1)

    def B(t: Tensor, s: Tensor) -> Tensor:
        t, s = t.reshape(-1, 1), s.reshape(-1, 1)
        return (t - s) * (low + rise * (t + s) / 2)

    process = variance_preserving(beta, B, T=T, t_eps=t_eps, op=labcore.Diag)
    return replace(process, structure="diag", event_shape=(d,))

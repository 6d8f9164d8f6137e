"""Gaussian Fourier features of the noise level."""

from __future__ import annotations

import torch
from torch import Tensor


class Fourier(torch.nn.Module):
    """c -> [sin 2 pi w c, cos 2 pi w c], w ~ N(0, scale^2) drawn once and kept with the weights.

    c is () or (B,), and the features are (1, 2 n) or (B, 2 n): a level that the batch shares is
    embedded once. (Tancik et al. 2020, arXiv:2006.10739)
    """

    w: Tensor

    def __init__(self, n: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("w", scale * torch.randn(n))

    def forward(self, c: Tensor) -> Tensor:
        angle = 2 * torch.pi * c.reshape(-1, 1) * self.w
        return torch.cat([angle.sin(), angle.cos()], 1)

"""What the networks share: features of the noise level, layers that start at zero, images."""

from __future__ import annotations

from math import isqrt, prod
from typing import TypeVar

import torch
from torch import Tensor

import labcore

Layer = TypeVar("Layer", bound=torch.nn.Module)


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


def zeroed(layer: Layer) -> Layer:
    """The layer with all its parameters at zero."""
    for parameter in layer.parameters():
        parameter.detach().zero_()
    return layer


def square_image(network: str, event: tuple[int, ...], channels: int) -> tuple[int, int, int]:
    """(channels, side, side) of an event (c, h, w), (h, w), or a flat square row by row.

    A leading axis of process channels counts as channels. Raises InvalidOption where there is no
    square of an even side.
    """
    guesses = [channels] if channels else [prod(event[:-2]), prod(event[:-1]), 1]
    for count in guesses:
        side = isqrt(prod(event) // count)
        if count * side * side == prod(event) and side % 2 == 0:
            return count, side, side
    raise labcore.InvalidOption(
        f"network '{network}': an event of shape {event} is no square image of an even side; "
        "give channels=, or use mlp"
    )

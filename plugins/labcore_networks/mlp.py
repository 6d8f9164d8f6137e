"""A multilayer perceptron with residual blocks, each shifted and scaled by the noise level."""

from __future__ import annotations

from math import prod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore_networks.pieces import Fourier, zeroed

Count = Annotated[int, Field(ge=1)]


class Block(torch.nn.Module):
    """h + W2 silu(norm(W1 h) (1 + a(e)) + b(e)), with W2 zero at first: the identity."""

    def __init__(self, width: int, embedded: int) -> None:
        super().__init__()
        self.rise = torch.nn.Linear(width, width)
        self.norm = torch.nn.LayerNorm(width, elementwise_affine=False)
        self.level = torch.nn.Linear(embedded, 2 * width)
        self.fall = zeroed(torch.nn.Linear(width, width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.level(e).chunk(2, -1)
        inner = self.norm(self.rise(h)) * (1 + scale) + shift
        return h + self.fall(torch.nn.functional.silu(inner))


class MLP(torch.nn.Module):
    """x (B, *event), c () or (B,) -> (B, *event)."""

    def __init__(self, event: tuple[int, ...], width: int, depth: int, scale: float) -> None:
        super().__init__()
        d = prod(event)
        self.embed = torch.nn.Sequential(
            Fourier(width // 2, scale), torch.nn.Linear(2 * (width // 2), width), torch.nn.SiLU()
        )
        self.rise = torch.nn.Linear(d, width)
        self.blocks = torch.nn.ModuleList(Block(width, width) for _ in range(depth))
        self.fall = torch.nn.Linear(width, d)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        e, h = self.embed(c), self.rise(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.fall(h).reshape(x.shape)


@labcore.network
def mlp(
    event: tuple[int, ...],
    *,
    width: Annotated[int, Field(ge=2)] = 128,
    depth: Count = 3,
    scale: Annotated[float, Field(gt=0)] = 1.0,
) -> torch.nn.Module:
    """Residual perceptron: ``depth`` blocks of ``width``, Fourier features of the noise level.

    ``scale`` is the spread of the features' frequencies.
    """
    return MLP(event, width, depth, scale)

"""A small convolutional network for small images, such as 8x8 digits, with one coarser level."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore_networks.pieces import Fourier, square_image, zeroed


class Block(torch.nn.Module):
    """h + conv(silu(norm(conv h) (1 + a(e)) + b(e))), the second convolution zero at first."""

    def __init__(self, width: int, embedded: int) -> None:
        super().__init__()
        self.rise = torch.nn.Conv2d(width, width, 3, padding=1)
        self.norm = torch.nn.GroupNorm(4, width, affine=False)
        self.level = torch.nn.Linear(embedded, 2 * width)
        self.fall = zeroed(torch.nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.level(e)[:, :, None, None].chunk(2, 1)
        inner = self.norm(self.rise(h)) * (1 + scale) + shift
        return h + self.fall(torch.nn.functional.silu(inner))


class Convolutional(torch.nn.Module):
    """x (B, *event) -> (B, *event) through images (channels, side, side) and half that side."""

    where: Tensor

    def __init__(self, image: tuple[int, int, int], width: int, depth: int, scale: float) -> None:
        super().__init__()
        self.image = image
        self.embed = torch.nn.Sequential(
            Fourier(width, scale), torch.nn.Linear(2 * width, 2 * width), torch.nn.SiLU()
        )
        side = torch.linspace(-1, 1, image[1])
        self.register_buffer("where", torch.stack(torch.meshgrid(side, side, indexing="ij"))[None])
        self.rise = torch.nn.Conv2d(image[0] + 2, width, 3, padding=1)
        self.fine = torch.nn.ModuleList(Block(width, 2 * width) for _ in range(depth))
        self.down = torch.nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse = torch.nn.ModuleList(Block(2 * width, 2 * width) for _ in range(depth))
        self.up = torch.nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = torch.nn.ModuleList(Block(width, 2 * width) for _ in range(depth))
        self.fall = torch.nn.Conv2d(width, image[0], 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        e, y = self.embed(c), x.reshape(-1, *self.image)
        h = self.rise(torch.cat([y, self.where.expand(len(y), -1, -1, -1)], 1))
        for block in self.fine:
            h = block(h, e)
        low = self.down(h)
        for block in self.coarse:
            low = block(low, e)
        h = h + self.up(low)
        for block in self.last:
            h = block(h, e)
        return self.fall(h).reshape(x.shape)


@labcore.network
def convolutional(
    event: tuple[int, ...],
    *,
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 32,
    depth: Annotated[int, Field(ge=1)] = 2,
    scale: Annotated[float, Field(gt=0)] = 1.0,
    channels: Annotated[int, Field(ge=0)] = 0,
) -> torch.nn.Module:
    """A small U-Net of two levels for square images of an even side, told where each pixel is.

    ``channels`` of the image, 0 to read them off the event: (c, h, w), (h, w), or a flat square,
    whose pixels are taken row by row; a leading axis of process channels counts as channels.
    """
    image = square_image("convolutional", event, channels)
    return Convolutional(image, width, depth, scale)

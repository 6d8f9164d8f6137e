"""diffusers' UNet2DModel as a network of the lab."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore_networks.pieces import square_image


class UNet(torch.nn.Module):
    """The library's model, unchanged, on images (channels, side, side).

    It embeds a time by sines of periods up to 10^4, made for steps 0..1000: the level c, which
    runs over some [-1.5, 1.5], is handed over as 1000 (c + 1.5) / 3.
    """

    def __init__(self, inner: Any, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.inner, self.image = inner, image

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        level = (1000 * (c + 1.5) / 3).reshape(-1).expand(len(x))
        F: Tensor = self.inner(x.reshape(-1, *self.image), level).sample
        return F.reshape(x.shape)


@labcore.network(cite="diffusers, UNet2DModel (von Platen et al. 2022)")
def unet(
    event: tuple[int, ...],
    *,
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 64,
    levels: Annotated[int, Field(ge=1, le=5)] = 2,
    depth: Annotated[int, Field(ge=1)] = 2,
    channels: Annotated[int, Field(ge=0)] = 0,
) -> torch.nn.Module:
    """diffusers' U-Net for square images, on ``levels`` levels, each half the side.

    Needs ``pip install labcore[diffusers]``.
    """
    image = square_image("unet", event, channels)
    if image[1] % 2 ** (levels - 1):
        raise labcore.InvalidOption(
            f"network 'unet': a side of {image[1]} does not halve {levels - 1} times; use fewer "
            "levels"
        )
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise labcore.LabError(
            "network 'unet': diffusers is not installed; pip install labcore[diffusers], or use "
            "convolutional"
        ) from error
    inner = UNet2DModel(
        sample_size=image[1],
        in_channels=image[0],
        out_channels=image[0],
        layers_per_block=depth,
        block_out_channels=tuple(width * 2**i for i in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    return UNet(inner, image)

"""An energy over any backbone: one number a sample, whose gradient is the score."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import labcore


class Energy(torch.nn.Module):
    """x (B, *event), c () or (B,) -> E (B,), from a backbone F that returns (B, *event).

    autoencoder  E = |x - F|^2 / 2
    inner        E = <x, F>
    """

    def __init__(self, backbone: torch.nn.Module, form: str) -> None:
        super().__init__()
        self.backbone, self.form = backbone, form

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        F = self.backbone(x, c)
        each = (x - F).square() / 2 if self.form == "autoencoder" else x * F
        return each.flatten(1).sum(1)


@labcore.network(cite="Salimans & Ho (2021), openreview 9AS-TF2jRNb; Du et al. (2023) 2302.11552")
def energy(
    event: tuple[int, ...],
    *,
    backbone: str = "mlp",
    form: Literal["autoencoder", "inner"] = "autoencoder",
) -> torch.nn.Module:
    """A scalar energy over ``backbone``, any registered network: "mlp(width=256)".

    For reading="energy" (score trained_energy): s = -grad_x E, E = net / sigma_max.
    """
    registry = labcore.load_registry()
    named = labcore.read_use(backbone).resolve("network", registry)
    inner = registry.get("network", named.name)(event, **dict(named.options))
    return Energy(inner, form)

"""A backbone that is not told the noise level, as NCSN's: s(x, sigma) = F(x) / sigma."""

from __future__ import annotations

import torch
from torch import Tensor

import labcore


class Unconditional(torch.nn.Module):
    """The backbone at the level 0, whatever the level."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        F: Tensor = self.backbone(x, c.new_zeros(()))
        return F


@labcore.network(cite="Song & Ermon (2020) arXiv:2006.09011, technique 3")
def unconditional(event: tuple[int, ...], *, backbone: str = "mlp") -> torch.nn.Module:
    """``backbone`` without its level: the level acts through the reading alone, eps = F(x).

    The input still has unit variance, so that the scale of x tells the level no longer.
    """
    registry = labcore.load_registry()
    named = labcore.read_use(backbone).resolve("network", registry)
    return Unconditional(registry.get("network", named.name)(event, **dict(named.options)))

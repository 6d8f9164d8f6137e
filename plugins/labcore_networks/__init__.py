"""Architectures: (event) -> a module of x (B, *event) and the noise level c, () or (B,)."""

import labcore
from labcore_networks.convolutional import convolutional
from labcore_networks.energy import energy
from labcore_networks.mlp import mlp
from labcore_networks.unconditional import unconditional
from labcore_networks.unet import unet


@labcore.hookimpl
def register_networks() -> list[labcore.Entry]:
    return [mlp, convolutional, unet, energy, unconditional]

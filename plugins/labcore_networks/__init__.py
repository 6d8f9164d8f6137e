"""Architectures: (event) -> a module of x (B, *event) and the noise level c, () or (B,)."""

import labcore
from labcore_networks.mlp import mlp


@labcore.hookimpl
def register_networks() -> list[labcore.Entry]:
    return [mlp]

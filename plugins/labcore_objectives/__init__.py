"""Objectives: (process) -> loss(model, x0, generator), one number a sample, (B,)."""

import labcore
from labcore_objectives.denoising import dsm


@labcore.hookimpl
def register_objectives() -> list[labcore.Entry]:
    return [dsm]

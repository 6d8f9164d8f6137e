"""Objectives: (process) -> loss(model, x0, generator), one number a sample, (B,)."""

import labcore
from labcore_objectives.contrastive import cd, nce
from labcore_objectives.denoising import ddpm, dsm, edm_loss, hsm, ncsn
from labcore_objectives.matching import esm, ism, ssm


@labcore.hookimpl
def register_objectives() -> list[labcore.Entry]:
    return [dsm, edm_loss, ncsn, ddpm, hsm, ism, ssm, esm, nce, cd]

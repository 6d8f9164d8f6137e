"""Denoising score matching in operator form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

import labcore
from labcore import Process
from labcore_objectives.times import uniform

Loss = Callable[[labcore.Model, Tensor, Generator], Tensor]


@labcore.objective(cite="Vincent (2011); Song et al. (2021) arXiv:2011.13456, eq. 7")
def dsm(process: Process) -> Loss:
    """E |L^T s(x_t, t) + z|^2, x_t = Phi x0 + L z, L L^T = Sigma: the noise-weighted loss."""
    times = uniform(process)

    def loss(model: labcore.Model, x0: Tensor, generator: Generator) -> Tensor:
        t, importance = times(len(x0), generator)
        state = process.embed(x0)
        z = torch.randn(state.shape, generator=generator)
        at, _ = model.at(t)
        x = at.Phi @ state + at.L @ z
        return importance.to(x) * (model.eps(x, t) - z).square().flatten(1).sum(1)

    return loss

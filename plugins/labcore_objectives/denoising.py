"""Denoising score matching in operator form, for every structure of process.

    E w(t) |L^T s(x_t, t) + z|^2,    x_t = Phi x0 + L z,  L L^T = Sigma(t),  z ~ N(0, I)

Its minimiser is grad log p_t whatever the weight (Vincent 2011). Under CLD the state starts at
(x0, v0) with v0 ~ N(0, gamma M) inside Sigma(0): v0 is integrated out, which is hybrid score
matching (Dockhorn et al. 2022), and ``hsm`` asks for the velocity's part alone, all that G sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

import labcore
from labcore import At, Model, Process
from labcore_objectives.times import Times, chosen, discrete
from labcore_objectives.weights import WEIGHTS, mean_weight

Loss = Callable[[Model, Tensor, Generator], Tensor]
"""(model, x0 (B, *data event), generator) -> one number a sample, (B,)."""

Count = Annotated[int, Field(ge=2)]
Where = Literal["uniform", "log_normal", "importance"]
Weighting = Literal["sigma2", "likelihood", "edm", "min_snr"]


def perturbed(process: Process, x0: Tensor, at: At, generator: Generator) -> tuple[Tensor, Tensor]:
    """x_t = Phi x0 + L z and z."""
    state = process.embed(x0)
    z = torch.randn(state.shape, generator=generator).to(state)
    return at.Phi @ state + at.L @ z, z


def denoising(process: Process, times: Times, weight: str) -> Loss:
    """The loss above with these times and this weight."""
    square = WEIGHTS[weight]

    def loss(model: Model, x0: Tensor, generator: Generator) -> Tensor:
        t, counts = times(len(x0), generator)
        at, level = model.at(t)
        x, z = perturbed(process, x0, at, generator)
        r = model.eps_at(x, at, level) - z
        return counts.to(x) * square(process, t, at, r, model.data_std)

    return loss


@labcore.objective(cite="Vincent (2011); Song et al. (2021) arXiv:2011.13456, eq. 7")
def dsm(
    process: Process,
    *,
    weight: Weighting = "sigma2",
    times: Where = "uniform",
    stratified: bool = True,
) -> Loss:
    """Denoising score matching, E w |L^T s + z|^2, any weight and law of t."""
    where = chosen(process, times, mean_weight(process, weight), stratified)
    return denoising(process, where, weight)


@labcore.objective(cite="Karras et al. (2022) arXiv:2206.00364, table 1")
def edm_loss(process: Process, *, stratified: bool = True) -> Loss:
    """Denoising with EDM's weight and log-normal noise levels."""
    return denoising(process, chosen(process, "log_normal", torch.ones_like, stratified), "edm")


@labcore.objective(cite="Song & Ermon (2019) arXiv:1907.05600, eq. 6")
def ncsn(process: Process, *, levels: Count = 10, stratified: bool = True) -> Loss:
    """Denoising at ``levels`` noise levels of equal log-SNR steps, weighted by sigma^2."""
    return denoising(process, discrete(process, levels, "levels", stratified), "sigma2")


@labcore.objective(cite="Ho, Jain & Abbeel (2020) arXiv:2006.11239, eq. 14")
def ddpm(process: Process, *, steps: Count = 1000, stratified: bool = True) -> Loss:
    """Denoising at ``steps`` equally spaced times: L_simple."""
    return denoising(process, discrete(process, steps, "steps", stratified), "sigma2")


@labcore.objective(
    needs=("channel",), cite="Dockhorn, Vahdat & Kreis (2022) arXiv:2112.07068, eq. 8"
)
def hsm(process: Process, *, times: Where = "uniform", stratified: bool = True) -> Loss:
    """Hybrid score matching for CLD: the error of the last channel, where noise enters, alone."""
    if process.structure != "channel":
        raise labcore.InvalidOption(
            f"objective 'hsm': the process is {process.structure}, it needs added channels, as "
            "cld has; use dsm"
        )
    where = chosen(process, times, torch.ones_like, stratified)

    def loss(model: Model, x0: Tensor, generator: Generator) -> Tensor:
        t, counts = where(len(x0), generator)
        at, level = model.at(t)
        x, z = perturbed(process, x0, at, generator)
        r = (model.eps_at(x, at, level) - z)[:, -1]
        return counts.to(x) * r.square().flatten(1).sum(1)

    return loss

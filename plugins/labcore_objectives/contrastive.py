"""Energies learned by telling data from noise, or from the model's own samples.

At every noise level p_t ~ exp(-E(x,t)); both look at x_t ~ p_t of the data:

    nce   logistic regression of x_t against y ~ N(0, P(t)), with the log-odds
          -E(x,t) - log Z(t) - log N(x; 0, P): log Z is learned beside E
          (Gutmann & Hyvarinen 2010)
    cd    E(x_t) - E(y), y from k Langevin steps on the model, started at x_t  (Hinton 2002), or at
          chains kept from the step before: persistent  (Tieleman 2008)
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor

import labcore
from labcore import At, Model, Process
from labcore_objectives.denoising import perturbed
from labcore_objectives.times import Times, interpolate, uniform

Count = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=0)]


def needs_energy(name: str, model: Model) -> None:
    """InvalidOption for a network that is no energy."""
    if model.reading != "energy":
        raise labcore.InvalidOption(
            f"objective '{name}': it trains energies, the reading is '{model.reading}'; use "
            "reading='energy' with an energy network (score trained_energy)"
        )


class Contrast(torch.nn.Module):
    """Noise-contrastive estimation; log Z(t) - log Z of N(0, P(t)) is piecewise linear in log SNR.

    The latter's is D/2 log 2 pi + log det P / 2, which cancels in the log-odds.
    """

    nodes: Tensor

    def __init__(self, process: Process, times: Times, knots: int) -> None:
        super().__init__()
        self.times = times
        ends = torch.tensor([process.t_eps, process.T], dtype=torch.float64)
        low, high = (-process.log_snr(ends)).tolist()
        self.register_buffer("nodes", torch.linspace(low, high, knots, dtype=torch.float64))
        self.tenth = torch.nn.Parameter(torch.zeros(knots))

    def forward(self, model: Model, x0: Tensor, generator: Generator) -> Tensor:
        needs_energy("nce", model)
        t, counts = self.times(len(x0), generator)
        at, level = model.at(t)
        x, _ = perturbed(model.process, x0, at, generator)
        y = at.deviation @ torch.randn(x.shape, generator=generator).to(x)
        odds = [self.log_odds(model, of, at, level) for of in (x, y)]
        told = torch.nn.functional.softplus(-odds[0]) + torch.nn.functional.softplus(odds[1])
        return counts.to(x) * told

    def log_odds(self, model: Model, x: Tensor, at: At, level: Tensor) -> Tensor:
        """log p_model(x, t) - log N(x; 0, P(t)), (B,)."""
        white = (at.deviation.inv @ x).square().flatten(1).sum(1)
        return white / 2 - model.energy_at(x, at, level) - self.log_Z(at.log_snr).to(x)

    def log_Z(self, log_snr: Tensor) -> Tensor:
        """log Z less that of N(0, P). Adam moves a parameter by its rate: log Z by ten of them."""
        return 10 * interpolate(-log_snr.to(self.nodes), self.nodes, self.tenth)


@labcore.objective(cite="Gutmann & Hyvarinen (2010)")
def nce(
    process: Process, *, knots: Annotated[int, Field(ge=2)] = 16, stratified: bool = True
) -> torch.nn.Module:
    """Noise-contrastive estimation of an energy and its log Z against N(0, P(t)), at all t."""
    return Contrast(process, uniform(process, stratified), knots)


class Divergence(torch.nn.Module):
    """CD-k; ``chains`` and their times are kept from step to step where it is persistent."""

    def __init__(self, times: Times, k: int, step: float, persistent: bool, anew: float) -> None:
        super().__init__()
        self.times, self.k, self.step = times, k, step
        self.persistent, self.anew = persistent, anew
        self.chains: tuple[Tensor, Tensor] | None = None

    def forward(self, model: Model, x0: Tensor, generator: Generator) -> Tensor:
        needs_energy("cd", model)
        going = self.persistent and self.training
        t, _ = self.times(len(x0), generator)
        stay = torch.rand(len(x0), generator=generator).to(x0.device) >= self.anew
        if going and self.chains is not None:
            t = torch.where(stay.to(t.device), self.chains[1], t)
        at, level = model.at(t)
        x, _ = perturbed(model.process, x0, at, generator)
        start = x
        if going and self.chains is not None:
            kept = self.chains[0].to(x).reshape(x.shape)
            start = torch.where(stay.reshape(-1, *[1] * (x.ndim - 1)), kept, x)
        y = self.negatives(model, start, at, level, generator)
        if going:
            self.chains = y, t
        above, below = model.energy_at(x, at, level), model.energy_at(y, at, level)
        return at.size.to(above) * (above - below)

    def negatives(
        self, model: Model, x: Tensor, at: At, level: Tensor, generator: Generator
    ) -> Tensor:
        """k steps x - e^2/2 L eps + e L z of Langevin dynamics preconditioned by Sigma."""
        y = x.detach()
        for _ in range(self.k):
            z = torch.randn(y.shape, generator=generator).to(y)
            eps = model.eps_at(y, at, level, create_graph=False).detach()
            y = y + at.L @ (self.step * z - self.step**2 / 2 * eps)
        return y.detach()

    def get_extra_state(self) -> Tensor:
        """Chains and their times in one tensor, for checkpoints; empty where there are none."""
        if self.chains is None:
            return torch.empty(0)
        y, t = self.chains
        return torch.cat([t[:, None], y.flatten(1).double()], 1)

    def set_extra_state(self, state: Any) -> None:
        if state.numel():
            self.chains = state[:, 1:].float(), state[:, 0]


@labcore.objective(cite="Hinton (2002); Tieleman (2008)")
def cd(
    process: Process,
    *,
    k: Count = 5,
    step: Size = 0.5,
    persistent: bool = False,
    anew: Annotated[float, Field(ge=0, le=1)] = 0.05,
    stratified: bool = True,
) -> torch.nn.Module:
    """Contrastive divergence with ``k`` Langevin steps of size ``step`` in units of L.

    ``persistent`` goes on with the chains of the step before, at their times, but for a share of
    them that begins ``anew`` at data and another time (Du & Mordatch 2019). Each loss is
    weighted by sigma_max(t); an energy's free constant cancels in it. The steps are not
    adjusted: the chains' variances are off by a share of the order of step^2/4, and so are those
    that the energy learns.
    """
    return Divergence(uniform(process, stratified), k, step, persistent, anew)

"""Schedulers in EDM's form, whose model gives F: D = c_skip y + c_out F, and Song et al.'s for VE.

All but one lay their own grid between the ends of the lab's; the last step, to 0, is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from labcore import serving
from labcore_diffusers import tables
from labcore_diffusers.runs import Run

SIGMA_DATA = 0.5


def edm_euler(run: Run) -> Iterator[Tensor]:
    """EDMEulerScheduler, whose ramp of equal steps in sigma^(1/rho) takes any other one."""
    r, rho = run.of.ratio, 7.0
    ends = {"sigma_min": float(r[-1]), "sigma_max": float(r[0])}
    scheduler = tables.make("EDMEulerScheduler", **ends, rho=rho)
    ramp = (r ** (1 / rho) - r[0] ** (1 / rho)) / (r[-1] ** (1 / rho) - r[0] ** (1 / rho))
    tables.along(scheduler, len(r), sigmas=ramp)
    if run.tables == "float64":
        scheduler.sigmas = torch.cat([r, r.new_zeros(1)])
    alpha = run.of.alpha.tolist()
    y = run.x / alpha[0]
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        scheduler.scale_model_input(y, t)
        F = network(run, y, float(r[i]), SIGMA_DATA)
        y = run.stepped(scheduler.step, i, F, t, y)
        yield alpha[i + 1] * y


def network(run: Run, y: Tensor, r: float, data: float, sign: float = 1.0) -> Tensor:
    """F = (D - c_skip y)/c_out. (Karras et al. 2022, table 1)"""
    D, both = run.of.denoise(run.score, y, r), r**2 + data**2
    return (D - data**2 / both * y) / (sign * r * data / both**0.5)


def karras(r: Tensor, rho: float) -> Tensor:
    """Equal steps in r^(1/rho) between the ends of r. (Karras et al. 2022, eq. 5)"""
    ends = r ** (1 / rho)
    return (ends[0] + torch.linspace(0, 1, len(r), dtype=r.dtype) * (ends[-1] - ends[0])) ** rho


def exponential(r: Tensor, rho: float) -> Tensor:
    """Equal steps in log r between the ends of r."""
    ends = r.log()
    return torch.linspace(float(ends[0]), float(ends[-1]), len(r), dtype=r.dtype).exp()


LAID: dict[str, Callable[[Tensor, float], Tensor]] = {
    "karras": karras,
    "exponential": exponential,
}


def on_own_levels(
    run: Run, name: str, data: float, sign: float, own_noise: bool, **config: Any
) -> Iterator[Tensor]:
    """A scheduler of EDM's form that lays its own grid between the ends of the lab's."""
    r = run.of.ratio
    ends = {"sigma_min": float(r[-1]), "sigma_max": float(r[0]), "sigma_data": data}
    scheduler = tables.make(name, **ends, **config)
    tables.along(scheduler, run.steps + 1)
    if run.tables == "float64":
        exact = LAID[scheduler.config.sigma_schedule](r, scheduler.config.rho)
        scheduler.sigmas = torch.cat([exact, r.new_zeros(1)])
    own = scheduler.sigmas[: run.steps + 1].tolist()
    if own_noise:
        drawn = iter(range(run.steps))

        def increment(a: Tensor, b: Tensor) -> Tensor:
            i = next(drawn)
            return run.noise(run.of.ts[i], run.of.ts[i + 1])

        scheduler.noise_sampler = increment
    y = run.x / float(run.of.alpha[0])
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        scheduler.scale_model_input(y, t)
        y = run.stepped(scheduler.step, i, network(run, y, own[i], data, sign), t, y)
        yield run.of.at(own[i + 1])[1] * y


def sde_ve(run: Run, correct_steps: int) -> Iterator[Tensor]:
    """ScoreSdeVeScheduler on its own levels, equal steps in log sigma; its model is the score.

    At each time ``correct_steps`` Langevin steps, of a size by the batch's mean norms, and then a
    step of the reverse diffusion. Its last step, to 0, is not taken.
    """
    r = run.of.ratio
    ends = {"sigma_min": float(r[-1]), "sigma_max": float(r[0])}
    name = "ScoreSdeVeScheduler"
    scheduler = tables.make(name, num_train_timesteps=len(r), correct_steps=correct_steps, **ends)
    own = scheduler.discrete_sigmas.flip(0).tolist()
    y = run.x / float(run.of.alpha[0])
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        for k in range(correct_steps):
            g = -run.of.eps(run.score, y, own[i]) / own[i]
            with serving(partial(run.noise, run.of.ts[i], run.of.ts[i + 1], f"corrector {k}")):
                y = scheduler.step_correct(g, y).prev_sample
        g = -run.of.eps(run.score, y, own[i]) / own[i]
        y = run.stepped(scheduler.step_pred, i, g, t, y)
        yield run.of.at(own[i + 1])[1] * y

"""Schedulers of y = x/alpha at levels r = sigma/alpha, of one or two evaluations a step.

The model gives eps. The grid is all of their levels but the last, 0, to which no step is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from labcore_diffusers import tables
from labcore_diffusers.runs import Run


def in_levels(run: Run, name: str) -> Iterator[Tensor]:
    """A scheduler of y = x/alpha with one evaluation a step."""
    scheduler = tables.make(name, **tables.config(run.of))
    tables.along(scheduler, run.steps + 1)
    if run.tables == "float64":
        scheduler.sigmas = torch.cat([run.of.ratio, run.of.ratio.new_zeros(1)])
    alpha = run.of.alpha.tolist()
    y = run.x / alpha[0]
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        scheduler.scale_model_input(y, t)  # which finds the place of t
        y = run.stepped(scheduler.step, i, run.eps(alpha[i] * y, i), t, y)
        yield alpha[i + 1] * y


Refine = Callable[[Any, Tensor], None]


def refined_heun(scheduler: Any, r: Tensor) -> None:
    scheduler.sigmas = tables.doubled(r)


def refined_kdpm2(scheduler: Any, r: Tensor) -> None:
    all_ = torch.cat([r, r.new_zeros(1)])
    middle = all_.log().lerp(all_.roll(1).log(), 0.5).exp()
    scheduler.sigmas = tables.doubled_at_ends(all_)
    scheduler.sigmas_interpol = tables.doubled_at_ends(middle)


def refined_kdpm2_ancestral(scheduler: Any, r: Tensor) -> None:
    all_ = torch.cat([r, r.new_zeros(1)])
    after = torch.cat([all_[1:], all_.new_zeros(1)])
    up = (after**2 * (all_**2 - after**2) / all_**2).sqrt()
    down = (after**2 - up**2).sqrt()
    down[-1] = 0
    middle = all_.log().lerp(down.log(), 0.5).exp()
    middle[-2:] = 0
    scheduler.sigmas = tables.doubled_at_ends(all_)
    scheduler.sigmas_interpol = tables.doubled_at_ends(middle)
    scheduler.sigmas_up = tables.doubled_at_ends(up)
    scheduler.sigmas_down = tables.doubled_at_ends(down)


STAGES: dict[str, tuple[Refine, bool]] = {
    "HeunDiscreteScheduler": (refined_heun, True),
    "KDPM2DiscreteScheduler": (refined_kdpm2, False),
    "KDPM2AncestralDiscreteScheduler": (refined_kdpm2_ancestral, True),
    "DPMSolverSDEScheduler": (refined_heun, False),
}
"""Of two-stage schedulers: the tables in float64, and where the second evaluation is made.

True is the end of the step: the geometric mean of r and r_down = r_next^2 / r is r_next. False is
the geometric mean of the two levels. The scheduler's own value has its tables' rounding."""


def in_two_stages(run: Run, name: str, own_noise: bool = False) -> Iterator[Tensor]:
    """A scheduler of y = x/alpha with two evaluations a step, in two calls."""
    refine, at_end = STAGES[name]
    scheduler = tables.make(name, **tables.config(run.of))
    tables.along(scheduler, run.steps + 1)
    if run.tables == "float64":
        refine(scheduler, run.of.ratio)
    if own_noise:
        scheduler.noise_sampler = bridged(run)
    alpha, r = run.of.alpha.tolist(), run.of.ratio
    y = run.x / alpha[0]
    times = iter(scheduler.timesteps)
    for i in range(run.steps):
        t = next(times)
        scheduler.scale_model_input(y, t)  # which finds the place of t
        y = run.stepped(scheduler.step, i, run.eps(alpha[i] * y, i), t, y)
        level = r[i + 1] if at_end else (r[i] * r[i + 1]).sqrt()
        y = run.stepped(scheduler.step, i, run.of.eps(run.score, y, float(level)), next(times), y)
        yield alpha[i + 1] * y


def bridged(run: Run) -> Callable[[Tensor, Tensor], Tensor]:
    """The noise sampler of DPMSolverSDEScheduler, asked for half a step and then for the whole."""
    r = run.of.ratio
    halves = iter(range(2 * run.steps))

    def increment(begin: Tensor, end: Tensor) -> Tensor:
        i, whole = divmod(next(halves), 2)
        stop = r[i + 1] if whole else (r[i] * r[i + 1]).sqrt()
        return run.of.increment(run.noise, float(r[i]), float(stop))

    return increment

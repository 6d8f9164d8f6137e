"""Schedulers of flow matching.

    z = x/(alpha + sigma) = (1 - r) x_0 + r eps,    r = sigma/(alpha + sigma)

The model gives the velocity dz/dr = eps - x_0. They take their levels r one by one; the last of
them must be 0, and the step to it is not taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from labcore_diffusers import tables
from labcore_diffusers.runs import Run


def in_flow(run: Run, name: str, sign: float = 1.0, **config: Any) -> Iterator[Tensor]:
    """A scheduler of flow matching; ``sign`` is that of the velocity it asks for."""
    total = run.of.alpha + run.of.sigma
    r = run.of.sigma / total
    scheduler = tables.make(name, **config)
    ended = [*r.tolist(), 0.0] if name in ENDED else r.tolist()
    with tables.quiet():
        scheduler.set_timesteps(sigmas=ended)
    if run.tables == "float64":
        scheduler.sigmas = torch.cat([r, r.new_zeros(1)])
        scheduler.timesteps = 1 - r if name == CLEAN else 1000 * r
    scale = total.tolist()
    z = run.x / scale[0]
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        x = scale[i] * z
        eps = run.eps(x, i)
        x0 = (x - float(run.of.sigma[i]) * eps) / float(run.of.alpha[i])
        z = run.stepped(scheduler.step, i, sign * (eps - x0), t, z)
        yield scale[i + 1] * z


CLEAN = "MiniMaxH3Scheduler"
"""Its time is 1 at the data, and it computes with it."""

ENDED = ("LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler")
"""Those that are given the last level, 0, where the other appends it."""

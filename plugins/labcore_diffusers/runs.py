"""diffusers' schedulers, stepped along the lab's grid by their own ``step``.

    in tables     z = x / sqrt(alpha^2 + sigma^2), which is variance preserving: sqrt(abar) x_0 +
                  sqrt(1 - abar) eps; the model gives eps
    in levels     y = x / alpha at levels r = sigma/alpha; the model gives eps
    in EDM's form y, r, and the model gives F: D = c_skip y + c_out F

Steps end at the grid's last time: final_sigmas_type="sigma_min" where a scheduler has it; else the
grid is all but its last step, to 0, which is not taken. Draws by torch.randn are answered by the
lab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from labcore import Levels, Noise, Process, SamplerError, Score, levels, serving
from labcore_diffusers import tables

Tables = Literal["config", "float64"]


@dataclass(frozen=True, eq=False)
class Run:
    """What a run is given."""

    of: Levels
    score: Score
    x: Tensor
    noise: Noise
    tables: Tables

    @property
    def steps(self) -> int:
        return len(self.of.ts) - 1

    @property
    def scale(self) -> list[float]:
        """sqrt(alpha^2 + sigma^2) along the grid."""
        return torch.hypot(self.of.alpha, self.of.sigma).tolist()

    def eps(self, x: Tensor, i: int) -> Tensor:
        """E[eps | x] at the grid's i-th time."""
        return -float(self.of.sigma[i]) * self.score(x, self.of.ts[i])

    def stepped(self, step: Callable[..., Any], i: int, *args: Any, **kw: Any) -> Tensor:
        """prev_sample of a step whose draws are the lab's over the grid's i-th step."""
        with tables.quiet(), serving(lambda: self.noise(self.of.ts[i], self.of.ts[i + 1])):
            made: Tensor = step(*args, **kw).prev_sample
        return made


def prepared(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, table: Tables
) -> Run:
    return Run(levels(process, ts), score, x, noise, table)


LAST = {"final_sigmas_type": "sigma_min"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
PLAIN = {"clip_sample": False}


def in_table(
    run: Run, name: str, spare: int, config: dict[str, Any], **kw: Any
) -> Iterator[Tensor]:
    """A scheduler that knows times as indices of alphas_cumprod; ``spare`` steps are not taken."""
    scheduler = tables.make(name, **tables.config(run.of), **config)
    if run.tables == "float64":
        tables.refine(scheduler, run.of)
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    tables.along(scheduler, run.steps + spare)
    scale = run.scale
    z = run.x / scale[0]
    for i, t in enumerate(scheduler.timesteps[: run.steps]):
        z = run.stepped(scheduler.step, i, run.eps(scale[i] * z, i), t, z, **kw)
        yield scale[i + 1] * z


def in_sigmas(run: Run, name: str, config: dict[str, Any]) -> Iterator[Tensor]:
    """A scheduler of the same variables whose ``sigmas`` are the levels of its steps."""
    scheduler = tables.make(name, **tables.config(run.of), **config)
    if run.tables == "float64":
        tables.refine(scheduler, run.of)
    tables.along(scheduler, run.steps)
    if run.tables == "float64":
        scheduler.sigmas = run.of.ratio
    scale = run.scale
    z = run.x / scale[0]
    for i, t in enumerate(scheduler.timesteps):
        z = run.stepped(scheduler.step, i, run.eps(scale[i] * z, i), t, z)
        yield scale[i + 1] * z


def ipndm(run: Run) -> Iterator[Tensor]:
    """IPNDMScheduler: its "betas" are sigma and its network is v = (eps - sigma z)/alpha."""
    scale = run.scale
    sigma = run.of.sigma / torch.tensor(scale, dtype=torch.float64)
    scheduler = tables.make("IPNDMScheduler", trained_betas=sigma.tolist())
    tables.along(scheduler, run.steps)
    scheduler.set_begin_index(0)  # by its times, in float32, the first step may be the second
    if run.tables == "float64":
        scheduler.betas = sigma
        scheduler.alphas = run.of.alpha / torch.tensor(scale, dtype=torch.float64)
    z = run.x / scale[0]
    for i, t in enumerate(scheduler.timesteps):
        eps = run.eps(scale[i] * z, i)
        v = (eps - float(sigma[i]) * z) / (float(run.of.alpha[i]) / scale[i])
        z = run.stepped(scheduler.step, i, v, t, z)
        yield scale[i + 1] * z


def pndm(run: Run, skip: bool) -> Iterator[Tensor]:
    """PNDMScheduler on a table that has the middle (in t) of every step as well.

    A state is what the model is asked at last at its time, and what the last step gives.
    """
    if run.steps < (2 if skip else 4):
        raise SamplerError(
            f"sampler 'PNDMScheduler': it needs {2 if skip else 4} steps or more, it was given "
            f"{run.steps}; take more steps"
        )
    ts = run.of.ts
    middle = (ts[1:] + ts[:-1]) / 2
    both = torch.stack([ts[:-1], middle], 1).flatten()
    fine = Run(levels(run.of.process, torch.cat([both, ts[-1:]])), run.score, *_rest(run))
    scheduler = tables.make(
        "PNDMScheduler",
        **tables.config(fine.of),
        skip_prk_steps=skip,
        timestep_spacing="leading",
        steps_offset=2,
        set_alpha_to_one=False,
    )
    if run.tables == "float64":
        tables.refine(scheduler, fine.of)
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    tables.along(scheduler, run.steps)
    scale, seen = fine.scale, dict[int, Tensor]()
    z = run.x / scale[0]
    for t in scheduler.timesteps:
        k = fine.steps - int(t)
        seen[k] = scale[k] * z
        z = fine.stepped(scheduler.step, 0, fine.eps(scale[k] * z, k), int(t), z)
    yield from (seen[k] for k in range(2, fine.steps, 2))
    yield scale[-1] * z


def _rest(run: Run) -> tuple[Tensor, Noise, Tables]:
    return run.x, run.noise, run.tables


def cogvideox_dpm(run: Run) -> Iterator[Tensor]:
    """CogVideoXDPMScheduler, whose step is handed the last x_0 and the last time but one."""
    scheduler = tables.make(
        "CogVideoXDPMScheduler",
        **tables.config(run.of),
        **LEADING,
        **PLAIN,
        set_alpha_to_one=False,
        snr_shift_scale=1.0,
    )
    if run.tables == "float64":
        tables.refine(scheduler, run.of)
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    tables.along(scheduler, run.steps)
    scale, old, times = run.scale, None, scheduler.timesteps
    z = run.x / scale[0]
    for i, t in enumerate(times):
        back = times[i - 1] if i else None
        eps = run.eps(scale[i] * z, i)
        with serving(lambda i=i: run.noise(run.of.ts[i], run.of.ts[i + 1])):  # type: ignore[misc]
            z, old = scheduler.step(eps, old, t, back, z)
        yield scale[i + 1] * z

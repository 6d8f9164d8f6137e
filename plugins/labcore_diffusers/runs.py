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
from functools import partial
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


def on_own_levels(
    run: Run, name: str, data: float, sign: float, own_noise: bool, **config: Any
) -> Iterator[Tensor]:
    """A scheduler of EDM's form that lays its own grid between the ends of the lab's."""
    r = run.of.ratio
    ends = {"sigma_min": float(r[-1]), "sigma_max": float(r[0]), "sigma_data": data}
    scheduler = tables.make(name, **ends, **config)
    tables.along(scheduler, run.steps + 1)
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


def ipndm(run: Run) -> Iterator[Tensor]:
    """IPNDMScheduler: its "betas" are sigma and its network is v = (eps - sigma z)/alpha."""
    scale = run.scale
    sigma = run.of.sigma / torch.tensor(scale, dtype=torch.float64)
    scheduler = tables.make("IPNDMScheduler", trained_betas=sigma.tolist())
    tables.along(scheduler, run.steps)
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

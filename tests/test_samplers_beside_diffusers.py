"""DDIM, ancestral, Heun and Euler agree with diffusers' schedulers, an independent implementation.

Same denoiser, same grid, same noise. The schedulers keep their tables in float32; their steps are
compared at 1e-5 as they come, and at 1e-10 with the tables in float64 where the step allows it.
Where they differ:

- The last step of a scheduler goes to t = 0, where it returns the clean point. Studies refuse such
  a grid, as no score exists at its end; given one, ours return that point too (DDIM at eta=0).
- With timestep_spacing "linspace" or "trailing", and with "leading" where the number of steps does
  not divide 1000, DDIM's step ends at t - 1000 // n and not at the next of its own times: it steps
  on two grids at once (tested below). Only "leading" with a divisor is one grid.
- The defaults clip the clean point to [-1, 1] and, in the discrete Euler and Heun schedulers,
  scale the state by 1/sqrt(1 + sigma^2) before the network; both are off or undone here.
- Heun's scheduler ends with an Euler step to sigma = 0.
- The discrete Euler, ancestral and DPM-Solver schedulers cast the state to float32 at every step.
"""

import warnings
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from labcore import Process, Scalar, Score
from labcore.noise import initial, replay
from labcore_linear import edm
from labcore_samplers import ancestral, ddim, euler, heun

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schedulers = pytest.importorskip("diffusers.schedulers")
    from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete

pytestmark = pytest.mark.filterwarnings("ignore")

F64, ROWS = torch.float64, 64
BETAS = {"num_train_timesteps": 1000, "beta_schedule": "linear", "clip_sample": False}
MEAN, SPREAD = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.3, 1.2], dtype=F64)

LOOSE, TIGHT = {"rtol": 1e-5, "atol": 1e-5}, {"rtol": 1e-10, "atol": 1e-10}
precision = pytest.mark.parametrize(
    ("tables", "close"), [(torch.float32, LOOSE), (F64, TIGHT)], ids=["float32", "float64"]
)
steps_and_precision = pytest.mark.parametrize(
    ("n", "tables", "close"),
    [(5, torch.float32, LOOSE), (50, torch.float32, LOOSE), (50, F64, TIGHT), (1000, F64, TIGHT)],
    ids=["5 steps float32", "50 steps float32", "50 steps float64", "1000 steps float64"],
)


def data_score(alpha: Any, variance: Any, x: Tensor) -> Tensor:
    """The exact score of data N(MEAN, diag SPREAD) at the signal and noise given."""
    return (alpha * MEAN - x) / (alpha**2 * SPREAD + variance)


def cast(scheduler: Any, dtype: torch.dtype) -> Any:
    """The scheduler's tables in another precision."""
    for name in ("alphas_cumprod", "final_alpha_cumprod", "one", "sigmas"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).to(dtype))
    return scheduler


def discrete_vp(alphas_cumprod: Tensor) -> Process:
    """The process of a table of abar, at times t = (index + 1)/1000, and t = 0 for the data."""
    table = torch.cat([torch.ones(1, dtype=F64), alphas_cumprod.double()])

    def abar(t: Tensor) -> Tensor:
        return table[(1000 * t).round().long()]

    def rate(t: Tensor) -> Scalar:
        raise AssertionError("exponential steps need no rates")

    return Process(
        A=rate,
        G=rate,
        Phi=lambda t, s: Scalar((abar(t) / abar(s)).sqrt()),
        Sigma=lambda t: Scalar(1 - abar(t)),
        closed_Q=lambda t, s: Scalar(1 - abar(t) / abar(s)),
        T=1.0,
        t_eps=1e-3,
    )


def vp_score(process: Process) -> Score:
    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha = process.Phi(t, torch.zeros_like(t)).param
        return data_score(alpha, 1 - alpha**2, x)

    return score


def start(scale: float = 1.0) -> Tensor:
    return scale * initial([0], ROWS, (2,), dtype=F64)


def draws(n: int) -> Tensor:
    return initial([0], n * ROWS, (2,), name="draws", dtype=F64).reshape(n, ROWS, 2)


def eps_of(scheduler: Any, index: int, x: Tensor) -> Tensor:
    """The network: eps = -sigma score at one of the 1000 indices."""
    abar = scheduler.alphas_cumprod[index].double()
    return -((1 - abar) ** 0.5) * data_score(abar**0.5, 1 - abar, x)


def compare(ours: Iterable[Tensor], theirs: list[Tensor], close: dict[str, float]) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(
            b.double(), a, **close, msg=lambda text, i=i: f"step {i}: {text}"
        )


@steps_and_precision
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(eta: float, n: int, tables: torch.dtype, close: dict[str, float]) -> None:
    scheduler = schedulers.DDIMScheduler(**BETAS, timestep_spacing="leading")
    scheduler.set_timesteps(n)
    cast(scheduler, tables)
    process, z, x = discrete_vp(scheduler.alphas_cumprod), draws(n), start()
    ts = torch.cat([scheduler.timesteps + 1, torch.zeros(1)]).double() / 1000
    last = None if eta == 0 else -1
    ours = list(ddim(process, vp_score(process), x, ts, replay(z), eta=eta))[:last]
    theirs = []
    for i, t in enumerate(scheduler.timesteps):
        eps = eps_of(scheduler, int(t), x)
        x = scheduler.step(eps, int(t), x, eta=eta, variance_noise=z[i]).prev_sample
        theirs.append(x)
    compare(ours, theirs[:last], close)


@steps_and_precision
def test_ancestral_is_ddpm(
    n: int, tables: torch.dtype, close: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """variance_type "fixed_small", beta-tilde, is the scheduler's default."""
    scheduler = schedulers.DDPMScheduler(**BETAS, timestep_spacing="leading")
    scheduler.set_timesteps(n)
    cast(scheduler, tables)
    process, z, x = discrete_vp(scheduler.alphas_cumprod), draws(n), start()
    ts = torch.cat([scheduler.timesteps + 1, torch.zeros(1)]).double() / 1000
    ours = ancestral(process, vp_score(process), x, ts, replay(z))
    waiting = iter(z)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(waiting))
    theirs = []
    for t in scheduler.timesteps:
        x = scheduler.step(eps_of(scheduler, int(t), x), int(t), x).prev_sample
        theirs.append(x)
    compare(ours, theirs, close)


@pytest.mark.parametrize(
    ("spacing", "n"), [("linspace", 50), ("trailing", 30), ("leading", 30), ("leading", 50)]
)
def test_ddim_of_diffusers_steps_to_another_time_than_its_next(spacing: str, n: int) -> None:
    """Its own two grids agree for "leading" with a divisor of 1000 only."""
    scheduler = schedulers.DDIMScheduler(**BETAS, timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    times = scheduler.timesteps.tolist()
    ends = [t - 1000 // n for t in times]
    one_grid = all(end == later for end, (_, later) in zip(ends, pairwise(times), strict=False))
    assert one_grid == (spacing == "leading")
    t, end = times[3], ends[3]
    x = start()
    theirs = scheduler.step(eps_of(scheduler, t, x), t, x).prev_sample
    process = discrete_vp(scheduler.alphas_cumprod)
    ts = torch.tensor([t + 1, end + 1], dtype=F64) / 1000
    (ours,) = ddim(process, vp_score(process), x, ts, replay(draws(1)))
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-5)


def ve_score(x: Tensor, t: Tensor) -> Tensor:
    return data_score(1.0, t**2, x)


def sigma_run(scheduler: Any, n: int, tables: torch.dtype) -> tuple[Any, Tensor, Tensor]:
    """The scheduler ready to run, its noise levels without repeats, and the last one, 0, left."""
    scheduler.set_timesteps(n)
    scheduler.sigmas = scheduler.sigmas.to(tables)
    levels = scheduler.sigmas.double().unique().flip(0)
    return scheduler, levels, start(float(levels[0]))


def drive(scheduler: Any, x: Tensor, **how: Any) -> list[Tensor]:
    """Every state of a scheduler in sigma, the network given as eps at its own level."""
    states = []
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = scheduler.sigmas[scheduler.step_index].double()
        eps = -sigma * ve_score(x, sigma)
        x = scheduler.step(eps, t, x, **how).prev_sample
        states.append(x)
    return states


SIGMA = {k: v for k, v in BETAS.items() if k != "clip_sample"}


@precision
@pytest.mark.parametrize("karras", [False, True], ids=["linear", "karras"])
def test_heun(karras: bool, tables: torch.dtype, close: dict[str, float]) -> None:
    made = schedulers.HeunDiscreteScheduler(**SIGMA, use_karras_sigmas=karras)
    scheduler, levels, x = sigma_run(made, 30, tables)
    theirs = drive(scheduler, x)[1::2]
    compare(heun(edm(), ve_score, x, levels[:-1], replay(draws(1))), theirs, close)


def test_euler() -> None:
    scheduler, levels, x = sigma_run(schedulers.EulerDiscreteScheduler(**SIGMA), 30, torch.float32)
    theirs = drive(scheduler, x)[:-1]
    compare(euler(edm(), ve_score, x, levels[:-1], replay(draws(1))), theirs, LOOSE)
    # On x_t = x_0 + t eps Euler's step and DDIM's are one.
    compare(ddim(edm(), ve_score, x, levels[:-1], replay(draws(1))), theirs, LOOSE)


def test_ancestral_on_the_sigma_process_is_euler_ancestral(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = schedulers.EulerAncestralDiscreteScheduler(**SIGMA)
    scheduler, levels, x = sigma_run(made, 30, torch.float32)
    z = draws(30)
    waiting = iter(z)
    monkeypatch.setattr(
        scheduling_euler_ancestral_discrete, "randn_tensor", lambda *_, **__: next(waiting)
    )
    theirs = drive(scheduler, x)[:-1]
    compare(ancestral(edm(), ve_score, x, levels[:-1], replay(z)), theirs, LOOSE)


def test_euler_on_edm_with_its_preconditioning() -> None:
    made = schedulers.EDMEulerScheduler(sigma_data=0.5)
    scheduler, levels, x = sigma_run(made, 18, torch.float32)
    first, theirs = x, []
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = scheduler.sigmas[scheduler.step_index].double()
        D = x + sigma**2 * ve_score(x, sigma)
        skip = 0.25 / (sigma**2 + 0.25)
        F = (D - skip * x) / (0.5 * sigma / (sigma**2 + 0.25) ** 0.5)
        x = scheduler.step(F, t, x).prev_sample
        theirs.append(x)
    compare(euler(edm(), ve_score, first, levels[:-1], replay(draws(1))), theirs[:-1], LOOSE)


SOLVERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "dpmsolver++": (ddim, {}),
    "dpmsolver": (ddim, {}),
    "sde-dpmsolver++": (ancestral, {}),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_dpm_solver_of_order_1_is_ddim_and_its_sde_form_is_ancestral(
    name: str,
) -> None:
    scheduler = schedulers.DPMSolverMultistepScheduler(
        **SIGMA, solver_order=1, algorithm_type=name, final_sigmas_type="sigma_min"
    )
    n = 40
    scheduler.set_timesteps(n)
    levels = scheduler.sigmas.double()
    abar = 1 / (1 + levels[:-1].square())
    # The scheduler's levels are interpolated; give the process its own, at i/1000 from the end.
    table = torch.zeros(1000, dtype=F64)
    table[:n] = abar.flip(0)
    process, z, x = discrete_vp(table), draws(n), start()
    ts = torch.arange(n, 0, -1, dtype=F64) / 1000
    sampler, options = SOLVERS[name]
    ours = sampler(process, vp_score(process), x, ts, replay(z), **options)
    theirs = []
    for i, t in enumerate(scheduler.timesteps[:-1]):
        a = abar[i]
        eps = -((1 - a) ** 0.5) * data_score(a**0.5, 1 - a, x)
        x = scheduler.step(eps, t, x, variance_noise=z[i]).prev_sample
        theirs.append(x)
    compare(ours, theirs, LOOSE)

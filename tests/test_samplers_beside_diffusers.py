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

from labcore import Process, Scalar, Score, counted
from labcore.noise import initial, replay
from labcore_linear import edm, rectified_flow
from labcore_samplers import ancestral, ddim, euler, heun, predictor_corrector

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schedulers = pytest.importorskip("diffusers.schedulers")
    from diffusers.schedulers import (
        scheduling_ddpm,
        scheduling_ddpm_wuerstchen,
        scheduling_euler_ancestral_discrete,
        scheduling_ltx_euler_ancestral_rf,
        scheduling_sde_ve,
        scheduling_unclip,
    )

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


def flow_levels() -> Tensor:
    return torch.linspace(0.95, 0.05, 20, dtype=F64)


def flow_score(x: Tensor, t: Tensor) -> Tensor:
    return data_score(1 - t, t**2, x)


def flow_velocity(x: Tensor, t: Tensor) -> Tensor:
    """eps - x0, which the networks of these schedulers give."""
    eps = -t * flow_score(x, t)
    return eps - (x - t * eps) / (1 - t)


def set_to_flow(scheduler: Any, each: int = 1) -> Any:
    """The levels without their last step to 0, ``each`` evaluations at each but the first."""
    levels = flow_levels()
    scheduler.set_timesteps(len(levels))
    ends = levels[1:].repeat_interleave(each)
    scheduler.sigmas = torch.cat([levels[:1], ends, torch.zeros(1, dtype=F64)])
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    return scheduler


def test_flow_matching_euler_is_euler_on_the_rectified_flow() -> None:
    scheduler, x = set_to_flow(schedulers.FlowMatchEulerDiscreteScheduler()), start()
    first, theirs = x, []
    for i, t in enumerate(flow_levels()[:-1]):
        scheduler._step_index = i
        x = scheduler.step(flow_velocity(x, t), scheduler.timesteps[i], x).prev_sample.double()
        theirs.append(x)
    compare(euler(rectified_flow(), flow_score, first, flow_levels(), replay(x)), theirs, LOOSE)


def test_flow_matching_heun_is_heun_on_the_rectified_flow() -> None:
    scheduler, x = set_to_flow(schedulers.FlowMatchHeunDiscreteScheduler(), 2), start()
    levels, first, theirs = flow_levels(), x, []
    scheduler._step_index = 0
    for t, s in pairwise(levels):
        x = scheduler.step(flow_velocity(x, t), scheduler.timesteps[0], x).prev_sample.double()
        x = scheduler.step(flow_velocity(x, s), scheduler.timesteps[0], x).prev_sample.double()
        theirs.append(x)
    compare(heun(rectified_flow(), flow_score, first, levels, replay(x)), theirs, LOOSE)


@pytest.mark.parametrize("name", ["LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"])
def test_flow_blends_of_x_and_x0_without_noise_are_ddim_on_the_rectified_flow(name: str) -> None:
    """(s/t) x_t + (1 - s/t) x0, which is Euler's step too: x is linear in t where x0 is held."""
    options = {"eta": 0.0} if name.startswith("LTX") else {}
    sign = 1.0 if options else -1.0  # MiniMax-H3's network gives x0 - eps at 1 - t
    scheduler, x, levels = getattr(schedulers, name)(**options), start(), flow_levels()
    scheduler.set_timesteps(len(levels))
    scheduler.sigmas, first, theirs = levels, x, []
    for i, t in enumerate(levels[:-1]):
        scheduler._step_index = i
        at = t if options else 1 - t
        x = scheduler.step(sign * flow_velocity(x, t), at, x).prev_sample.double()
        theirs.append(x)
    for ours in (ddim, euler):
        compare(ours(rectified_flow(), flow_score, first, levels, replay(x)), theirs, LOOSE)


def test_ltx_s_ancestral_step_is_ddim_s_with_its_own_share_of_noise() -> None:
    """From t to s: the flow down to s^2/t, then up to s: ancestral in t, not in sigma/alpha."""
    process, x, z = rectified_flow(), start(), draws(1)
    made = schedulers.LTXEulerAncestralRFScheduler(eta=1.0)
    levels = torch.tensor([0.8, 0.6], dtype=F64)
    made.set_timesteps(2)
    made.sigmas, made._step_index = levels, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_ltx_euler_ancestral_rf, "randn_tensor", lambda *_, **__: z[0])
        got = made.step(flow_velocity(x, levels[0]), levels[0], x).prev_sample.double()
    down = torch.tensor([0.8, 0.36 / 0.8], dtype=F64)
    (y,) = ddim(process, flow_score, x, down, replay(z))
    ratio = (1 - levels[1]) / (1 - down[1])
    wanted = ratio * y + (levels[1] ** 2 - (ratio * down[1]) ** 2).sqrt() * z[0]
    torch.testing.assert_close(got, wanted, **LOOSE)
    (ours,) = ancestral(process, flow_score, x, levels, replay(z))
    assert float((got - ours).abs().max()) > 1e-2


def test_unclip_is_ancestral(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = cast(schedulers.UnCLIPScheduler(clip_sample=False, prediction_type="epsilon"), F64)
    scheduler.betas, scheduler.alphas = scheduler.betas.double(), scheduler.alphas.double()
    process, z, x = discrete_vp(scheduler.alphas_cumprod), draws(20), start()
    times = [*range(900, 0, -45), 0]
    waiting = iter(z)
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", lambda *_, **__: next(waiting))
    ts = (torch.tensor(times, dtype=F64) + 1) / 1000
    ours = ancestral(process, vp_score(process), x, ts, replay(z))
    theirs = []
    for t, s in pairwise(times):
        x = scheduler.step(eps_of(scheduler, t, x), t, x, prev_timestep=s).prev_sample
        theirs.append(x)
    compare(ours, theirs, LOOSE)


def test_wuerstchen_is_ancestral_on_its_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, z, x = schedulers.DDPMWuerstchenScheduler(), draws(20), start()
    ts = torch.linspace(0.95, 0.05, 21, dtype=F64)
    scheduler.set_timesteps(timesteps=ts)
    waiting = iter(z)
    monkeypatch.setattr(scheduling_ddpm_wuerstchen, "randn_tensor", lambda *_, **__: next(waiting))

    def abar(t: Tensor) -> Tensor:
        of: Tensor = scheduler._alpha_cumprod(t.reshape(-1), "cpu").reshape(t.shape)
        return torch.where(t == 0, torch.ones_like(of), of)

    process = Process(
        A=lambda t: Scalar(t),
        G=lambda t: Scalar(t),
        Phi=lambda t, s: Scalar((abar(t) / abar(s)).sqrt()),
        Sigma=lambda t: Scalar(1 - abar(t)),
        closed_Q=lambda t, s: Scalar(1 - abar(t) / abar(s)),
        T=1.0,
        t_eps=1e-3,
    )
    ours = ancestral(process, vp_score(process), x, ts, replay(z))
    theirs = []
    for t in ts[:-1]:
        a = abar(t)
        eps = -((1 - a) ** 0.5) * data_score(a**0.5, 1 - a, x)
        x = scheduler.step(eps, t.expand(ROWS), x).prev_sample
        theirs.append(x)
    compare(ours, theirs, LOOSE)


def test_song_s_ve_predictor_has_ancestral_s_mean_and_more_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its noise is sqrt(sigma_t^2 - sigma_s^2), the posterior's sigma_s / sigma_t of that."""
    scheduler = schedulers.ScoreSdeVeScheduler(num_train_timesteps=20, sigma_max=50.0)
    scheduler.set_timesteps(20)
    scheduler.set_sigmas(20)
    z, x = draws(1), start(50.0)
    monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", lambda *_, **__: z[0])
    i = 12
    levels = scheduler.discrete_sigmas.double()
    at = torch.stack([levels[i], levels[i - 1]])
    t = torch.tensor(i / 19 + 1e-6)
    made = scheduler.step_pred(ve_score(x, at[0]), t, x)
    (mean,) = ancestral(edm(), ve_score, x, at, replay(0 * z))
    (ours,) = ancestral(edm(), ve_score, x, at, replay(z))
    torch.testing.assert_close(made.prev_sample_mean.double(), mean, **LOOSE)
    noise = (made.prev_sample - made.prev_sample_mean).double()
    torch.testing.assert_close(noise * at[1] / at[0], ours - mean, rtol=1e-4, atol=1e-4)


def test_song_s_ve_corrector_is_ours_on_a_batch_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """e = 2 (r |z| / |g|)^2; over a batch it takes the mean of the norms, which couples rows."""
    scheduler = schedulers.ScoreSdeVeScheduler(snr=0.16)
    scheduler.set_timesteps(20)
    z = draws(2)[:, :1]
    monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", lambda *_, **__: z[0])
    ts = torch.tensor([2.0, 1.0], dtype=F64)
    (x,) = ancestral(edm(), ve_score, start()[:1], ts, replay(z[:1]))
    theirs = scheduler.step_correct(ve_score(x, ts[1]), x).prev_sample
    corrected = predictor_corrector(
        edm(), counted(ve_score, 1), start()[:1], ts, replay(torch.stack([z[0], z[0]])), r=0.16
    )
    (ours,) = corrected
    torch.testing.assert_close(ours, theirs.double(), **LOOSE)

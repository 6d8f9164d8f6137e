"""The same sampling by diffusion libraries: k-diffusion, diffusers and azula; see peers.py."""

import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from peers import ANCESTRAL, FIRST, M, Runner, V, metered, quiet
from torch import Tensor

VISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@cache
def k_diffusion_sampling() -> Any:
    """k_diffusion.sampling alone.

    The package imports torchvision, clip and wandb at its top, none of which sampling needs, so
    its __init__ is stepped past and torchvision's transforms are empty modules meanwhile.
    """
    spec = find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("k-diffusion: pip install --no-deps k-diffusion")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    stubs = _, transforms, functional = [ModuleType(name) for name in VISION]
    transforms.functional = functional  # type: ignore[attr-defined]
    absent = {stub.__name__: stub for stub in stubs if stub.__name__ not in sys.modules}
    sys.modules.update({"k_diffusion": package, **absent})
    try:
        return quiet("k_diffusion.sampling")
    finally:
        for name in absent:
            del sys.modules[name]


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"samplers:{name}" for name in names)


# name, samplers of ours, draws a step, options
K_DIFFUSION: tuple[tuple[str, tuple[str, ...], int, dict[str, Any]], ...] = (
    ("euler", ours("euler", "ddim") + FIRST, 0, {}),
    ("heun", ours("heun", "edm_heun"), 0, {}),
    ("heun", ours("edm_churn"), 1, {"s_churn": 40.0}),
    ("dpm_2", ours("dpm_2"), 0, {}),
    ("lms", ours("lms", "lms4"), 0, {}),
    ("lms", ours("lms2"), 0, {"order": 2}),
    ("lms", ours("lms3"), 0, {"order": 3}),
    ("dpmpp_2m", ours("dpmpp_2m"), 0, {}),
    ("dpmpp_2s_ancestral", ours("dpmpp_2s"), 0, {"eta": 0.0}),
    ("euler_ancestral", ANCESTRAL, 1, {}),
    ("dpmpp_2m_sde", ours("sde_dpmpp_2m"), 1, {}),
    ("dpmpp_3m_sde", ours("sde_dpmpp_3m"), 1, {}),
    ("dpmpp_sde", ours("sde_dpmpp_2s"), 2, {}),
)


def k_diffusion(x: Tensor, n: int) -> Iterator[Runner]:
    """Karras et al.'s form: a denoiser of x_0 + sigma eps, sigma from 80 to 0.002.

    Its SDE methods run with fresh normals, and once as they come, with torchsde's Brownian tree.
    """
    sampling = k_diffusion_sampling()
    sigmas = sampling.get_sigmas_karras(n, 0.002, 80.0)[:-1]
    sigmas = torch.cat([sigmas, sigmas[-1:] * 0.9])
    start = 80.0 * x

    @metered
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s2 = (sigma * sigma).reshape(-1, 1)
        return (V * x + s2 * M) / (V + s2)

    levels = [sigma * start.new_ones(len(start)) for sigma in sigmas[:-1]]  # as it calls

    def bare() -> Iterator[object]:
        for sigma in levels:
            yield denoise(start, sigma)

    def fresh(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return torch.randn_like(start)

    def runner(name: str, same: tuple[str, ...], draws: int, **options: Any) -> Runner:
        said = [f"{k}={v:g}" for k, v in options.items() if k != "noise_sampler"]
        who = f"k-diffusion, {name}" + (f"({', '.join(said)})" if said else "")
        sample = getattr(sampling, f"sample_{name}")
        return Runner(
            who,
            partial(sample, denoise, start, sigmas, disable=True, **options),
            bare,
            same,
            draws * n,
        )

    for name, same, draws, options in K_DIFFUSION:
        with_fresh = {"noise_sampler": fresh} if name.endswith("sde") else {}
        yield runner(name, same, draws, **options, **with_fresh)
    tree = runner("dpmpp_2m_sde", ("samplers:sde_dpmpp_2m",), 1)
    yield Runner(f"{tree.who} with its tree", tree.run, bare, tree.same, tree.draws)
    fast = partial(sampling.sample_dpm_fast, denoise, start, 0.002, 80.0, 3 * n, disable=True)
    yield Runner("k-diffusion, dpm_fast", fast, bare, ours("dpm_solver_3"))


MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
PLUS, SDE = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++"}
PLAIN = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}

# class, samplers of ours, draws a step, options
DIFFUSERS: tuple[tuple[str, tuple[str, ...], int, dict[str, Any]], ...] = (
    ("DDIMScheduler", ours("ddim"), 0, {"clip_sample": False}),
    ("DDPMScheduler", ANCESTRAL, 1, {"clip_sample": False}),
    ("EulerDiscreteScheduler", ours("euler"), 0, {}),
    ("EulerAncestralDiscreteScheduler", ANCESTRAL, 1, {}),
    ("HeunDiscreteScheduler", ours("heun", "edm_heun"), 0, {}),
    ("KDPM2DiscreteScheduler", ours("dpm_2"), 0, {}),
    ("LMSDiscreteScheduler", ours("lms", "lms4"), 0, {}),
    ("PNDMScheduler", ours("pndm"), 0, {}),
    ("PNDMScheduler", ours("plms"), 0, {"skip_prk_steps": True}),
    ("DEISMultistepScheduler", ours("deis_tab1", "deis_rhoab1"), 0, {"solver_order": 2}),
    ("DEISMultistepScheduler", ours("deis_tab2", "deis_rhoab2"), 0, {"solver_order": 3}),
    ("UniPCMultistepScheduler", ours("unipc_1"), 0, {"solver_order": 1}),
    ("UniPCMultistepScheduler", ours("unipc_2"), 0, {"solver_order": 2}),
    ("UniPCMultistepScheduler", ours("unipc_3"), 0, {"solver_order": 3}),
    (MULTI, ours("dpm_solver_1"), 0, {**PLAIN, "solver_order": 1}),
    (MULTI, ours("dpm_solver_2m"), 0, {**PLAIN, "solver_order": 2}),
    (MULTI, ours("dpm_solver_3m"), 0, {**PLAIN, "solver_order": 3}),
    (MULTI, ours("dpmpp_1m"), 0, {**PLUS, "solver_order": 1}),
    (MULTI, ours("dpmpp_2m"), 0, {**PLUS, "solver_order": 2}),
    (MULTI, ours("dpmpp_3m"), 0, {**PLUS, "solver_order": 3}),
    (MULTI, ours("sde_dpmpp_1"), 1, {**SDE, "solver_order": 1}),
    (MULTI, ours("sde_dpmpp_2m"), 1, {**SDE, "solver_order": 2}),
    (MULTI, ours("sde_dpmpp_3m"), 1, {**SDE, "solver_order": 3}),
    (SINGLE, ours("dpm_solver_2"), 0, {**PLAIN, "solver_order": 2}),
    (SINGLE, ours("dpm_solver_3"), 0, {**PLAIN, "solver_order": 3}),
    (SINGLE, ours("dpmpp_2s"), 0, {**PLUS, "solver_order": 2}),
    (SINGLE, ours("dpmpp_3s"), 0, {**PLUS, "solver_order": 3}),
)


def diffusers(x: Tensor, n: int) -> Iterator[Runner]:
    """Schedulers, the network giving eps at their own times."""
    schedulers = quiet("diffusers.schedulers")
    quiet("diffusers.utils.logging").set_verbosity_error()  # each set-up is told

    @metered
    def eps(x: Tensor, abar: Tensor) -> Tensor:
        return (x - abar.sqrt() * M) * ((1 - abar).sqrt() / (abar * V + (1 - abar)))

    def runner(name: str, same: tuple[str, ...], draws: int, **options: Any) -> Runner:
        scheduler = getattr(schedulers, name)(beta_schedule="linear", **options)
        scheduler.set_timesteps(n)
        levels = [scheduler.alphas_cumprod[round(float(t))] for t in scheduler.timesteps]
        start = x * getattr(scheduler, "init_noise_sigma", 1.0)

        def run() -> Tensor:
            scheduler.set_timesteps(n)
            y = start
            for t, abar in zip(scheduler.timesteps, levels, strict=True):
                y = scheduler.step(eps(scheduler.scale_model_input(y, t), abar), t, y).prev_sample
            return y

        def bare() -> Iterator[object]:
            for abar in levels:
                yield eps(x, abar)

        said = [str(v) for k, v in options.items() if k in ("algorithm_type", "solver_order")]
        said += ["plms"] * ("skip_prk_steps" in options)
        who = f"diffusers, {name.removesuffix('Scheduler')}" + (
            f"({' '.join(said)})" if said else ""
        )
        return Runner(who, run, bare, same, draws * n)

    for name, same, draws, options in DIFFUSERS:
        yield runner(name, same, draws, **options)
    yield ipndm(schedulers.IPNDMScheduler(), x, n)
    yield score_sde_ve(schedulers.ScoreSdeVeScheduler(sigma_max=80.0, snr=0.16), x, n)


def ipndm(scheduler: Any, x: Tensor, n: int) -> Runner:
    """diffusers' iPNDM has a schedule of its own, alpha = cos(pi t/2), and wants v."""
    scheduler.set_timesteps(n)

    @metered
    def v(x: Tensor, t: Tensor) -> Tensor:
        a, s = torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)
        return (a * s * (1 - V) * x - s * M) / (a * a * V + s * s)

    def run() -> Tensor:
        scheduler.set_timesteps(n)
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(v(y, t), t, y).prev_sample
        return y

    def bare() -> Iterator[object]:
        for t in scheduler.timesteps:
            yield v(x, t)

    return Runner("diffusers, IPNDM", run, bare, ours("ipndm"))


def score_sde_ve(scheduler: Any, x: Tensor, n: int) -> Runner:
    """Its predictor-corrector by the signal-to-noise rule, on its own levels."""
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    start, levels = x * scheduler.init_noise_sigma, list(scheduler.sigmas)

    @metered
    def score(x: Tensor, sigma: Tensor) -> Tensor:
        return (M - x) / (V + sigma * sigma)

    def run() -> Tensor:
        scheduler.set_timesteps(n)
        scheduler.set_sigmas(n)
        y = start
        for t, sigma in zip(scheduler.timesteps, levels, strict=True):
            y = scheduler.step_correct(score(y, sigma), y).prev_sample
            y = scheduler.step_pred(score(y, sigma), t, y).prev_sample
        return y

    def bare() -> Iterator[object]:
        for sigma in levels:
            yield score(x, sigma)

    return Runner("diffusers, ScoreSdeVe", run, bare, ours("predictor_corrector"), 2 * n)


# class, samplers of ours, draws a step, options; xEABSampler(3) misses the law of the data
AZULA: tuple[tuple[str, tuple[str, ...], int, dict[str, Any]], ...] = (
    ("EulerSampler", ours("euler"), 0, {}),
    ("HeunSampler", ours("heun", "edm_heun"), 0, {}),
    ("DDIMSampler", ours("ddim") + FIRST, 0, {}),
    ("DDPMSampler", ANCESTRAL, 1, {}),
    ("zABSampler", ours("deis_rhoab1"), 0, {"order": 2}),
    ("zABSampler", ours("deis_rhoab2"), 0, {"order": 3}),
    ("zABSampler", ours("deis_rhoab3"), 0, {"order": 4}),
    ("zEABSampler", ours("dpm_solver_2m"), 0, {"order": 2}),
    ("zEABSampler", ours("dpm_solver_3m"), 0, {"order": 3}),
    ("xEABSampler", ours("dpmpp_2m"), 0, {"order": 2}),
    ("PCSampler", ours("predictor_corrector(predictor=ddim, corrector=fixed)"), 1, {}),
)


def azula(x: Tensor, n: int) -> Iterator[Runner]:
    """Its samplers on its VP schedule, with a closed-form denoiser."""
    sample, noise, denoise = (quiet(f"azula.{name}") for name in ("sample", "noise", "denoise"))

    @metered
    def posterior(schedule: Callable[[Tensor], Any], x: Tensor, t: Tensor) -> Any:
        a, s = schedule(t)
        return denoise.DiracPosterior((s * s * M + (a * V) * x) / (a * a * V + s * s))

    class Exact(denoise.Denoiser):  # type: ignore[name-defined]
        schedule = noise.VPSchedule(alpha_min=6.5e-3)

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return posterior(self.schedule, x, t)

    net = Exact()
    times = torch.linspace(1, 0, n + 1)[:-1].unbind()

    def bare() -> Iterator[object]:
        for t in times:
            yield net(x, t)

    for name, same, draws, options in AZULA:
        sampler = getattr(sample, name)(net, steps=n, silent=True, **options)
        said = f"({options['order']})" if options else ""
        yield Runner(f"azula, {name}{said}", partial(sampler, x), bare, same, draws * n)

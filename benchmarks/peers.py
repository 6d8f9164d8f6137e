"""The same sampling by other libraries and by hand, to be run beside ours.

Data N(m, v I) under VP; every library gets the exact network in its own terms, written as plainly
as the library allows, and its own idea of the same schedule and number of steps. Only this folder
imports these libraries; one that is not installed is left out.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

B0, B1, V = 0.1, 20.0, 0.25
M = torch.tensor([1.0, -1.0])


@dataclass(frozen=True)
class Runner:
    """``run`` samples from x_T; ``bare`` calls the same network once a step, and does no more."""

    who: str
    run: Callable[[], Tensor]
    bare: Callable[[], object]
    stochastic: bool = False
    evals: int = 1


def score(x: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(x) = (alpha m - x)/(alpha^2 v + sigma^2), VP with linear beta."""
    a2 = torch.exp(-(B0 * t + (B1 - B0) / 2 * t * t))
    return (a2.sqrt() * M - x) / (a2 * V + (1 - a2))


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


VISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def quiet(name: str) -> Any:
    """The module ``name``, imported without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def by_hand(x: Tensor, ts: Tensor) -> Iterator[Runner]:
    """The loops one writes: float64 times, the formulas as in the papers."""
    times = ts.unbind()

    def beta(t: Tensor) -> Tensor:
        return B0 + (B1 - B0) * t

    def v(x: Tensor, t: Tensor) -> Tensor:
        return -0.5 * beta(t) * (x + score(x, t))

    def euler(x: Tensor = x) -> Tensor:
        for i in range(len(ts) - 1):
            x = x + (ts[i + 1] - ts[i]) * v(x, ts[i])
        return x

    def heun(x: Tensor = x) -> Tensor:
        for i in range(len(ts) - 1):
            h = ts[i + 1] - ts[i]
            d = v(x, ts[i])
            x = x + h / 2 * (d + v(x + h * d, ts[i + 1]))
        return x

    def ddim(x: Tensor = x) -> Tensor:
        abar = torch.exp(-(B0 * ts + (B1 - B0) / 2 * ts**2))
        for i in range(len(ts) - 1):
            eps = -((1 - abar[i]) ** 0.5) * score(x, ts[i])
            x0 = (x - (1 - abar[i]) ** 0.5 * eps) / abar[i] ** 0.5
            x = abar[i + 1] ** 0.5 * x0 + (1 - abar[i + 1]) ** 0.5 * eps
        return x

    def maruyama(x: Tensor = x) -> Tensor:
        for i in range(len(ts) - 1):
            h, b = ts[i] - ts[i + 1], beta(ts[i])
            x = x + h * (0.5 * b * x + b * score(x, ts[i])) + (b * h) ** 0.5 * torch.randn_like(x)
        return x

    def bare() -> None:
        for t in times[:-1]:
            score(x, t)

    yield Runner("by hand, Euler", euler, bare)
    yield Runner("by hand, DDIM", ddim, bare)
    yield Runner("by hand, Heun", heun, bare, evals=2)
    yield Runner("by hand, Euler-Maruyama", maruyama, bare, stochastic=True)


def k_diffusion(x: Tensor, n: int) -> Iterator[Runner]:
    """Karras et al.'s form: a denoiser of x_0 + sigma eps, sigma from 80 to 0.002."""
    sampling = k_diffusion_sampling()
    sigmas = sampling.get_sigmas_karras(n, 0.002, 80.0)[:-1]
    sigmas = torch.cat([sigmas, sigmas[-1:] * 0.9])
    start = 80.0 * x

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s2 = (sigma * sigma).reshape(-1, 1)
        return (V * x + s2 * M) / (V + s2)

    levels = sigmas[:-1].unbind()

    def bare() -> None:
        for sigma in levels:
            denoise(start, sigma)

    def runner(name: str, stochastic: bool = False, evals: int = 1) -> Runner:
        sample = getattr(sampling, f"sample_{name}")
        who = f"k-diffusion, {name}"
        run = lambda: sample(denoise, start, sigmas, disable=True)  # noqa: E731
        return Runner(who, run, bare, stochastic, evals)

    yield runner("euler")
    yield runner("heun", evals=2)
    yield runner("euler_ancestral", stochastic=True)
    yield runner("dpmpp_2m_sde", stochastic=True)  # its noise is torchsde's Brownian tree


def diffusers(x: Tensor, n: int) -> Iterator[Runner]:
    """Schedulers, the network giving eps at their own times."""
    schedulers = quiet("diffusers.schedulers")

    def eps(x: Tensor, abar: Tensor) -> Tensor:
        return (x - abar.sqrt() * M) * ((1 - abar).sqrt() / (abar * V + (1 - abar)))

    def runner(name: str, stochastic: bool = False, evals: int = 1, **options: Any) -> Runner:
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

        def bare() -> None:
            for abar in levels[:n]:
                eps(x, abar)

        return Runner(f"diffusers, {name}", run, bare, stochastic, evals)

    yield runner("DDIMScheduler", clip_sample=False)
    yield runner("HeunDiscreteScheduler", evals=2)
    yield runner("DDPMScheduler", stochastic=True, clip_sample=False)


def azula(x: Tensor, n: int) -> Iterator[Runner]:
    """Its samplers on its VP schedule, with a closed-form denoiser."""
    sample, noise, denoise = (quiet(f"azula.{name}") for name in ("sample", "noise", "denoise"))

    class Exact(denoise.Denoiser):  # type: ignore[name-defined]
        schedule = noise.VPSchedule(alpha_min=6.5e-3)

        def forward(self, x: Tensor, t: Tensor) -> Any:
            a, s = self.schedule(t)
            return denoise.DiracPosterior((s * s * M + (a * V) * x) / (a * a * V + s * s))

    net = Exact()
    times = torch.linspace(1, 0, n + 1)[:-1].unbind()

    def bare() -> None:
        for t in times:
            net(x, t)

    def runner(name: str, stochastic: bool = False, evals: int = 1) -> Runner:
        sampler = getattr(sample, name)(net, steps=n, silent=True)
        return Runner(f"azula, {name}", lambda: sampler(x), bare, stochastic, evals)

    yield runner("EulerSampler")
    yield runner("HeunSampler", evals=2)
    yield runner("DDPMSampler", stochastic=True)


def torchdiffeq(x: Tensor, ts: Tensor) -> Iterator[Runner]:
    """Fixed-step methods on the probability-flow ODE, step for step on the same times."""
    odeint = quiet("torchdiffeq").odeint

    def v(t: Tensor, x: Tensor) -> Tensor:
        return -0.5 * (B0 + (B1 - B0) * t) * (x + score(x, t))

    times = ts.float()

    def bare() -> None:
        for t in times[:-1].unbind():
            score(x, t)

    yield Runner("torchdiffeq, euler", lambda: odeint(v, x, times, method="euler")[-1], bare)
    heun = lambda: odeint(v, x, times, method="heun2")[-1]  # noqa: E731
    yield Runner("torchdiffeq, heun2", heun, bare, evals=2)


def torchsde(x: Tensor, n: int, t_eps: float) -> Iterator[Runner]:
    """Euler-Maruyama in u = 1 - t, with its own Brownian interval, equal steps."""
    sdeint = quiet("torchsde").sdeint
    warnings.filterwarnings("ignore", module="torchsde")  # its own times differ by rounding

    def beta(u: Tensor) -> Tensor:
        return B0 + (B1 - B0) * (1 - u)

    reverse = SimpleNamespace(
        noise_type="diagonal",
        sde_type="ito",
        f=lambda u, x: 0.5 * beta(u) * x + beta(u) * score(x, 1 - u),
        g=lambda u, x: beta(u).sqrt().expand_as(x),
    )
    us = torch.tensor([0.0, 1 - t_eps])
    times = torch.linspace(1, t_eps, n + 1)[:-1].unbind()

    def bare() -> None:
        for t in times:
            score(x, t)

    def run() -> Tensor:
        return sdeint(reverse, x, us, dt=float(us[1]) / n, method="euler")[-1]

    yield Runner("torchsde, euler", run, bare, stochastic=True)

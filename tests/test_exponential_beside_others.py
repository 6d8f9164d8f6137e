"""Exponential integrators beside k-diffusion and diffusers, independent implementations.

Same denoiser, same noise levels, on x_0 + sigma eps, where a state of diffusers' VP form is
x sqrt(1 + sigma^2). Wherever the algorithm is the same, states agree to 1e-5. Where it is not:

- Third-order multistep methods of both (dpmpp_3m_sde, DPMSolverMultistep with solver_order=3,
  algorithm dpmsolver++) use a second divided difference where the second derivative belongs,
  which is twice that: they are of order 2, and agree with ours with the quadratic term halved.
- diffusers' DEIS is Adams-Bashforth in log sigma, neither tAB nor rhoAB of its paper: it is ours
  with variable="log_snr", that is, its own DPM-Solver multistep (noise) at order 2.
- They start third-order methods with Euler's step, and diffusers ends with lower orders
  (lower_order_final, below 15 steps) and with a step to sigma = 0: off, or left out, here.
- UniPC of order 3 starts with orders 1 and 2, which caps its order; ours with DPM-Solver-3.
"""

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from kdiffusion import sampling
from torch import Tensor

from labcore import Entry
from labcore.noise import initial, replay
from labcore_linear import edm
from labcore_samplers.exponential import AB, EULER, Method, corrector, integrate
from labcore_samplers.exponential_methods import EXPONENTIAL
from labcore_samplers.exponential_unipc import LINE, UNIPC, Variant
from labcore_samplers.exponential_weights import Form

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schedulers = pytest.importorskip("diffusers.schedulers")

SAMPLING = sampling()
pytestmark = pytest.mark.filterwarnings("ignore")

F64, ROWS, N = torch.float64, 16, 20
ALL: dict[str, Entry] = {e.name: e for e in [*EXPONENTIAL, *UNIPC]}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
MEANS = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=F64)


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x] for three Gaussians of variance 0.3: not affine."""
    v = 0.3 + sigma.reshape(-1, 1)[:1] ** 2
    logits = -(x[:, None] - MEANS).square().sum(-1) / (2 * v)
    mean = logits.softmax(1) @ MEANS
    return mean + 0.3 / v * (x - mean)


def score(x: Tensor, t: Tensor) -> Tensor:
    return (denoise(x, t) - x) / t**2


def draws() -> Tensor:
    return initial([0], 2 * N * ROWS, (2,), name="draws", dtype=F64).reshape(2 * N, ROWS, 2)


def start(sigma: Tensor) -> Tensor:
    return sigma * initial([0], ROWS, (2,), dtype=F64)


def levels() -> Tensor:
    """Karras' levels, bent so that neighbouring steps differ."""
    ts = torch.linspace(20 ** (1 / 7), 0.05 ** (1 / 7), N + 1, dtype=F64) ** 7
    ts[1:-1:2] += 0.3 * (ts[2::2] - ts[1:-1:2])
    return ts


def theirs(name: str, ts: Tensor, **options: Any) -> Tensor:
    """All states of k-diffusion's sampler but the start."""
    seen: list[Tensor] = []
    run = getattr(SAMPLING, f"sample_{name}")
    end = run(
        denoise,
        start(ts[0]),
        ts,
        disable=True,
        callback=lambda at: seen.append(at["x"]),
        **options,
    )
    return torch.stack([*seen[1:], end])


def ours(name: str, ts: Tensor, **options: Any) -> Tensor:
    states = ALL[name](edm(), score, start(ts[0]), ts, replay(draws()), **options)
    return torch.stack(list(states))


def as_sampler() -> Any:
    waiting = iter(draws())
    return lambda *_: next(waiting)


def test_2m_is_k_diffusion_s() -> None:
    ts = levels()
    torch.testing.assert_close(ours("dpmpp_2m", ts), theirs("dpmpp_2m", ts), **CLOSE)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("solver", "name"), [("midpoint", "midpoint"), ("exact", "heun")])
def test_2m_sde_is_k_diffusion_s(eta: float, solver: str, name: str) -> None:
    ts = levels()
    other = theirs("dpmpp_2m_sde", ts, eta=eta, noise_sampler=as_sampler(), solver_type=name)
    torch.testing.assert_close(ours("sde_dpmpp_2m", ts, eta=eta, solver=solver), other, **CLOSE)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_3m_sde_of_k_diffusion_halves_the_quadratic_term(eta: float) -> None:
    """Its third step from one and the same past lacks half the quadratic term, no more."""
    ts, x = levels(), start(levels()[0])
    other = theirs("dpmpp_3m_sde", ts, eta=eta, noise_sampler=as_sampler())
    mine = ours("sde_dpmpp_3m", ts, eta=eta)
    torch.testing.assert_close(mine[:2], other[:2], **CLOSE)
    assert float((mine[2] - other[2]).abs().max()) > 1e-4
    before = [x, *other[:2]]
    f2, f1, f0 = (denoise(v, t) for v, t in zip(before, ts, strict=False))
    lam = -ts.log()
    r0, r1, h = lam[2] - lam[1], lam[1] - lam[0], (lam[3] - lam[2]) * (1 + eta)
    second = 2 * ((f0 - f1) / r0 - (f1 - f2) / r1) / (r0 + r1) * (lam[3] - lam[2]) ** 2
    weight = 0.5 - (torch.expm1(-h) / h + 1) / h
    torch.testing.assert_close(mine[2] - other[2], weight / 2 * second, **CLOSE)


def test_3m_of_diffusers_is_second_order_for_the_same_reason() -> None:
    """From 80 to 160 steps its error falls by about 4, ours by about 8, on the same levels."""
    falls = []
    for method in ("theirs", "ours"):
        errors = []
        for n in (80, 160):
            ts = 10 * torch.exp(-torch.linspace(0, 5, n + 1, dtype=F64))
            exact = ours_end("dpm_solver_3", 1280)
            end = (
                drive(dpm("dpmsolver++", 3), ts)[-1]
                if method == "theirs"
                else ours("dpmpp_3m", ts)[-1]
            )
            errors.append(float((end - exact).abs().max()))
        falls.append(errors[0] / errors[1])
    assert falls[0] < 5.5 < 6.5 < falls[1]


def ours_end(name: str, n: int) -> Tensor:
    ts = 10 * torch.exp(-torch.linspace(0, 5, n + 1, dtype=F64))
    return ours(name, ts)[-1]


def dpm(algorithm: str, order: int, **options: Any) -> Any:
    return schedulers.DPMSolverMultistepScheduler(
        solver_order=order,
        algorithm_type=algorithm,
        lower_order_final=False,
        final_sigmas_type="sigma_min",  # "zero" ends with a step of order 1
        **options,
    )


def drive(scheduler: Any, ts: Tensor, noisy: bool = False) -> Tensor:
    """A scheduler on our levels, its states in our form; float64 tables."""
    n = len(ts) - 1
    scheduler.set_timesteps(n)
    scheduler.sigmas = ts.clone()
    x = start(ts[0]) / (1 + ts[0] ** 2).sqrt()
    states, z = [], draws()
    for i, (t, s) in enumerate(pairwise(ts)):
        scheduler._step_index = i
        scale = (1 + t**2).sqrt()
        eps = -t * score(x * scale, t)
        how = {"variance_noise": z[i]} if noisy else {}
        x = scheduler.step(eps, scheduler.timesteps[i], x, **how).prev_sample
        states.append(x * (1 + s**2).sqrt())
    return torch.stack(states)


@pytest.mark.parametrize("kind", ["midpoint", "heun"])
def test_2m_is_diffusers_s(kind: str) -> None:
    ts = levels()
    solver = {"midpoint": "midpoint", "heun": "exact"}[kind]
    got = drive(dpm("dpmsolver++", 2, solver_type=kind), ts)
    torch.testing.assert_close(ours("dpmpp_2m", ts, solver=solver), got, **CLOSE)


def test_2m_on_eps_is_diffusers_s_and_its_deis() -> None:
    ts = levels()
    mine = ours("dpm_solver_2m", ts)
    heun = drive(dpm("dpmsolver", 2, solver_type="heun"), ts)
    deis = schedulers.DEISMultistepScheduler(solver_order=2, lower_order_final=False)
    torch.testing.assert_close(mine, heun, **CLOSE)
    torch.testing.assert_close(mine, drive(deis, ts), **CLOSE)


def test_deis_3_of_diffusers_is_adams_bashforth_in_log_sigma() -> None:
    ts = levels()
    deis = schedulers.DEISMultistepScheduler(solver_order=3, lower_order_final=False)
    method = Method((EULER, AB(2), AB(3)), "noise")
    mine = integrate(edm(), score, start(ts[0]), ts, replay(draws()), method)
    torch.testing.assert_close(torch.stack(list(mine)), drive(deis, ts), **CLOSE)


def test_2m_sde_is_diffusers_s() -> None:
    ts = levels()
    got = drive(dpm("sde-dpmsolver++", 2), ts, noisy=True)
    torch.testing.assert_close(ours("sde_dpmpp_2m", ts), got, **CLOSE)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2])
def test_unipc_is_diffusers_s(order: int, form: str, variant: str) -> None:
    ts = levels()
    scheduler = schedulers.UniPCMultistepScheduler(
        solver_order=order,
        solver_type=variant,
        predict_x0=form == "data",
        lower_order_final=False,
    )
    got = drive(scheduler, ts)
    mine = ours(f"unipc_{order}", ts, form=form, variant=variant)
    torch.testing.assert_close(mine, got, **CLOSE)


@pytest.mark.parametrize("variant", list(LINE))
@pytest.mark.parametrize("form", ["data", "noise"])
def test_unipc_3_is_diffusers_s_started_through_the_lower_orders(
    form: Form, variant: Variant
) -> None:
    """Ours starts with DPM-Solver-3's step instead, for order 4."""
    ts = levels()
    scheduler = schedulers.UniPCMultistepScheduler(
        solver_order=3,
        solver_type=variant,
        predict_x0=form == "data",
        lower_order_final=False,
    )
    got = drive(scheduler, ts)
    method = Method(
        (EULER, AB(2), AB(3), AB(3)),
        form,
        rule=LINE[variant],
        corrections=(None, corrector(1), corrector(2), corrector(3)),
    )
    mine = integrate(edm(), score, start(ts[0]), ts, replay(draws()), method)
    torch.testing.assert_close(torch.stack(list(mine)), got, **CLOSE)
    own = ours("unipc_3", ts, form=form, variant=variant)
    assert float((own - got).abs().max()) > 1e-4

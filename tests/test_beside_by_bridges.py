"""Samplers of diffusers, k-diffusion and azula on our grid and noise beside ours: same or not.

The libraries' own code runs on VP and EDM, on a grid of uneven steps, by the plugins that adapt
it. Where the algorithm is one, states agree at every step to 1e-10 of their size with diffusers'
tables in float64, or to 1e-5 where it casts the state to float32 at every step; its own float32
tables are met in test_samplers_beside_diffusers.py. Where it is not one, the difference itself is
written out. docs/differences.md gathers what is found here.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from identities import F64, FIXED, ROWS, far, mixture, run, start
from kdiffusion import sampling
from torch import Tensor

from labcore import Entry, Mixture, Process, state_law
from labcore.noise import basis, brownian, replay
from labcore.testing import audit, default_data, gaussian, gaussian_score, quadratic, uneven
from labcore.testing.gaussians import bures
from labcore_linear import (
    edm,
    exponential,
    karras,
    log_snr,
    polyexponential,
    rectified_flow,
    vp,
)
from labcore_samplers.exponential import AB, EULER, Method, corrector, integrate
from labcore_samplers.exponential_weights import between

pytest.importorskip("diffusers")
pytest.importorskip("einops")
KLIBRARY = sampling()

import labcore_azula.samplers as azula  # noqa: E402
import labcore_diffusers.samplers as diffusers  # noqa: E402
import labcore_kdiffusion.samplers as kdiffusion_  # noqa: E402

D: dict[str, Entry] = {entry.name: entry for entry in diffusers.ENTRIES}
K: dict[str, Entry] = {entry.name: entry for entry in kdiffusion_.ENTRIES}
A: dict[str, Entry] = {entry.name: entry for entry in azula.ENTRIES}

pytestmark = pytest.mark.filterwarnings("ignore")

FULL = {"tables": "float64"}
WHERE = {"vp": vp(), "edm": edm()}
N = 20
TIGHT, CAST = 1e-10, 1e-5
on_both = pytest.mark.parametrize("at", WHERE)


def states(sampler: Any, process: Process, ts: Tensor | None = None, **how: Any) -> Tensor:
    ts = uneven(process, N) if ts is None else ts
    noise = brownian(ts, (2,), [0], ROWS, dtype=F64)
    return run(sampler, process, mixture(process), start(process), ts, noise, **how)


class As:
    """A method of ours that no entry has, as published."""

    name = "as published"

    def __init__(self, method: Method) -> None:
        self.method = method

    def __call__(self, process: Any, score: Any, x: Any, ts: Any, noise: Any) -> Any:
        return integrate(process, score, x, ts, noise, self.method)


Row = tuple[dict[str, Entry], str, dict[str, Any], str, dict[str, Any], float]
SAME: list[Row] = [
    (D, "DDIMScheduler", FULL, "ddim", {}, TIGHT),
    (D, "DDIMScheduler", {**FULL, "eta": 0.4}, "ddim", {"eta": 0.4}, TIGHT),
    (D, "DDIMScheduler", {**FULL, "eta": 1.0}, "ancestral", {}, TIGHT),
    (D, "DDIMParallelScheduler", FULL, "ddim", {}, TIGHT),
    (D, "DDPMScheduler", FULL, "ancestral", {}, TIGHT),
    (D, "DDPMParallelScheduler", FULL, "ancestral", {}, TIGHT),
    (D, "CogVideoXDDIMScheduler", FULL, "ddim", {}, TIGHT),
    (D, "CogVideoXDPMScheduler", FULL, "sde_dpmpp_2m", {}, TIGHT),
    (D, "DPMSolverMultistepScheduler-1", FULL, "dpmpp_1m", {}, CAST),
    (D, "DPMSolverMultistepScheduler", FULL, "dpmpp_2m", {}, CAST),
    (D, "DPMSolverMultistepScheduler-sde-dpmsolver++-2", FULL, "sde_dpmpp_2m", {}, CAST),
    (D, "DEISMultistepScheduler-1", FULL, "dpm_solver_1", {}, TIGHT),
    (D, "DEISMultistepScheduler", FULL, "dpm_solver_2m", {}, TIGHT),
    (D, "UniPCMultistepScheduler-1", FULL, "unipc_1", {}, TIGHT),
    (D, "PNDMScheduler", FULL, "pndm", {}, TIGHT),
    (D, "PNDMScheduler-plms", FULL, "plms", {}, TIGHT),
    (D, "IPNDMScheduler", FULL, "ipndm", {}, TIGHT),
    (D, "EulerDiscreteScheduler", FULL, "ddim", {}, CAST),
    (D, "EulerAncestralDiscreteScheduler", FULL, "ancestral", {}, CAST),
    (D, "EDMEulerScheduler", FULL, "ddim", {}, CAST),
    (D, "HeunDiscreteScheduler", FULL, "edm_heun", {}, TIGHT),
    (D, "KDPM2DiscreteScheduler", FULL, "dpm_2", {}, TIGHT),
    (K, "sample_euler", {}, "ddim", {}, TIGHT),
    (K, "sample_heun", {}, "edm_heun", {}, TIGHT),
    (K, "sample_dpm_2", {}, "dpm_2", {}, TIGHT),
    (K, "sample_euler_ancestral", {}, "ancestral", {}, TIGHT),
    (K, "sample_euler_ancestral", {"eta": 0.5}, "ddim", {"eta": 0.5}, TIGHT),
    (K, "sample_dpm_2_ancestral", {"eta": 0.0}, "dpm_2", {}, TIGHT),
    (K, "sample_dpmpp_2s_ancestral", {"eta": 0.0}, "dpmpp_2s", {}, TIGHT),
    (K, "sample_dpmpp_sde", {"eta": 0.0}, "dpmpp_2s", {}, TIGHT),
    (K, "sample_dpmpp_2m", {}, "dpmpp_2m", {}, TIGHT),
    (K, "sample_dpmpp_2m_sde", {}, "sde_dpmpp_2m", {}, TIGHT),
    (
        K,
        "sample_dpmpp_2m_sde",
        {"solver_type": "heun"},
        "sde_dpmpp_2m",
        {"solver": "exact"},
        TIGHT,
    ),
    (A, "DDPMSampler", {}, "ancestral", {}, TIGHT),
    (A, "DDIMSampler", {}, "ddim", {}, TIGHT),
    (A, "EulerSampler", {}, "ddim", {}, TIGHT),
    (A, "HeunSampler", {}, "edm_heun", {}, TIGHT),
    (A, "ItoSampler", {"eta": 0.0}, "ddim", {}, TIGHT),
    (A, "zABSampler", {}, "deis_rhoab1", {}, TIGHT),
    (A, "zEABSampler", {}, "dpm_solver_2m", {}, TIGHT),
    (A, "xEABSampler", {}, "dpmpp_2m", {"solver": "exact"}, TIGHT),
]


@on_both
@pytest.mark.parametrize(("library", "theirs", "how", "ours", "options", "close"), SAME)
def test_it_is_the_same_sampler(
    library: dict[str, Entry],
    theirs: str,
    how: dict[str, Any],
    ours: str,
    options: dict[str, Any],
    close: float,
    at: str,
) -> None:
    process = WHERE[at]
    assert (
        far(states(library[theirs], process, **how), states(FIXED[ours], process, **options))
        < close
    )


@pytest.mark.parametrize(
    ("library", "theirs", "how", "k"),
    [(K, "sample_lms", {"order": k}, k) for k in (1, 2, 3, 4)]
    + [(D, "LMSDiscreteScheduler", FULL, 4)],
)
def test_lms_is_ours_in_the_noise_level(library: Any, theirs: str, how: Any, k: int) -> None:
    """In sigma, so on EDM, whose t that is; on VP ours is in VP's t and x."""
    assert far(states(library[theirs], edm(), **how), states(FIXED["lms"], edm(), k=k)) < TIGHT
    assert far(states(library[theirs], vp(), **how), states(FIXED["lms"], vp(), k=k)) > 1e-3


KARRAS, EVEN = karras(edm(), N), log_snr(edm(), N)


@pytest.mark.parametrize(
    ("library", "theirs", "ours", "ts"),
    [
        (D, "EDMDPMSolverMultistepScheduler", "dpmpp_2m", KARRAS),
        (D, "EDMDPMSolverMultistepScheduler-sde-dpmsolver++", "sde_dpmpp_2m", KARRAS),
        (D, "CosineDPMSolverMultistepScheduler", "sde_dpmpp_2m", EVEN),
    ],
)
def test_it_is_the_same_sampler_on_the_grid_it_lays_itself(
    library: Any, theirs: str, ours: str, ts: Tensor
) -> None:
    found = far(states(library[theirs], edm(), ts), states(FIXED[ours], edm(), ts))
    assert found < CAST


def test_dpm_fast_is_dpm_solver_3_with_a_last_step_of_ddim() -> None:
    theirs, ours = (
        states(K["sample_dpm_fast"], edm(), EVEN),
        states(FIXED["dpm_solver_3"], edm(), EVEN),
    )
    assert far(theirs[:-1], ours[:-1]) < CAST
    (last,) = FIXED["ddim"](edm(), mixture(edm()), theirs[-2], EVEN[-2:], replay(theirs))
    assert far(theirs[-1:], last[None]) < CAST


def test_dpm_adaptive_reaches_what_ours_of_fixed_steps_do() -> None:
    """Its steps follow a tolerance, so that no state but the last is comparable."""
    process, score, x = edm(T=20.0, t_eps=0.05), mixture(edm()), 20 * start(vp())
    end = KLIBRARY.sample_dpm_adaptive(
        lambda y, sigma: y + sigma[0] ** 2 * score(y, sigma[0]),
        x,
        *(0.05, 20.0),
        rtol=1e-7,
        atol=1e-7,
        disable=True,
    )
    ts = log_snr(process, 400)
    *_, exact = FIXED["dpm_solver_3"](process, score, x, ts, replay(x[None]))
    assert far(end[None], exact[None]) < CAST


# --- not the same ----------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize(("order", "lower"), [(2, 1), (3, 2)])
def test_unipc_of_diffusers_ends_with_lower_orders(order: int, lower: int, at: str) -> None:
    """Its lower_order_final holds for any number of steps; all states before those are ours,
    UniPC-3's where it starts as the paper, through orders 1 and 2."""
    rising = As(
        Method(
            (EULER, AB(2), AB(3), AB(3)),
            "data",
            rule="midpoint",
            corrections=(None, corrector(1), corrector(2), corrector(3)),
        )
    )
    name = {2: "UniPCMultistepScheduler", 3: "UniPCMultistepScheduler-3"}[order]
    theirs = states(D[name], WHERE[at], **FULL)
    mine = states(FIXED["unipc_2"] if order == 2 else rising, WHERE[at])
    assert far(theirs[:-lower], mine[:-lower]) < TIGHT
    assert far(theirs[-1:], mine[-1:]) > 1e-4


@on_both
def test_deis_3_of_diffusers_is_adams_bashforth_in_log_sigma_started_by_euler(at: str) -> None:
    """Neither tAB nor rhoAB of the paper: ours in log-SNR, but for the first step."""
    rising = As(Method((EULER, AB(2), AB(3)), "noise"))
    theirs = states(D["DEISMultistepScheduler-3"], WHERE[at], **FULL)
    assert far(theirs, states(rising, WHERE[at])) < TIGHT
    for other in ("deis_tab2", "deis_rhoab2", "dpm_solver_3m"):
        assert far(theirs, states(FIXED[other], WHERE[at])) > 1e-7


@on_both
def test_dpm_solver_2m_of_diffusers_holds_eps_halfway(at: str) -> None:
    """By default, solver_type "midpoint": eps at the middle of the line; ours integrates it."""
    halfway = As(Method((EULER, AB(2)), "noise", rule="midpoint"))
    theirs = states(D["DPMSolverMultistepScheduler-dpmsolver-2"], WHERE[at], **FULL)
    assert far(theirs, states(halfway, WHERE[at])) < CAST


@on_both
def test_third_orders_of_diffusers_and_k_diffusion_halve_the_same_term(at: str) -> None:
    """One formula in both; what it lacks is shown in test_exponential_beside_others.py."""
    theirs = states(D["DPMSolverMultistepScheduler-3"], WHERE[at], **FULL)
    assert far(theirs, states(K["sample_dpmpp_3m_sde"], WHERE[at], eta=0.0)) < CAST
    assert far(theirs, states(FIXED["dpmpp_3m"], WHERE[at])) > 1e-3


def test_sde_dpmsolver_3_of_diffusers_has_a_sign_wrong_in_its_quadratic_term() -> None:
    """With k = 2h, -phi_3 = (1 - e^-k - k)/k^2 + 1/2 weighs D2; in diffusers it is - 1/2.

    A whole D2, of order h^2, too little. Read off a step of h = 0.3 whose last
    three values are 1, 0 and 0, so that D1 = D2 = 1/2.
    """
    library = pytest.importorskip("diffusers.schedulers")
    made = library.DPMSolverMultistepScheduler(
        solver_order=3, algorithm_type="sde-dpmsolver++", final_sigmas_type="sigma_min"
    )
    made.set_timesteps(5)
    made.sigmas = torch.exp(-0.3 * torch.arange(6, dtype=F64))
    made._step_index = 2
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    values = [one, zero, zero]
    got = made.multistep_dpm_solver_third_order_update(values, sample=zero, noise=zero)
    k, alpha = 0.6, float((1 + made.sigmas[3] ** 2).rsqrt())
    phi2 = math.expm1(-k) / k + 1
    phi3 = phi2 / k - 0.5
    published = alpha * (phi2 / 2 - phi3 / 2)
    assert float(got) == pytest.approx(published - alpha / 2, rel=1e-9)


def law_error(sampler: Entry, n: int, **how: Any) -> float:
    """W2 of the output law to the exact one, read off basis vectors: states cast to float32 are
    too far from affine for the audit."""
    process, data = vp(), default_data(2)
    ts, score = log_snr(process, n), gaussian_score(process, data, (2,))
    before, after = (state_law(process, data, t, (2,)) for t in (ts[0], ts[-1]))
    x = torch.zeros(3 + 2 * n, 2, dtype=F64)
    x[1:3] = torch.eye(2)
    *_, out = sampler(process, score, x, ts, basis((2,), n), **how)
    start_, J = out[0].double(), (out[1:] - out[0]).double().T
    J0, Jz = J[:, :2], J[:, 2:]
    mean, cov = start_ + J0 @ before.means[0], J0 @ before.covs[0] @ J0.T + Jz @ Jz.T
    return bures(mean, cov, after.means[0], after.covs[0])


def test_so_it_is_of_order_1_in_law() -> None:
    """k-diffusion's on the same steps: of order 2, and twenty times as close at 128."""
    name = "DPMSolverMultistepScheduler-sde-dpmsolver++-3"
    theirs = [law_error(D[name], n, **FULL) for n in (64, 128)]
    other = [law_error(K["sample_dpmpp_3m_sde"], n) for n in (64, 128)]
    assert 0.9 < math.log2(theirs[0] / theirs[1]) < 1.3
    assert 1.9 < math.log2(other[0] / other[1]) < 2.3
    assert theirs[1] > 15 * other[1]


@pytest.mark.parametrize(
    ("theirs", "most", "ours", "least"),
    [
        ("UniPCMultistepScheduler-3", 2.6, "unipc_3", 3.8),
        ("DPMSolverMultistepScheduler-dpmsolver-3", 2.3, "dpm_solver_3m", 2.8),
    ],
)
def test_orders_of_what_differs(theirs: str, most: float, ours: str, least: float) -> None:
    """From 120 to 240 quadratic steps, against the classical Runge-Kutta method at 1500."""
    exact = states(FIXED["rk4"], vp(), quadratic(vp(), 1500))[-1]

    def order(sampler: Entry, **how: Any) -> float:
        ends = [states(sampler, vp(), quadratic(vp(), n), **how)[-1] for n in (120, 240)]
        errors = [float((end - exact).abs().max()) for end in ends]
        return math.log2(errors[0] / errors[1])

    assert order(D[theirs], **FULL) < most < least < order(FIXED[ours])


def test_sde_dpmsolver_of_diffusers_makes_too_much_noise() -> None:
    """It freezes eps, not x0. For a single datum a step from sigma_t to sigma_s multiplies the
    variance by 1 + 2 (e^h - 1)^2; steps that freeze x0 (sde-dpmsolver++, ours) keep it exactly."""
    process = vp()
    datum = gaussian(torch.tensor([-1.0, 2.0]), 1e-26 * torch.eye(2))
    ts = torch.tensor([0.5, 0.4], dtype=F64)
    level = process.log_snr(ts) / 2
    h = float(level[1] - level[0])
    name = "DPMSolverMultistepScheduler-sde-dpmsolver-2"
    theirs = covariance(D[name], process, ts, datum, FULL)
    ours = covariance(FIXED["sde_dpmpp_2m"], process, ts, datum, {})
    exact = float(process.Sigma(ts[1]).param)
    assert ours == pytest.approx(exact, rel=1e-9)
    assert theirs == pytest.approx(exact * (1 + 2 * math.expm1(h) ** 2), rel=1e-5)


def covariance(
    sampler: Entry, process: Process, ts: Tensor, data: Mixture, how: dict[str, Any]
) -> float:
    """The variance of a coordinate after one step, read off basis vectors of start and noise."""
    C = process.Sigma(ts[0]).param
    a = process.Phi(ts[0], torch.zeros((), dtype=F64)).param
    m = a * data.means

    def score(x: Tensor, t: Tensor) -> Tensor:
        a, v = process.Phi(t, torch.zeros_like(t)).param, process.Sigma(t).param
        return (a * data.means - x) / v

    unit = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=F64)
    z = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]], dtype=F64)
    *_, out = sampler(process, score, m + C.sqrt() * unit, ts, replay(z), **how)
    return float((out[1] - out[0]).square().sum() + (out[2] - out[0]).square().sum())


def split(process: Process, parts: int) -> tuple[Tensor, Tensor]:
    """A grid of uneven steps, and with each cut into parts that are equal in log-SNR."""
    coarse = uneven(process, 8)
    inner = [between(process, coarse[:-1], coarse[1:], j / parts) for j in range(1, parts)]
    fine = torch.stack([coarse[:-1], *inner], 1).flatten()
    return coarse, torch.cat([fine, coarse[-1:]])


@on_both
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("DPMSolverSinglestepScheduler", "dpmpp_2s"),
        ("DPMSolverSinglestepScheduler-dpmsolver-2", "dpm_solver_2"),
    ],
)
def test_singlestep_of_diffusers_takes_its_stages_from_the_grid(
    theirs: str, ours: str, at: str
) -> None:
    """A step of order k spans k of the grid's: ours, where these are equal in log-SNR."""
    coarse, fine = split(WHERE[at], 2)
    got = states(D[theirs], WHERE[at], fine, **FULL)[1::2]
    assert far(got, states(FIXED[ours], WHERE[at], coarse)) < TIGHT
    on_grid = states(D[theirs], WHERE[at], uneven(WHERE[at], 16), **FULL)[1::2]
    assert far(on_grid, states(FIXED[ours], WHERE[at], uneven(WHERE[at], 16)[::2])) > 1e-4


def test_singlestep_3_of_diffusers_holds_x0_at_a_third_up_to_its_second_stage() -> None:
    """solver_type "midpoint" again, where the paper's stage at 2/3 integrates a line."""
    process, score = edm(), mixture(edm())
    coarse, fine = split(process, 3)
    got = states(D["DPMSolverSinglestepScheduler-3"], process, fine, **FULL)[2::3]
    x = start(process)

    def x0(x: Tensor, t: Tensor) -> Tensor:
        return process.tweedie(x, t, score(x, t))

    for i, (t, s) in enumerate(pairwise(coarse)):
        h, at = torch.log(t / s), [t, *fine[3 * i + 1 : 3 * i + 3]]
        f0 = x0(x, t)
        f1 = x0(at[1] / t * x - torch.expm1(-h / 3) * f0, at[1])
        f2 = x0(at[2] / t * x - torch.expm1(-2 * h / 3) * f1, at[2])
        x = s / t * x - torch.expm1(-h) * f0 + 1.5 * (torch.expm1(-h) / h + 1) * (f2 - f0)
        assert far(got[i : i + 1], x[None]) < TIGHT


def test_sa_solver_of_diffusers_has_no_counterpart_beyond_its_first_step() -> None:
    """That one is the ancestral step, DDIM's without noise; later ones it also corrects."""
    for tau, ours in ((1.0, "ancestral"), (0.0, "ddim")):
        theirs = states(D["SASolverScheduler"], vp(), tau=tau, **FULL)
        mine = states(FIXED[ours], vp())
        assert far(theirs[:1], mine[:1]) < TIGHT
        assert far(theirs[1:2], mine[1:2]) > 1e-5


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("sample_dpm_2_ancestral", "dpm_2"), ("sample_dpmpp_2s_ancestral", "dpmpp_2s")],
)
def test_two_stage_ancestral_samplers_are_a_step_of_the_flow_and_noise(
    theirs: str, ours: str
) -> None:
    """From sigma_t down to sigma_s^2/sigma_t by the flow's own step, then up to sigma_s. We have
    none of these: sde_dpmpp_2s has the noise of the path inside the step."""
    process, ts = edm(), uneven(edm(), N)
    score, x = mixture(process), start(process)
    z = torch.randn(1, ROWS, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    for t, s in pairwise(ts[:6]):
        (got,) = K[theirs](process, score, x, torch.stack([t, s]), replay(z))
        (down,) = FIXED[ours](process, score, x, torch.stack([t, s**2 / t]), replay(z))
        x = down + s * (1 - (s / t) ** 2).sqrt() * z[0]
        assert far(got[None], x[None]) < TIGHT


@on_both
def test_ancestral_samplers_of_diffusers_are_k_diffusion_s(at: str) -> None:
    for theirs, other in (
        ("KDPM2AncestralDiscreteScheduler", "sample_dpm_2_ancestral"),
        ("DPMSolverSDEScheduler", "sample_dpmpp_sde"),
    ):
        assert far(states(D[theirs], WHERE[at], **FULL), states(K[other], WHERE[at])) < TIGHT


def test_dpmpp_sde_takes_another_noise_within_the_step_than_sde_dpmpp_2s() -> None:
    """Both are of order 2 in law; theirs draws the stage's noise from a tree, ours given z."""
    apart = far(states(K["sample_dpmpp_sde"], vp()), states(FIXED["sde_dpmpp_2s"], vp()))
    assert apart > 1e-2
    for sampler in (K["sample_dpmpp_sde"], FIXED["sde_dpmpp_2s"]):
        errors = [audit(sampler, vp(), quadratic(vp(), n), default_data(2)).w2 for n in (32, 64)]
        assert 1.8 < math.log2(errors[0] / errors[1]) < 2.5


RISING = (EULER, AB(2), AB(3))


@on_both
@pytest.mark.parametrize(
    ("theirs", "method", "ours"),
    [
        ("zABSampler", Method(RISING, "noise", "rho"), "deis_rhoab2"),
        ("zEABSampler", Method(RISING, "noise"), "dpm_solver_3m"),
        ("xEABSampler", Method(RISING, "data"), "dpmpp_3m"),
    ],
)
def test_third_orders_of_azula_start_with_euler_s_step(
    theirs: str, method: Method, ours: str, at: str
) -> None:
    """Whose error, h^2, stays; ours start with two evaluations."""
    got = states(A[theirs], WHERE[at], order=3)
    assert far(got, states(As(method), WHERE[at])) < TIGHT
    assert far(got, states(FIXED[ours], WHERE[at])) > 1e-6


def test_vab_of_azula_is_lms_on_the_rectified_flow() -> None:
    for k in (1, 2, 3):
        got = states(A["vABSampler"], rectified_flow(), order=k)
        assert far(got, states(FIXED["lms"], rectified_flow(), k=k)) < TIGHT


def test_ito_of_azula_freezes_eps_as_sde_dpmsolver_does() -> None:
    name = "DPMSolverMultistepScheduler-sde-dpmsolver-2"  # whose first step is of order 1
    theirs, other = states(A["ItoSampler"], vp()), states(D[name], vp(), **FULL)
    assert far(theirs[:1], other[:1]) < CAST


@pytest.mark.parametrize("theirs", ["REABSampler", "PCSampler"])
def test_azula_s_others_have_no_counterpart(theirs: str) -> None:
    """REAB is exact for N(0, 1), not for a datum; PC corrects before the step, by a blend."""
    got = states(A[theirs], vp())
    for nearest in ("ddim", "dpmpp_2m", "dpm_solver_2m", "predictor_corrector"):
        assert far(got[:1], states(FIXED[nearest], vp())[:1]) > 1e-5


GRIDS: list[tuple[str, Callable[[int], Tensor], dict[str, Any]]] = [
    ("get_sigmas_karras", lambda n: karras(edm(), n - 1), {"rho": 7.0}),
    ("get_sigmas_exponential", lambda n: exponential(edm(), n - 1), {}),
    ("get_sigmas_polyexponential", lambda n: polyexponential(edm(), n - 1, rho=1.5), {"rho": 1.5}),
]


@pytest.mark.parametrize(("name", "ours", "how"), GRIDS)
def test_grids_are_k_diffusion_s_without_the_last_step_to_0(
    name: str, ours: Callable[[int], Tensor], how: dict[str, Any]
) -> None:
    theirs = getattr(KLIBRARY, name)(30, sigma_min=0.002, sigma_max=80.0, **how)
    assert float(theirs[-1]) == 0
    torch.testing.assert_close(ours(30), theirs[:-1].double(), rtol=1e-5, atol=0)


def test_get_sigmas_vp_is_vp_s_uniform_grid_in_noise_to_signal() -> None:
    """It takes exp(B) - 1 in float32, which near the data leaves three digits."""
    theirs = KLIBRARY.get_sigmas_vp(30, beta_d=19.9, beta_min=0.1, eps_s=1e-3)[:-1].double()
    ts = torch.linspace(1, 1e-3, 30, dtype=F64)
    torch.testing.assert_close((-vp().log_snr(ts) / 2).exp(), theirs, rtol=1e-3, atol=0)

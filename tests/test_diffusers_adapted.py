"""diffusers' schedulers in the lab: the same algorithms are the same, the others are measured."""

import math
from importlib.util import find_spec
from typing import Any

import adapted
import pytest
import torch
from adapted import apart, entry, equal_log_snr, flow_error, flow_order

from labcore import SamplerError
from labcore.noise import brownian, initial
from labcore.testing import (
    audit,
    check_sampler,
    default_data,
    gaussian_score,
    uneven,
    vp,
    weak_order,
)

if find_spec("diffusers") is None:
    pytest.skip("diffusers is not installed", allow_module_level=True)

EXACT = {"tables": "float64"}
HALF = {"eta": 0.5}
MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
LAST = {"but_last": True}
KARRAS, LOG_SNR = {"grid": "linear:karras"}, {"grid": "log_snr"}

SAME: list[tuple[str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = [
    ("DDIMScheduler", {}, "samplers:ddim", {}, {}),
    ("DDIMScheduler", HALF, "samplers:ddim", HALF, {}),
    ("DDIMParallelScheduler", {}, "samplers:ddim", {}, {}),
    ("DDPMScheduler", {}, "samplers:ancestral", {}, {}),
    ("DDPMParallelScheduler", {}, "samplers:ancestral", {}, {}),
    ("DEISMultistepScheduler-1", {}, "samplers:ddim", {}, {}),
    ("DEISMultistepScheduler", {}, "dpm_solver_2m", {}, {}),
    ("UniPCMultistepScheduler-1", {}, "unipc_1", {}, {}),
    ("UniPCMultistepScheduler", {}, "unipc_2", {}, LAST),  # its last step is of order 1
    ("PNDMScheduler", {}, "pndm", {}, {}),
    ("PNDMScheduler-plms", {}, "plms", {}, {}),
    ("IPNDMScheduler", {}, "ipndm", {}, {}),
    ("CogVideoXDDIMScheduler", {}, "ddim", {}, {}),
    ("CogVideoXDPMScheduler", {}, "sde_dpmpp_2m", {}, {}),
    ("LMSDiscreteScheduler", {}, "samplers:lms", {}, {"process": "edm", "steps": 8}),
    ("HeunDiscreteScheduler", {}, "edm_heun", {}, {}),
    ("MiniMaxH3Scheduler", {}, "ddim", {}, {}),
    ("EDMDPMSolverMultistepScheduler", {}, "dpmpp_2m", {}, KARRAS),
    ("EDMDPMSolverMultistepScheduler-sde-dpmsolver++", {}, "sde_dpmpp_2m", {}, KARRAS),
    ("CosineDPMSolverMultistepScheduler", {}, "sde_dpmpp_2m", {}, LOG_SNR),
    ("KDPM2DiscreteScheduler", {}, "samplers:dpm_2", {}, {}),
]

ROUNDED = [
    ("FlowMatchEulerDiscreteScheduler", "ddim"),
    ("EulerDiscreteScheduler", "ddim"),
    ("EulerAncestralDiscreteScheduler", "ancestral"),
    ("EDMEulerScheduler", "ddim"),
    (f"{MULTI}-1", "dpmpp_1m"),
    (MULTI, "dpmpp_2m"),
    (f"{MULTI}-sde-dpmsolver++-2", "sde_dpmpp_2m"),
]


def full(name: str) -> str:
    return f"diffusers:{name}"


@pytest.mark.parametrize(("theirs", "options", "ours", "own", "where"), SAME)
def test_states_are_ours_on_the_same_cell(
    theirs: str, options: dict[str, Any], ours: str, own: dict[str, Any], where: dict[str, Any]
) -> None:
    """To 1e-12 with tables in float64, to what float32 tables leave with its own."""
    assert apart(full(theirs), {**options, **EXACT}, ours, own, **where) < 1e-12
    assert 1e-10 < apart(full(theirs), options, ours, own, **where) < 1e-3


@pytest.mark.parametrize("process", ["edm", "sub_vp"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("DDIMScheduler", "samplers:ddim"),
        ("UniPCMultistepScheduler-1", "unipc_1"),
        ("CogVideoXDPMScheduler", "sde_dpmpp_2m"),
        ("PNDMScheduler", "pndm"),
        ("IPNDMScheduler", "ipndm"),
        ("MiniMaxH3Scheduler", "ddim"),
        ("KDPM2DiscreteScheduler", "samplers:dpm_2"),
    ],
)
def test_where_the_process_does_not_preserve_variance_they_are_ours_as_well(
    theirs: str, ours: str, process: str
) -> None:
    """1 - alphas_cumprod, 4e-6 at edm's end, is taken from 1 by the library: 1e-11 is left."""
    assert apart(full(theirs), EXACT, ours, {}, process=process) < 1e-8


@pytest.mark.parametrize(("theirs", "ours"), ROUNDED)
def test_those_that_round_their_states_to_float32_agree_to_that(theirs: str, ours: str) -> None:
    for options in ({}, EXACT):
        assert 1e-10 < apart(full(theirs), options, ours, {}) < 1e-5


@pytest.mark.parametrize("name", ["sample_dpmpp_sde", "sample_dpm_2_ancestral"])
def test_what_it_took_from_k_diffusion_is_the_same(name: str) -> None:
    if find_spec("k_diffusion") is None:
        pytest.skip("k-diffusion is not installed")
    theirs = {
        "sample_dpmpp_sde": "DPMSolverSDEScheduler",
        "sample_dpm_2_ancestral": "KDPM2AncestralDiscreteScheduler",
    }
    assert apart(full(theirs[name]), EXACT, f"kdiffusion:{name}", {}) < 1e-12


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("KDPM2AncestralDiscreteScheduler", 2),
        ("DPMSolverSDEScheduler", 2),
        ("SASolverScheduler", 2),
        (SINGLE, 2),
        (f"{SINGLE}-dpmsolver-2", 2),
        ("DDPMScheduler", 1),
        ("IPNDMScheduler", 1),  # declared 4: its weights are those of equal steps
        ("PNDMScheduler", 1),  # declared 2, by its paper; as above
    ],
)
def test_orders_in_law(name: str, order: float) -> None:
    of, bound = entry(full(name)), entry(full(name)).bind(EXACT)
    found = weak_order(of, vp(), uneven, default_data(2), steps=(128, 256), options=bound).slope
    assert found == pytest.approx(order, abs=0.2)


def test_euler_rounds_its_state_to_float32_and_cannot_be_audited() -> None:
    """sample.to(torch.float32) in step: the output is not affine in x_T beyond 1e-6."""
    of = entry(full("EulerDiscreteScheduler"))
    with pytest.raises(SamplerError, match="not affine"):
        audit(of, vp(), uneven(vp(), 128), default_data(2), options=of.bind(EXACT))


def order(name: str, coarse: int, fine: int, **more: Any) -> float:
    return flow_order(entry(full(name)), coarse, fine, **{**EXACT, **more})


def test_multistep_of_order_3_halves_the_second_difference() -> None:
    """D2 is half the second derivative of x_0 and meets phi_3, half the weight of that: order 2.

    Ours has the parabola's weight.
    """
    for kind in ("", "-dpmsolver"):
        assert order(f"{MULTI}{kind}-3", 120, 240, grid=equal_log_snr) < 2.35
    assert flow_order(entry("dpmpp_3m"), 128, 256) == pytest.approx(3, abs=0.15)


def test_the_sde_form_of_order_3_has_a_wrong_sign_and_diverges_on_uneven_steps() -> None:
    """The weight of D2 is alpha ((1 - e^-2h - 2h)/(2h)^2 - 1/2), which tends to -alpha, not to 0:
    its -1/2 should be +1/2. Second differences of a noisy path are then added at full weight every
    step; where steps vary smoothly they telescope, and the order is 1."""
    h = 1e-3
    weight = (1 - math.exp(-2 * h) - 2 * h) / (2 * h) ** 2
    assert weight - 0.5 == pytest.approx(-1, abs=1e-2)
    assert weight + 0.5 == pytest.approx(0, abs=1e-2)
    assert spread(f"{MULTI}-sde-dpmsolver++-2", 256) == pytest.approx(1, abs=0.1)
    wide = [spread(f"{MULTI}-sde-dpmsolver++-3", n) for n in (64, 256)]
    assert wide[0] > 1.5
    assert wide[1] > 1.5 * wide[0]


def spread(name: str, steps: int) -> float:
    """The standard deviation of what is sampled, in units of the exact one."""
    process, data, ts = vp(), default_data(2), uneven(vp(), steps)
    x = initial([0], 2000, (2,), dtype=torch.float64)
    noise = brownian(ts, (2,), [0], 2000, dtype=torch.float64)
    of = entry(full(name))
    with torch.inference_mode():
        *_, x = of(process, gaussian_score(process, data, (2,)), x, ts, noise, **of.bind(EXACT))
    return float((x.var(0).sum() / data.covs[0].trace()).sqrt())


def test_singlestep_of_order_3_needs_equal_steps_in_log_snr() -> None:
    """Its third-order update takes the second stage to be at 2/3 of the step, where the grid
    has put it elsewhere the order is 2."""
    for kind in ("", "-dpmsolver"):
        name = f"{SINGLE}{kind}-3"
        assert order(name, 120, 240, grid=equal_log_snr) == pytest.approx(3, abs=0.1)
        assert order(name, 64, 512) < 2.5


def test_unipc_of_order_3_ends_with_a_step_of_order_1() -> None:
    """lower_order_final is on at any number of steps: 4 is declared, with the corrector."""
    assert order("UniPCMultistepScheduler-3", 512, 1024) == pytest.approx(2, abs=0.15)


def test_deis_of_order_3_is_lost_to_float32_coefficients() -> None:
    """Differences of products of logarithms: in float32 its error grows with the steps."""
    name = "DEISMultistepScheduler-3"
    assert order(name, 128, 256) == pytest.approx(3, abs=0.2)
    own = [flow_error(entry(full(name)), n) for n in (64, 256)]
    assert own[1] > 10 * own[0]


def test_plms_weights_are_those_of_equal_steps() -> None:
    """On equal steps in log-SNR their order is 2: they average eps over the step as it stands,
    where the integral is over d(sigma/alpha). Of IPNDM 4 is declared."""
    for name in ("PNDMScheduler", "IPNDMScheduler"):
        assert order(name, 120, 240, grid=equal_log_snr) == pytest.approx(2, abs=0.1)


def test_ipndm_loses_a_small_alpha_to_float32() -> None:
    """Its alpha is sqrt(1 - sigma^2) of a sigma known to 6e-8, which data in larger units show."""
    from diffusers import IPNDMScheduler

    alpha = torch.tensor([1e-2, 1e-3, 1e-4], dtype=torch.float64)
    scheduler = IPNDMScheduler(trained_betas=(1 - alpha**2).sqrt().tolist())
    scheduler.set_timesteps(3)
    lost = (scheduler.alphas.double() / alpha - 1).abs()
    assert lost[0] < 1e-3
    assert lost[1] > 1e-3
    assert lost[2] > 0.1
    exact = check_sampler(
        entry(full("IPNDMScheduler")), checks=["scaling"], options=EXACT, on_fail="return"
    )
    assert exact["scaling"].figures["difference"] < 1e-12


def test_pndm_says_how_many_steps_it_needs() -> None:
    with pytest.raises(SamplerError, match="it needs 4 steps or more, it was given 3"):
        flow_error(entry(full("PNDMScheduler")), 3)


def test_the_ve_predictor_corrector_costs_what_it_is_asked_for() -> None:
    name = full("ScoreSdeVeScheduler")
    for k in (0, 1, 2):
        made = adapted.cell(name, "edm", "log_snr", 5, "float64", correct_steps=k)
        assert adapted.states(made)[1] == 5 * (k + 1)
    predictor = entry(name).bind({"correct_steps": 0})
    found = weak_order(
        entry(name), vp(), uneven, default_data(2), steps=(64, 128), options=predictor
    )
    assert found.slope == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", adapted.names("diffusers"))
def test_process_wide_state_is_left_alone(name: str) -> None:
    assert bool(adapted.driven(name, steps=7).isfinite().all())

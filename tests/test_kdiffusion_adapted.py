"""k-diffusion's samplers in the lab: the same algorithms are the same, the others are measured."""

from typing import Any

import adapted
import kdiffusion
import pytest
import torch
from adapted import apart, entry, flow_order

from labcore import InvalidStudy, SamplerError
from labcore.testing import default_data, uneven, vp, weak_order
from labcore_linear import diag_vp

kdiffusion.sampling()

SAME: list[tuple[str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = [
    ("euler", {}, "ddim", {}, {}),
    ("euler", {}, "samplers:euler", {}, {"process": "edm"}),
    ("heun", {}, "edm_heun", {}, {}),
    ("heun", {"s_churn": 2.0, "s_tmax": 20.0}, "edm_churn", {"S_churn": 2.0, "S_tmax": 20.0}, {}),
    ("dpm_2", {}, "samplers:dpm_2", {}, {}),
    ("lms", {}, "samplers:lms", {}, {"process": "edm"}),
    ("lms", {"order": 2}, "samplers:lms", {"k": 2}, {"process": "edm"}),
    ("euler_ancestral", {}, "samplers:ancestral", {}, {}),
    ("dpm_2_ancestral", {"eta": 0.0}, "samplers:dpm_2", {}, {}),
    ("dpmpp_2s_ancestral", {"eta": 0.0}, "dpmpp_2s", {}, {}),
    ("dpmpp_sde", {"eta": 0.0}, "dpmpp_2s", {}, {}),
    ("dpmpp_2m", {}, "dpmpp_2m", {}, {}),
    ("dpmpp_2m", {}, "dpmpp_2m", {}, {"process": "sub_vp"}),
    ("dpmpp_2m_sde", {}, "sde_dpmpp_2m", {}, {}),
    ("dpmpp_2m_sde", {"eta": 0.5}, "sde_dpmpp_2m", {"eta": 0.5}, {}),
    ("dpmpp_2m_sde", {"solver_type": "heun"}, "sde_dpmpp_2m", {"solver": "exact"}, {}),
]


@pytest.mark.parametrize(("theirs", "options", "ours", "own", "where"), SAME)
def test_states_are_ours_on_the_same_cell(
    theirs: str, options: dict[str, Any], ours: str, own: dict[str, Any], where: dict[str, Any]
) -> None:
    assert apart(f"kdiffusion:sample_{theirs}", options, ours, own, **where) < 1e-12


@pytest.mark.parametrize("theirs", ["euler_ancestral", "dpmpp_2m_sde", "heun"])
def test_in_float32_they_run_in_float32(theirs: str) -> None:
    ours = {"euler_ancestral": "ancestral", "dpmpp_2m_sde": "sde_dpmpp_2m", "heun": "edm_heun"}
    found = apart(f"kdiffusion:sample_{theirs}", {}, ours[theirs], {}, dtype="float32")
    assert 0 < found < 1e-5


def test_dpm_fast_has_its_own_grid_which_is_log_snr_in_float32() -> None:
    """Its torch.linspace is asked for no dtype. The last of its steps is of order 1."""
    name, where = "kdiffusion:sample_dpm_fast", {"grid": "log_snr", "but_last": True}
    assert 1e-9 < apart(name, {}, "dpm_solver_3", {}, **where) < 1e-5
    assert entry(name).traits["grid"] == "own"


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("dpm_2_ancestral", 2),
        ("dpmpp_2s_ancestral", 2),
        ("dpmpp_sde", 2),
        ("dpmpp_3m_sde", 2),  # declared 3
        ("euler_ancestral", 1),
    ],
)
def test_orders_in_law_of_those_with_noise(name: str, order: float) -> None:
    of = entry(f"kdiffusion:sample_{name}")
    found = weak_order(of, vp(), uneven, default_data(2), steps=(128, 256)).slope
    assert found == pytest.approx(order, abs=0.15)


def test_dpmpp_3m_sde_halves_the_second_difference() -> None:
    """d2 is half the second derivative of x_0 and meets phi_3, half the weight of that.

    At eta = 0 that shows: order 2. Twice the term would be the parabola's, order 3 (ours).
    """
    theirs = entry("kdiffusion:sample_dpmpp_3m_sde")
    assert flow_order(theirs, 512, 1024, eta=0.0) == pytest.approx(2, abs=0.25)
    assert flow_order(entry("dpmpp_3m"), 512, 1024) == pytest.approx(3, abs=0.3)


def test_lms_of_order_4_has_the_order_of_its_start() -> None:
    """Its first step is Euler's: an error of h^2, once."""
    orders = [flow_order(entry("kdiffusion:sample_lms"), n, 2 * n) for n in (32, 2048)]
    assert orders[0] > 3
    assert orders[1] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("name", adapted.names("kdiffusion"))
def test_process_wide_state_is_left_alone(name: str) -> None:
    assert bool(adapted.driven(name).isfinite().all())


def test_churn_above_the_grid_is_refused() -> None:
    with pytest.raises(SamplerError, match="outside the grid's"):
        apart("kdiffusion:sample_heun", {"s_churn": 5.0}, "edm_heun", {})


def test_only_scalar_processes_are_taken() -> None:
    with pytest.raises(InvalidStudy, match="it needs scalar"):
        adapted.cell("kdiffusion:sample_heun", "diag_vp", "quadratic", 4, "float64")
    of, process = entry("kdiffusion:sample_heun"), diag_vp()
    ts = uneven(process, 4)
    with pytest.raises(SamplerError, match="knows scalar processes only, this one is diag"):
        next(of(process, None, torch.zeros(1, 2), ts, None))


def test_in_float32_a_wide_ancestral_step_loses_the_level_below() -> None:
    """sigma_down = (sigma_to^2 - sigma_up^2)^(1/2) of a step from 152 to 0.01 is 0 in float32,
    and the second evaluation is left out: a cost that is not the declared one."""
    name = "kdiffusion:sample_dpm_2_ancestral"
    _, nfe = adapted.states(adapted.cell(name, "vp", "quadratic", 1, "float32"))
    assert nfe == 1 < adapted.cost(entry(name), 1)

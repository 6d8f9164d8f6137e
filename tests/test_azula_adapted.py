"""azula's samplers in the lab: the same algorithms are the same, the others are measured."""

from importlib.util import find_spec
from typing import Any

import adapted
import pytest
from adapted import apart, entry

from labcore.testing import default_data, uneven, vp, weak_order

if find_spec("azula") is None:
    pytest.skip("azula is not installed", allow_module_level=True)

SAME: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [
    ("DDPM", {}, "samplers:ancestral", {}, "vp"),
    ("DDIM", {}, "samplers:ddim", {}, "vp"),
    ("DDIM", {"eta": 1.0}, "samplers:ancestral", {}, "vp"),
    ("Euler", {}, "samplers:ddim", {}, "vp"),
    ("Heun", {}, "edm_heun", {}, "vp"),
    ("Ito", {"eta": 0.0}, "samplers:ddim", {}, "vp"),
    ("PC", {"corrections": 0}, "samplers:ddim", {}, "vp"),
    ("zAB", {"order": 2}, "samplers:lms", {"k": 2}, "edm"),
    ("zAB", {"order": 4}, "samplers:lms", {"k": 4}, "edm"),
    ("vAB", {"order": 3}, "samplers:lms", {"k": 3}, "rectified_flow"),
    ("zEAB", {}, "dpm_solver_2m", {}, "vp"),
    ("xEAB", {}, "dpmpp_2m", {"solver": "exact"}, "vp"),
]


@pytest.mark.parametrize(("theirs", "options", "ours", "own", "process"), SAME)
def test_states_are_ours_on_the_same_cell(
    theirs: str, options: dict[str, Any], ours: str, own: dict[str, Any], process: str
) -> None:
    assert apart(f"azula:{theirs}Sampler", options, ours, own, process=process) < 1e-12


@pytest.mark.parametrize(("theirs", "ours"), [("DDPM", "ancestral"), ("Heun", "edm_heun")])
def test_in_float32_they_run_in_float32(theirs: str, ours: str) -> None:
    assert 0 < apart(f"azula:{theirs}Sampler", {}, ours, {}, dtype="float32") < 1e-5


@pytest.mark.parametrize(
    ("name", "order"),
    [("Ito", 1), ("vAB", 2), ("xEAB", 2), ("zEAB", 2), ("zAB", 2), ("REAB", 1)],
)
def test_orders_in_law(name: str, order: float) -> None:
    """REAB is declared 2: its last factor has alpha_s^2 + sigma_t^2 for alpha_s^2 + sigma_s^2."""
    of = entry(f"azula:{name}Sampler")
    found = weak_order(of, vp(), uneven, default_data(2), steps=(256, 512)).slope
    assert found == pytest.approx(order, abs=0.1)


def test_its_corrector_costs_what_it_is_asked_for() -> None:
    name = "azula:PCSampler"
    for k in (1, 3):
        _, nfe = adapted.states(adapted.cell(name, "vp", "quadratic", 5, "float64", corrections=k))
        assert nfe == 5 * (k + 1) == adapted.cost(entry(name), 5, corrections=k, delta=0.01)


@pytest.mark.parametrize("name", adapted.names("azula"))
def test_process_wide_state_is_left_alone(name: str) -> None:
    assert bool(adapted.driven(name).isfinite().all())

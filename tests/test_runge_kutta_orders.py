"""Methods on the probability flow reach their declared orders, on every process, linear or not."""

import math
from functools import cache

import pytest
import torch
from curved import ends, slope
from order_processes import PROCESSES

from labcore import Entry, Process
from labcore.noise import replay
from labcore.testing import audit, default_data, uneven, weak_order
from labcore.testing.models import uneven_in_log
from labcore.testing.slopes import follow
from labcore_linear import edm, vp
from labcore_samplers import (
    dpm_2,
    edm_heun,
    ipndm,
    lms,
    lms2,
    lms3,
    lms4,
    midpoint,
    plms,
    pndm,
    ralston,
    ralston3,
    rk4,
)

SAMPLERS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *(midpoint, ralston, ralston3, rk4, edm_heun, dpm_2),
        *(lms, lms2, lms3, lms4, ipndm, plms, pndm),
    )
}
each_process = pytest.mark.parametrize("name", PROCESSES)
each = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


@each_process
@each
def test_order_in_law_is_the_declared_one(sampler: Entry, name: str) -> None:
    """Explicit midpoint on EDM alone is better: exact to h^3 where x_t ~ sqrt(t^2 + l)."""
    process = PROCESSES[name]
    event = process.event_shape or (2,)
    data = default_data(math.prod(event))

    def error(n: int) -> float:
        return audit(sampler, process, uneven_in_log(process, n), data, event=event).w2

    order = 3 if (sampler.name, name) == ("midpoint", "edm") else sampler.traits["order"]
    measured = follow(error, floor=1e-14, fine=512, width=0.12)
    assert measured.resolved
    assert measured.value == pytest.approx(order, abs=0.15)


FINER = {("lms4", "cld"), ("lms4", "sigma_t")}


@cache
def reference(name: str) -> torch.Tensor:
    return ends(rk4, PROCESSES[name], uneven, 4096)


@pytest.mark.parametrize("name", ["vp", "edm", "sigma_t"])
@each
def test_order_on_a_mixture_is_the_declared_one(sampler: Entry, name: str) -> None:
    """Not affine: coefficients that only act through second derivatives count here."""
    steps = (512, 1024) if (sampler.name, name) in FINER else (128, 256)
    errors = [
        float((ends(sampler, PROCESSES[name], uneven, n) - reference(name)).square().mean().sqrt())
        for n in steps
    ]
    measured, declared = slope(steps, errors), sampler.traits["order"]
    if (sampler.name, name) == ("lms", "edm"):
        assert measured > declared + 0.15
    else:
        assert measured == pytest.approx(declared, abs=0.2)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_lms_with_fewer_slopes_has_their_order_up_to_2(k: int) -> None:
    measured = weak_order(
        lms, vp(), uneven, default_data(2), steps=(256, 512), options={"k": k}
    ).slope
    assert measured == pytest.approx(min(k, 2), abs=0.15)


@pytest.mark.parametrize("sampler", [ipndm, plms, pndm], ids=lambda entry: entry.name)
def test_pndm_is_of_order_2_on_equal_steps_only(sampler: Entry) -> None:
    def equal(process: Process, n: int) -> torch.Tensor:
        return torch.linspace(process.T, process.t_eps, n + 1, dtype=torch.float64)

    process = vp(t_eps=0.05)
    orders = {
        grid: weak_order(sampler, process, grid, default_data(2), steps=(512, 1024)).slope
        for grid in (equal, uneven)
    }
    assert orders[equal] == pytest.approx(2, abs=0.2)
    assert orders[uneven] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("sampler", "power"), [(midpoint, 1), (ralston3, 2), (rk4, 3), (lms4, 2)])
def test_slopes_that_are_powers_of_t_are_integrated_exactly(sampler: Entry, power: int) -> None:
    """v(t) = t^p alone, on uneven steps; lms4 uses three slopes in its second step."""

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, -(float(t) ** (power - 1)))  # on EDM, v = -t s

    ts = torch.tensor([1.0, 0.7, 0.4, 0.3, 0.25], dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.float64)
    *_, out = sampler(edm(), score, x, ts, replay(x[None]))
    assert float(out) == pytest.approx((0.25 ** (power + 1) - 1) / (power + 1), rel=1e-12)

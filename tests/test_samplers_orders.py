"""The lab's samplers reach their declared orders, in law and on one path, on every process."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from order_processes import PROCESSES as ORDER_PROCESSES
from torch import Tensor

from labcore import Entry, Process, counted
from labcore.noise import brownian, initial
from labcore.testing import (
    audit,
    check_sampler,
    default_data,
    gaussian,
    gaussian_score,
    quadratic,
    strong_order,
    uneven,
    weak_order,
)
from labcore.testing.audit import final
from labcore_linear import log_snr, rectified_flow, sigma_t, vp
from labcore_samplers import ancestral, ddim, euler, euler_maruyama, heun

F64 = torch.float64
PROCESSES = {name: of for name, of in ORDER_PROCESSES.items() if name != "edm"}
SAMPLERS: dict[str, tuple[Entry, dict[str, Any]]] = {
    "euler": (euler, {}),
    "heun": (heun, {}),
    "euler_maruyama": (euler_maruyama, {}),
    "euler_maruyama-0.5": (euler_maruyama, {"lam": 0.5}),
    "ancestral": (ancestral, {}),
    "ddim": (ddim, {}),
    "ddim-0.5": (ddim, {"eta": 0.5}),
    "ddim-1": (ddim, {"eta": 1.0}),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
each_sampler = pytest.mark.parametrize(("sampler", "options"), SAMPLERS.values(), ids=SAMPLERS)


def event_of(process: Process) -> tuple[int, ...]:
    return process.event_shape or (2,)


def by_noise(process: Process, n: int) -> Tensor:
    return log_snr(process, n, t_eps=None)


@each_process
@each_sampler
def test_order_in_law_is_the_declared_one(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    event = event_of(process)
    data = default_data(math.prod(event))
    order = sampler.traits["order"]
    measured = weak_order(sampler, process, uneven, data, event=event, options=options)
    if abs(measured.slope - order) > 0.1:  # not yet asymptotic
        measured = weak_order(
            sampler, process, uneven, data, event=event, options=options, steps=(512, 1024)
        )
    assert measured.slope == pytest.approx(order, abs=0.15)


@each_process
@pytest.mark.parametrize(
    ("sampler", "options"),
    [(euler_maruyama, {}), (euler_maruyama, {"lam": 0.5}), (ancestral, {}), (ddim, {"eta": 1.0})],
    ids=["euler_maruyama", "euler_maruyama-0.5", "ancestral", "ddim-1"],
)
def test_order_on_one_path_is_1(sampler: Entry, options: dict[str, Any], process: Process) -> None:
    """The noise is additive, so every one of them is of strong order 1."""
    event = event_of(process)
    score = gaussian_score(process, default_data(math.prod(event)), event)
    measured = strong_order(
        sampler, process, score, by_noise, tuple(process.event(event)), options=options
    )
    assert measured.slope == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "options"), [given for given in SAMPLERS.values() if given[1]]
)
def test_the_whole_contract_holds_with_other_options(
    sampler: Entry, options: dict[str, Any]
) -> None:
    check_sampler(sampler, vp(), options=options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@each_sampler
def test_metered_evaluations_are_those_declared(
    sampler: Entry, options: dict[str, Any], dtype: torch.dtype
) -> None:
    process, rows = sigma_t(), 3
    score = gaussian_score(process, default_data(2), (2,))
    x = initial([0], rows, (2,), dtype=dtype)
    for steps in (1, 2, 5, 10, 100, 1000):
        ts = uneven(process, steps)
        meter = counted(score, rows)
        final(
            sampler(process, meter, x, ts, brownian(ts, (2,), [0], rows, dtype=dtype), **options),
            x,
        )
        assert meter.nfe == steps * sampler.traits["evals"] + sampler.traits.get("extra", 0)


def gaussian_flow(
    process: Process, m: Tensor, S: Tensor, x: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """x_s on the PF-ODE of N(m, S) data, a scalar process: coordinates of S's eigenbasis scale by
    sqrt((alpha_s^2 l + sig_s^2) / (alpha_t^2 l + sig_t^2))."""
    zero = torch.zeros((), dtype=F64)
    a_t, a_s = process.Phi(t, zero).param, process.Phi(s, zero).param
    v_t, v_s = process.Sigma(t).param, process.Sigma(s).param
    spread, basis = torch.linalg.eigh(S)
    scale = ((a_s**2 * spread + v_s) / (a_t**2 * spread + v_t)).sqrt()
    return a_s * m + ((x - a_t * m) @ basis * scale) @ basis.T


@pytest.mark.parametrize("process", [vp(), sigma_t(), rectified_flow()], ids=["vp", "ve", "flow"])
@pytest.mark.parametrize(("sampler", "order"), [(heun, 2), (euler, 1), (ddim, 1)])
def test_closed_form_of_the_gaussian_flow_is_reached_at_the_declared_order(
    process: Process, sampler: Entry, order: int
) -> None:
    data = default_data(3)
    score = gaussian_score(process, data, (3,))
    x = process.prior().chol @ initial([0], 20, (3,), dtype=F64)
    errors = []
    for n in (256, 512, 1024):
        ts = uneven(process, n)
        exact = gaussian_flow(process, data.means[0], data.covs[0], x, ts[0], ts[-1])
        noise = brownian(ts, (3,), [0], 20, dtype=F64)
        errors.append(float((final(sampler(process, score, x, ts, noise), x) - exact).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert errors[-1] < 0.05


ONE_STEP = {**PROCESSES, "flow": rectified_flow()}


@pytest.mark.parametrize("process", ONE_STEP.values(), ids=ONE_STEP)
@pytest.mark.parametrize(
    ("sampler", "options"),
    [(ancestral, {}), *((ddim, {"eta": eta}) for eta in (0.0, 0.3, 1.0))],
    ids=["ancestral", "ddim-0", "ddim-0.3", "ddim-1"],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_steps_of_any_size_are_exact_in_law_for_a_single_datum(
    sampler: Entry, options: dict[str, Any], process: Process, steps: int
) -> None:
    """With all the data at m the clean point is known, and the law kept is N(Phi m, Sigma)."""
    event = event_of(process)
    d = math.prod(event)
    datum = gaussian(torch.linspace(-1, 2, d), 1e-26 * torch.eye(d))
    ts = quadratic(process, steps)
    result = audit(sampler, process, ts, datum, event=event, options=options)
    assert result.w2 < 1e-7 * float(result.exact.covs[0].trace().sqrt())


def test_euler_is_exact_for_a_single_datum_where_its_paths_are_straight() -> None:
    """On rectified flow x_t = (1 - t) m + t eps, but not on VP."""
    datum = gaussian(torch.tensor([-1.0, 2.0]), 1e-26 * torch.eye(2))
    for process, low, high in ((rectified_flow(), 0.0, 1e-10), (vp(), 0.1, 10.0)):
        assert low <= audit(euler, process, quadratic(process, 3), datum).w2 < high


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_ddim_carries_a_single_datum_along_the_exact_trajectory(process: Process) -> None:
    """One step from T to t_eps ends where Heun's ends in the limit, for every structure."""
    event = event_of(process)
    d = math.prod(event)
    score = gaussian_score(process, gaussian(torch.ones(d), 1e-26 * torch.eye(d)), event)
    state = tuple(process.event(event))
    x = process.prior().chol @ initial([0], 5, state, dtype=F64)
    ends = []
    for sampler, n in ((ddim, 1), (heun, 2000), (heun, 4000)):
        ts = by_noise(process, n)
        ends.append(final(sampler(process, score, x, ts, brownian(ts, state, [0], 5)), x))
    one, coarse, fine = ends
    limit = fine + (fine - coarse) / 3
    torch.testing.assert_close(one, limit, rtol=1e-6, atol=1e-7)

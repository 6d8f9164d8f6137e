"""Exponential integrators reach their declared orders: on Gaussians, on a mixture, on one path."""

import math
from collections.abc import Callable

import pytest
import torch
from curved import ends, slope
from torch import Tensor

from labcore import Entry, LinOp, Process, counted
from labcore.noise import brownian, initial
from labcore.testing import default_data, gaussian_score, strong_order, weak_order
from labcore.testing import uneven as by_time
from labcore.testing.audit import final
from labcore_linear import cld, diag_vp, edm, log_snr, ou, rotating, sigma_t, vp
from labcore_samplers.exponential import AB, EULER, Method, integrate
from labcore_samplers.exponential_flow import frozen_flow, spread
from labcore_samplers.exponential_methods import EXPONENTIAL
from labcore_samplers.exponential_unipc import UNIPC

F64 = torch.float64
ALL: dict[str, Entry] = {e.name: e for e in [*EXPONENTIAL, *UNIPC]}
NOISY = [name for name, e in ALL.items() if e.traits["stochastic"]]
SMOOTH = [name for name in ALL if name not in NOISY]


def bent(grid: Callable[..., Tensor]) -> Callable[[Process, int], Tensor]:
    """The grid with every other step about twice its neighbour."""

    def times(process: Process, n: int) -> Tensor:
        ts = grid(process, n, t_eps=None)
        ts[1:-1:2] += 0.3 * (ts[2::2] - ts[1:-1:2])
        return ts

    return times


by_noise = bent(log_snr)
CASES: dict[str, Process] = {
    "vp": vp(),
    "sigma_t": sigma_t(),
    "edm": edm(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}
EVERYWHERE = ["dpm_solver_3", "dpmpp_3m", "deis_tab3", "dpmpp_2m", "sde_dpmpp_2m", "unipc_2"]


def reaches(name: str, process: Process, **options: float) -> None:
    """Within 0.15 at some step count, on one of two grids: finer where not yet asymptotic."""
    event = process.event_shape or (2,)
    data, declared, seen = default_data(math.prod(event)), ALL[name].traits["order"], []
    for steps in ((128, 256), (256, 512), (512, 1024), (1024, 2048)):
        for grid in (by_noise, by_time):
            order = weak_order(
                ALL[name], process, grid, data, steps=steps, event=event, options=options
            )
            seen.append(round(order.slope, 2))
            if abs(order.slope - declared) <= 0.15:
                return
    pytest.fail(f"{name}: orders {seen}, declared {declared}")


@pytest.mark.parametrize("name", ALL)
def test_order_in_law_on_vp(name: str) -> None:
    reaches(name, CASES["vp"])


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("case", [case for case in CASES if case != "vp"])
def test_order_in_law_on_every_structure(name: str, case: str) -> None:
    reaches(name, CASES[case])


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("case", ["ou", "cld"])
def test_order_in_law_at_any_rate_of_noise_on_matrices(name: str, case: str) -> None:
    reaches(name, CASES[case], eta=0.5)


MATRICES: dict[str, Process] = {"ou": ou(), "cld": cld(), "rotating": rotating()}
each_matrix = pytest.mark.parametrize("process", MATRICES.values(), ids=MATRICES)


@each_matrix
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 1.5])
def test_the_flow_and_its_noise_keep_the_law_of_a_single_datum(
    process: Process, eta: float
) -> None:
    """Psi Sigma(t) Psi^T + C = Sigma(s), and two steps are one: C(s,t) = C(s,m) + Psi C Psi^T."""
    ts = by_time(process, 12)
    Psi = frozen_flow(process, ts, eta)
    t, m, s = ts[:-2], ts[1:-1], ts[2:]

    def C(t: Tensor, s: Tensor) -> LinOp:
        return spread(process, Psi, t, s, eta) if eta else 0.0 * process.Sigma(s)

    carry = Psi(s, t)
    kept = carry @ process.Sigma(t) @ carry.T + C(t, s)
    torch.testing.assert_close(kept.param, process.Sigma(s).param, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close((Psi(s, m) @ Psi(m, t)).param, carry.param, rtol=1e-9, atol=1e-11)
    twice = C(m, s) + Psi(s, m) @ C(t, m) @ Psi(s, m).T
    torch.testing.assert_close(twice.param, C(t, s).param, rtol=1e-9, atol=1e-13)


@each_matrix
@pytest.mark.parametrize("name", NOISY)
def test_rates_of_noise_join_on_to_the_flow_and_to_anderson_s_sde(
    name: str, process: Process
) -> None:
    """The flow itself at eta=0; at eta=1 Psi and C are closed forms, not the table's."""
    event = process.event_shape or (2,)
    state = tuple(process.event(event))
    score, ts = gaussian_score(process, default_data(2), event), by_time(process, 12)
    x = process.prior().chol @ initial([0], 4, state, dtype=F64)

    def end(eta: float) -> Tensor:
        noise = brownian(ts, state, [0], 4, dtype=F64)
        return final(ALL[name](process, score, x, ts, noise, eta=eta), x)

    size = float(end(1.0).abs().max())
    near = 1e-8
    torch.testing.assert_close(end(1 - near), end(1.0), rtol=0, atol=1e-5 * size)
    # The noise itself is of the size of sqrt(eta).
    torch.testing.assert_close(end(near**2), end(0.0), rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("name", SMOOTH)
def test_order_on_a_mixture(name: str) -> None:
    """The score is not affine: against one reference, in the largest of 64 rows' errors."""
    process, declared = vp(), ALL[name].traits["order"]
    exact = ends(ALL["dpm_solver_3"], process, log_snr_of, 4096)
    steps = (512, 1024) if declared < 3 else (256, 512)
    errors = [
        float((ends(ALL[name], process, by_noise, n) - exact).square().mean().sqrt())
        for n in steps
    ]
    assert slope(steps, errors) > declared - 0.25


def log_snr_of(process: Process, n: int) -> Tensor:
    return log_snr(process, n, t_eps=None)


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("case", ["vp", "ou"])
def test_order_on_one_path_is_1(name: str, case: str) -> None:
    process = CASES[case]
    event = process.event_shape or (2,)
    score = gaussian_score(process, default_data(2), event)
    order = strong_order(ALL[name], process, score, log_snr_of, event, steps=(64, 128, 256))
    assert order.slope > ALL[name].traits["strong"] - 0.15


def test_a_first_step_of_euler_s_caps_the_order_at_2() -> None:
    """Why 3M starts with a midpoint step: from its own first step alone the error is O(h^2)."""
    plain = Method((EULER, AB(2), AB(3)), "data")
    data = default_data(2)

    def capped(process: Process, score: object, x: Tensor, ts: Tensor, noise: object) -> object:
        return integrate(process, score, x, ts, noise, plain)  # type: ignore[arg-type]

    def grid(process: Process, n: int) -> Tensor:
        """From t = 0.3, where the clean point moves: at T it hardly does."""
        return process.t_eps + 0.3 * (by_time(process, n) - process.t_eps)

    own = weak_order(ALL["dpmpp_3m"], vp(), grid, data, steps=(256, 512))
    other = weak_order(capped, vp(), grid, data, steps=(256, 512))  # type: ignore[arg-type]
    assert other.slope < 2.6 < 2.85 < own.slope
    assert own.errors[-1] < 0.2 * other.errors[-1]


@pytest.mark.parametrize("name", ALL)
def test_metered_evaluations_are_those_declared(name: str) -> None:
    process, entry = sigma_t(), ALL[name]
    score = gaussian_score(process, default_data(2), (2,))
    x = initial([0], 2, (2,), dtype=F64)
    for steps in (1, 2, 5, 10, 100, 1000):
        ts, meter = by_time(process, steps), counted(score, 2)
        final(entry(process, meter, x, ts, brownian(ts, (2,), [0], 2, dtype=F64)), x)
        assert meter.nfe == steps * entry.traits["evals"] + entry.traits.get("extra", 0)

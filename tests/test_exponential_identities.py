"""Exponential integrators that are one formula in two guises agree to rounding."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from identities import far
from scipy.integrate import quad
from torch import Tensor

from labcore import Entry, Process, Score
from labcore.noise import brownian, initial
from labcore.testing import audit, default_data, gaussian, gaussian_score, quadratic, uneven
from labcore.testing.audit import final
from labcore_linear import cld, diag_vp, edm, ou, rectified_flow, rotating, sigma_t, vp, vp_cosine
from labcore_samplers import ddim
from labcore_samplers.exponential_flow import frozen_flow
from labcore_samplers.exponential_methods import EXPONENTIAL
from labcore_samplers.exponential_unipc import UNIPC
from labcore_samplers.exponential_weights import between, weights

F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}
ALL: dict[str, Entry] = {e.name: e for e in [*EXPONENTIAL, *UNIPC]}
SCALARS = {"vp": vp(), "sigma_t": sigma_t(), "edm": edm(), "cosine": vp_cosine()}
each = pytest.mark.parametrize("name", ALL)
each_scalar = pytest.mark.parametrize("process", SCALARS.values(), ids=SCALARS)


def level(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    zero = torch.zeros((), dtype=F64)
    return process.Phi(t, zero).param, process.Sigma(t).param.sqrt()


def bumps(process: Process) -> Score:
    """The score of three isotropic Gaussians in the plane, as a scalar process makes them."""
    modes = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.0]], dtype=F64)

    def score(x: Tensor, t: Tensor) -> Tensor:
        a, s = level(process, t)
        v = a**2 * 0.2 + s**2
        delta = a * modes - x[:, None]
        weight = torch.softmax(-delta.square().sum(-1) / (2 * v), 1)
        return (weight[..., None] * delta).sum(1) / v

    return score


def run(
    name: str | Entry, process: Process, score: Score, x: Tensor | None = None, **how: Any
) -> Tensor:
    """All states of a run of 12 uneven steps on one path."""
    entry = ALL[name] if isinstance(name, str) else name
    ts = how.pop("ts", uneven(process, 12))
    if x is None:
        x = process.prior().chol @ initial([0], 6, (2,), dtype=F64)
    noise = how.pop("noise", None) or brownian(ts, (2,), [0], 6, dtype=F64)
    return torch.stack(list(entry(process, score, x, ts, noise, **how)))


@each_scalar
def test_2m_is_the_paper_s_algorithm(process: Process) -> None:
    """DPM-Solver++(2M), algorithm 2: D = (1 + 1/2r) x0_i - 1/2r x0_{i-1}, in numbers."""
    score, x = bumps(process), process.prior().chol @ initial([0], 6, (2,), dtype=F64)
    ts = uneven(process, 12)
    states = run("dpmpp_2m", process, score, x)
    lam = [torch.log(torch.div(*level(process, t))) for t in ts]
    old: Tensor | None = None
    for i, (t, s) in enumerate(pairwise(ts)):
        (a_t, s_t), (a_s, s_s) = level(process, t), level(process, s)
        x0 = D = (x + s_t**2 * score(x, t)) / a_t
        if old is not None:
            r = (lam[i] - lam[i - 1]) / (lam[i + 1] - lam[i])
            D = (1 + 1 / (2 * r)) * x0 - old / (2 * r)
        x, old = s_s / s_t * x - a_s * torch.expm1(lam[i] - lam[i + 1]) * D, x0
        assert far(x[None], states[i : i + 1]) < 1e-12


@pytest.mark.parametrize("solver", ["dpm_solver_3"])
def test_single_step_3_is_the_paper_s_algorithm(solver: str) -> None:
    """DPM-Solver-3, algorithm 2 with r1 = 1/3, r2 = 2/3, on EDM where t = exp(-lambda)."""
    process, x = edm(), 80 * initial([0], 6, (2,), dtype=F64)
    score = bumps(process)
    states = run(solver, process, score, x)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return -t * score(x, t)

    for i, (t, s) in enumerate(pairwise(uneven(process, 12))):
        h = torch.log(t / s)
        m1, m2 = t * torch.exp(-h / 3), t * torch.exp(-2 * h / 3)
        e0 = eps(x, t)
        u1 = x - m1 * torch.expm1(h / 3) * e0
        D1 = eps(u1, m1) - e0
        h2 = 2 * h / 3
        u2 = x - m2 * torch.expm1(h2) * e0 - 2 * m2 * (torch.expm1(h2) / h2 - 1) * D1
        D2 = eps(u2, m2) - e0
        x = x - s * torch.expm1(h) * e0 - 1.5 * s * (torch.expm1(h) / h - 1) * D2
        assert far(x[None], states[i : i + 1]) < 1e-12


def test_rho_ab_on_edm_is_adams_bashforth_in_sigma() -> None:
    """dx/dsigma = eps on x_0 + sigma eps: two steps of a variable Adams-Bashforth 2."""
    process, x = edm(), 80 * initial([0], 6, (2,), dtype=F64)
    score, ts = bumps(process), uneven(process, 12)
    states, old = run("deis_rhoab1", process, score, x), None
    for i, (t, s) in enumerate(pairwise(ts)):
        e = -t * score(x, t)
        step = (s - t) * e
        if old is not None:
            step = step + (s - t) ** 2 / (2 * (t - ts[i - 1])) * (e - old)
        x, old = x + step, e
        assert far(x[None], states[i : i + 1]) < 1e-12


PROCESSES = {**SCALARS, "flow": rectified_flow(), "diag": diag_vp(), "ou": ou(), "cld": cld()}


DATA = ["dpmpp_1m", "dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "dpmpp_3s", "unipc_2"]


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", [*DATA, "sde_dpmpp_1", "sde_dpmpp_2s"])
def test_one_step_is_exact_in_law_for_a_single_datum(name: str, process: Process) -> None:
    """From T to t_eps: the clean point is constant, whatever the structure."""
    event = process.event_shape or (2,)
    datum = gaussian(torch.tensor([-1.0, 2.0]), 1e-26 * torch.eye(2))
    result = audit(ALL[name], process, quadratic(process, 1), datum, event=event)
    assert result.w2 < 1e-5 * float(result.exact.covs[0].trace().sqrt())


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", ["dpm_solver_1", "deis_tab1", "deis_rhoab2"])
def test_gddim_s_eps_is_constant_along_the_paths_of_a_single_datum(
    name: str, process: Process
) -> None:
    """x_t is rescaled by 1/Phi(t,s), so rounding grows over a step from T: four steps here."""
    event = process.event_shape or (2,)
    datum = gaussian(torch.tensor([-1.0, 2.0]), 1e-26 * torch.eye(2))
    score = gaussian_score(process, datum, event)
    state = tuple(process.event(event))
    x, ts = process.prior().chol @ initial([0], 5, state, dtype=F64), quadratic(process, 4)
    noise = brownian(ts, state, [0], 5, dtype=F64)
    got = final(ALL[name](process, score, x, ts, noise), x)
    torch.testing.assert_close(
        got, final(ddim(process, score, x, ts, noise), x), rtol=0, atol=1e-6
    )


def test_the_weights_are_the_phi_functions_also_for_tiny_and_huge_steps() -> None:
    """int_0^h e^(z-h) l(z) dz on EDM by quadrature, for steps of 1e-6 to 10 in log-SNR."""
    process = edm()
    for h in (1e-6, 1e-3, 0.3, 10.0):  # relative to h: a line through 0 and -h/2
        t = torch.tensor([2.0], dtype=F64)
        s, old = t * math.exp(-h), t * math.exp(h / 2)
        W = weights(process, process.Psi, t, s, [t, old], form="data")
        for w, first, slope in zip(W, (1.0, 0.0), (2 / h, -2 / h), strict=True):
            args = (h, first, slope)
            wanted = quad(on_a_line, 0, h, args, epsabs=0, epsrel=1e-13)[0]
            assert float(w.param) == pytest.approx(wanted, rel=1e-9 if h < 1e-5 else 2e-12)


def on_a_line(z: float, h: float, first: float, slope: float) -> float:
    return math.exp(z - h) * (first + slope * z)


@pytest.mark.parametrize("process", [ou(), cld(), rotating()], ids=["ou", "cld", "rotating"])
def test_the_frozen_flow_of_matrices_is_that_of_the_process(process: Process) -> None:
    ts = quadratic(process, 30)
    Psi = frozen_flow(process, ts)
    torch.testing.assert_close(
        Psi(ts[1:], ts[:-1]).param, process.Psi(ts[1:], ts[:-1]).param, rtol=1e-9, atol=1e-10
    )
    Sigma, carry = process.Sigma(ts), Psi(ts[1:], ts[:-1])
    kept = (carry @ process.Sigma(ts[:-1]) @ carry.T).param
    torch.testing.assert_close(kept, Sigma.param[1:], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_stages_lie_where_the_log_snr_is_the_share_asked_for(process: Process) -> None:
    ts = quadratic(process, 20)
    level = process.log_snr(ts)
    for share in (1 / 3, 0.5, 0.75):
        at = process.log_snr(between(process, ts[:-1], ts[1:], share))
        wanted = level[:-1] + share * level.diff()
        torch.testing.assert_close(at, wanted, rtol=1e-10, atol=1e-10)


def test_two_stages_of_noise_have_the_law_of_the_path() -> None:
    """With all the data at one point any number of steps keeps N(Phi m, Sigma), for all eta."""
    datum = gaussian(torch.tensor([-1.0, 2.0]), 1e-26 * torch.eye(2))
    for eta in (0.0, 0.4, 1.0):
        result = audit(ALL["sde_dpmpp_2s"], vp(), quadratic(vp(), 3), datum, options={"eta": eta})
        assert result.w2 < 1e-7 * float(result.exact.covs[0].trace().sqrt())


def test_single_precision_stays_close_to_double() -> None:
    process = vp()
    score, ts = gaussian_score(process, default_data(2), (2,)), quadratic(process, 200)
    for name, entry in ALL.items():
        ends = []
        for dtype in (torch.float32, F64):
            x = initial([0], 6, (2,), dtype=dtype)
            noise = brownian(ts, (2,), [0], 6, dtype=dtype)
            ends.append(final(entry(process, score, x, ts, noise), x).double())
        assert float((ends[0] - ends[1]).abs().max()) < 1e-3, name

"""Where the Markov chains settle: ULA on a law that is known too, the others on the right one.

Chains are independent, so the Kolmogorov-Smirnov test is of n independent samples of a known
distribution. At level 1e-3 and n = 4000 it sees a largest difference of 0.045 between distribution
functions with probability 0.95; that it sees ULA's own bias is asserted too.
"""

import math
from typing import Any

import pytest
import scipy.linalg
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from labcore import Entry, Mixture, Process, counted, from_mixture, state_law
from labcore.noise import brownian, initial, replay
from labcore.testing import audit, check_sampler, default_data, gaussian, quadratic
from labcore.testing.audit import final
from labcore_linear import cld, diag_vp, edm, log_snr, ou, vp
from labcore_samplers import (
    annealed_hmc,
    annealed_langevin,
    annealed_mala,
    hmc,
    langevin,
    mala,
    metropolis,
    predictor_corrector,
    predictor_metropolis,
)
from labcore_samplers.corrector import PREDICTORS
from labcore_samplers.langevin import preconditioner
from labcore_scores import exact

F64 = torch.float64
PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
each_chain = pytest.mark.parametrize(
    "chain",
    [
        *(langevin, metropolis, mala, hmc, predictor_corrector, predictor_metropolis),
        *(annealed_langevin, annealed_mala, annealed_hmc),
    ],
)


def event_of(process: Process) -> tuple[int, ...]:
    return process.event_shape or (2,)


def run(
    chain: Entry, process: Process, law: Mixture, steps: int, n: int, **options: Any
) -> tuple[Tensor, dict[str, Tensor], Mixture]:
    """The last states (n, D), what the chain tells, and the law it should have."""
    target = from_mixture(law)
    score = counted(exact(process, target), n)
    ts = log_snr(process, steps)
    state = process.event(target.event)
    x = process.prior().chol @ initial([7], n, state, dtype=F64)
    noise = brownian(ts, state, [7], n, dtype=F64)
    told: dict[str, Tensor] = {}

    def follow() -> Any:
        told.update((yield from chain(process, score, x, ts, noise, **options)) or {})

    with torch.inference_mode():
        out = final(follow(), x)
    return out.flatten(1), told, state_law(process, law, ts[-1], target.event)


def p_value(x: Tensor, law: Mixture, direction: list[float]) -> float:
    """Kolmogorov-Smirnov of x . a against the mixture's distribution of it."""
    a = torch.tensor(direction, dtype=F64)
    mean, std = law.means @ a, torch.einsum("i,kij,j->k", a, law.covs, a).sqrt()

    def cdf(v: Any) -> Any:
        return sum(
            float(w) * norm.cdf(v, float(m), float(s))
            for w, m, s in zip(law.weights, mean, std, strict=True)
        )

    return float(kstest((x @ a).numpy(), cdf).pvalue)


def overlapping() -> Mixture:
    """Two modes that a chain crosses between."""
    S = torch.tensor([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.8]]], dtype=F64)
    m = torch.tensor([[-0.8, 0.0], [0.9, 0.6]], dtype=F64)
    return Mixture(torch.tensor([0.65, 0.35], dtype=F64), m, S)


@pytest.mark.parametrize(
    ("chain", "process"), [(annealed_mala, diag_vp()), (hmc, ou())], ids=["diag_vp", "ou"]
)
def test_the_whole_contract_holds_on_operators(chain: Entry, process: Process) -> None:
    check_sampler(chain, process)


@each_process
@pytest.mark.parametrize("step", [0.05, 0.2])
def test_ula_settles_on_the_law_of_its_recursion(process: Process, step: float) -> None:
    """x <- x + e P C^-1 (m - x) + sqrt(2e) L z settles on S = B S B^T + 2e P, B = I - e P C^-1."""
    event = event_of(process)
    data = gaussian(torch.ones(math.prod(event)), 0.5 * torch.eye(math.prod(event)))
    ts = quadratic(process, 100)
    got = audit(langevin, process, ts, data, event=event, options={"step": step, "inner": 1})
    P = preconditioner(process, ts[-1:], 1.0).dense(process.event(event))[0]
    B = torch.eye(len(P), dtype=F64) - step * P @ torch.linalg.inv(got.exact.covs[0])
    wanted = scipy.linalg.solve_discrete_lyapunov(B.numpy(), 2 * step * P.numpy())
    left = torch.linalg.matrix_power(B, 100).abs().max()  # of the start
    scale = float(got.exact.covs[0].abs().max())
    assert float((got.cov - torch.from_numpy(wanted)).abs().max()) < scale * (1e-9 + 1e4 * left)


@pytest.mark.parametrize("process", [vp(), cld()], ids=["vp", "cld"])
@pytest.mark.parametrize(
    ("chain", "options", "accepts"),
    [
        (metropolis, {"step": 1.0, "inner": 2}, (0.25, 0.8)),
        (mala, {"step": 0.3}, (0.6, 0.95)),
        (hmc, {"step": 0.45, "leapfrog": 4}, (0.6, 0.99)),
        (annealed_mala, {"step": 0.3, "data_std": 1.0}, (0.6, 0.95)),
        (annealed_hmc, {"step": 0.45, "data_std": 1.0}, (0.6, 0.99)),
        (predictor_metropolis, {"r": 0.4, "inner": 2}, (0.6, 0.99)),
        (predictor_metropolis, {"corrector": "hmc"}, (0.6, 0.99)),
    ],
    ids=["metropolis", "mala", "hmc", "annealed_mala", "annealed_hmc", "pc_mala", "pc_hmc"],
)
def test_chains_that_accept_or_refuse_have_the_right_law(
    chain: Entry, options: dict[str, Any], accepts: tuple[float, float], process: Process
) -> None:
    x, told, law = run(chain, process, overlapping(), 120, 4000, **options)
    position = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    added = [0.0] * (x.shape[1] - 2)
    for direction in position:
        assert p_value(x, law, direction + added) > 1e-3
    assert told["acceptance"].shape == (4000,)
    assert accepts[0] < float(told["acceptance"].mean()) < accepts[1]


def test_the_test_sees_the_bias_that_acceptance_removes() -> None:
    x, _, law = run(langevin, vp(), overlapping(), 120, 4000, step=0.3)
    assert p_value(x, law, [0.0, 1.0]) < 1e-6
    small, _, law = run(langevin, vp(), overlapping(), 1500, 4000, step=0.01)
    assert p_value(small, law, [0.0, 1.0]) > 1e-3


@pytest.mark.parametrize("h", [0.5, 2.0])
def test_acceptance_of_a_random_walk_on_a_gaussian_is_the_closed_form(h: float) -> None:
    """In one dimension it is 2/pi atan(2/h) for steps h standard deviations long."""
    one = gaussian(torch.zeros(1), torch.eye(1))
    _, told, _ = run(metropolis, vp(), one, 60, 4000, step=h)
    rate = told["acceptance"]
    wanted, error = 2 / math.pi * math.atan(2 / h), float(rate.std()) / math.sqrt(len(rate))
    assert float(rate.mean()) == pytest.approx(wanted, abs=5 * error)
    assert error < 0.003


def test_one_leapfrog_step_is_mala() -> None:
    for process in (vp(), cld()):
        a, told_a, _ = run(mala, process, overlapping(), 20, 50, step=0.3, inner=2)
        b, told_b, _ = run(
            hmc, process, overlapping(), 20, 50, step=math.sqrt(0.6), leapfrog=1, inner=2
        )
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert torch.equal(told_a["acceptance"], told_b["acceptance"])


def test_annealed_langevin_is_one_chain_on_all_processes_of_the_same_snr() -> None:
    """y = x / alpha turns VP into EDM: on matched grids the chains are the same."""
    left, right, law = vp(), edm(), overlapping()
    from labcore_linear import time_of_log_snr

    sigma = torch.tensor([20.0, 5.0, 1.0, 0.3, 0.05], dtype=F64)
    ts = time_of_log_snr(left, -2 * sigma.log(), left.t_eps)
    z = torch.randn(12, 30, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    y = sigma[0] * torch.randn(30, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    alpha = left.Phi(ts, torch.zeros_like(ts)).param
    ends = []
    for process, times, x in ((left, ts, alpha[0] * y), (right, sigma, y)):
        score = exact(process, from_mixture(law))
        chain = annealed_langevin(process, score, x, times, replay(z), inner=3)
        ends.append(final(chain, x))
    torch.testing.assert_close(ends[0] / alpha[-1], ends[1], rtol=1e-8, atol=1e-10)


def test_annealed_langevin_has_the_steps_of_the_paper() -> None:
    """x <- x + alpha/2 s + sqrt(alpha) z with alpha = 2 e sigma_i^2, on EDM."""
    law, sigma = overlapping(), torch.tensor([8.0, 2.0, 0.5], dtype=F64)
    score = exact(edm(), from_mixture(law))
    z = torch.randn(4, 10, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    x = start = 8 * torch.ones(10, 2, dtype=F64)
    for i, s in enumerate(sigma[1:]):
        for j in range(2):
            alpha = 2 * 0.1 * s**2
            x = x + alpha / 2 * score(x, s) + alpha.sqrt() * z[2 * i + j]
    chain = annealed_langevin(edm(), score, start, sigma, replay(z), step=0.1, inner=2)
    torch.testing.assert_close(final(chain, start), x, rtol=1e-12, atol=1e-12)


@each_process
@pytest.mark.parametrize("name", PREDICTORS)
def test_without_a_corrector_the_predictor_is_left(name: str, process: Process) -> None:
    event, options = event_of(process), {"predictor": name, "inner": 0}
    data, ts = default_data(math.prod(event)), quadratic(process, 12)
    got = audit(predictor_corrector, process, ts, data, event=event, options=options)
    wanted = audit(PREDICTORS[name], process, ts, data, event=event)
    torch.testing.assert_close(got.cov, wanted.cov, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.mean, wanted.mean, rtol=1e-9, atol=1e-12)


@each_process
def test_a_fixed_corrector_settles_on_ulas_law(process: Process) -> None:
    """Many corrections at the last time alone decide the law: that of ULA with e = 2 r^2."""
    event, t = event_of(process), 0.7 * process.T
    d = math.prod(event)
    data = gaussian(torch.zeros(d), 0.1 * torch.eye(d))
    ts = torch.tensor([process.T, t], dtype=F64)
    options = {"corrector": "fixed", "r": 0.3, "inner": 150}
    got = audit(predictor_corrector, process, ts, data, event=event, options=options)
    P, e = process.Sigma(ts[1:]).dense(process.event(event))[0], 2 * 0.3**2
    B = torch.eye(len(P), dtype=F64) - e * P @ torch.linalg.inv(got.exact.covs[0])
    wanted = scipy.linalg.solve_discrete_lyapunov(B.numpy(), 2 * e * P.numpy())
    torch.testing.assert_close(got.cov, torch.from_numpy(wanted), rtol=1e-6, atol=1e-8)


def test_the_snr_rule_is_that_of_the_paper_row_by_row() -> None:
    """x <- x + e s + sqrt(2e) z, e = 2 (r |z| / |s|)^2 (Song et al. 2021, Algorithm 5)."""
    process, law = vp(), overlapping()
    score = exact(process, from_mixture(law))
    ts = torch.tensor([1.0, 0.5], dtype=F64)
    z = torch.randn(2, 10, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    x = torch.randn(10, 2, dtype=F64, generator=torch.Generator().manual_seed(4))
    options: dict[str, Any] = {"predictor": "ancestral", "r": 0.2}
    got = final(predictor_corrector(process, score, x, ts, replay(z), **options), x)
    y = final(PREDICTORS["ancestral"](process, score, x, ts, replay(z)), x)
    s = score(y, ts[1])
    e = 2 * (0.2 * z[1].norm(dim=1) / s.norm(dim=1))[:, None] ** 2
    torch.testing.assert_close(got, y + e * s + (2 * e).sqrt() * z[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("corrector", ["snr", "fixed"])
@pytest.mark.parametrize("of", ["scalar", "diagonal"])
def test_where_no_noise_is_left_a_corrector_stays(of: str, corrector: str) -> None:
    """At t = 0, Sigma = 0 and so is every step."""
    process = vp() if of == "scalar" else diag_vp()
    score = exact(process, from_mixture(overlapping()))
    ts = torch.tensor([1.0, 0.5, 0.0], dtype=F64)
    x = torch.randn(10, 2, dtype=F64, generator=torch.Generator().manual_seed(4))
    z = torch.randn(4, 10, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"predictor": "euler", "corrector": corrector}
    *_, before, got = predictor_corrector(process, score, x, ts, replay(z), **options)
    (moved,) = PREDICTORS["euler"](process, score, before, ts[1:], replay(z))
    torch.testing.assert_close(got, moved, rtol=1e-13, atol=0)

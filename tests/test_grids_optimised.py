"""Grids found by optimisation are optima of what they claim, and that is what samplers feel."""

import itertools
import math
from typing import Any

import pytest
import scipy.integrate
import scipy.optimize
import torch
from torch import Tensor

import labcore
from labcore import Entry, Process, from_mixture
from labcore.noise import initial
from labcore.testing import audit, gaussian, kl, quadratic
from labcore.testing.audit import final
from labcore_linear import (
    align_your_steps,
    beta_quantile,
    cld,
    diag_vp,
    edm,
    equal_error,
    exponential,
    karras,
    log_snr,
    ou,
    polyexponential,
    polynomial,
    sigma_t,
    uniform,
    vp,
)
from labcore_linear.optimised import cheapest, ode_cost, polish, sde_cost, settled
from labcore_linear.reference import local_errors, ring
from labcore_samplers import ancestral, ddim, heun
from labcore_scores import exact

F64 = torch.float64
GRIDS = [align_your_steps, beta_quantile, equal_error, exponential, polyexponential, polynomial]
PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "sigma_t": sigma_t(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}


def levels(process: Process, ts: Tensor) -> Tensor:
    """log sigma at the times."""
    return -process.log_snr(ts) / 2


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_every_grid_is_one_on_every_process(grid: Entry, process: Process) -> None:
    for n in (1, 2, 3, 10, 100, 1000):
        ts = grid(process, n, t_eps=None)
        labcore.check_grid(ts, process, n)
        assert (float(ts[0]), float(ts[-1])) == (process.T, process.t_eps)
        assert torch.equal(ts, grid(process, n, t_eps=None))
    ends = grid(process, 7, t_eps=2 * process.t_eps)
    assert float(ends[-1]) == 2 * process.t_eps


def test_families_meet_where_they_should() -> None:
    pairs = [
        (exponential(edm(), 9, t_eps=None), log_snr(edm(), 9, t_eps=None)),
        (polynomial(vp(), 9, t_eps=None, rho=1.0), uniform(vp(), 9, t_eps=None)),
        (polynomial(vp(), 9, t_eps=None, rho=2.0), quadratic(vp(), 9)),
        (polynomial(edm(), 9, t_eps=None, rho=7.0), karras(edm(), 9, t_eps=None)),
        (polyexponential(vp(), 9, t_eps=None, rho=1.0), log_snr(vp(), 9, t_eps=None)),
        (beta_quantile(vp(), 9, t_eps=None, alpha=1.0, beta=1.0), uniform(vp(), 9, t_eps=None)),
    ]
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    ts = beta_quantile(vp(), 1000, t_eps=None, alpha=0.5, beta=0.5)  # arcsine law: Chebyshev
    wanted = (1 + torch.cos(math.pi * torch.arange(1001, dtype=F64) / 1000)) / 2
    torch.testing.assert_close((ts - 1e-3) / (1 - 1e-3), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", [vp(), edm(), sigma_t()], ids=["vp", "edm", "sigma_t"])
@pytest.mark.parametrize("std", [0.2, 1.0])
def test_the_ode_cost_is_the_error_of_ddim(process: Process, std: float) -> None:
    """Summed over the steps it is the log of true over sampled standard deviation, exactly."""
    ts = quadratic(process, 12)
    result = audit(ddim, process, ts, gaussian(torch.zeros(1), std**2 * torch.eye(1)))
    short = 0.5 * float((result.exact.covs[0] / result.cov).log())
    u = levels(process, ts)
    assert float(ode_cost(std**2)(u[:-1], u[1:]).sum()) == pytest.approx(short, rel=1e-7)


def test_the_sde_cost_bounds_the_divergence_of_ancestral_sampling() -> None:
    """KL(exact || sampled) <= KL of the paths, the sum; and it is its integral."""
    process, c = edm(), 0.25
    for n in (4, 10, 40):
        ts = log_snr(process, n, t_eps=None)
        u = levels(process, ts)
        bound = float(sde_cost(c)(u[:-1], u[1:]).sum())
        got = audit(ancestral, process, ts, gaussian(torch.zeros(1), c * torch.eye(1)))
        true = kl(got.exact.means[0], got.exact.covs[0], got.mean, got.cov)
        assert 0 < true < bound
    a, b = 1.7, 0.9

    def rate(s: float) -> float:
        return c**2 * (1 / (c + s**2) - 1 / (c + a**2)) / s**3

    wanted = scipy.integrate.quad(rate, b, a)[0]
    top, end = torch.tensor([a, b], dtype=F64).log()
    assert float(sde_cost(c)(top, end)) == pytest.approx(wanted, rel=1e-8)


def test_dynamic_programming_finds_the_cheapest_path() -> None:
    costs = torch.rand(8, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    for n in (1, 2, 4, 7):
        got = cheapest(costs, n).tolist()
        paths = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), n - 1)]
        sums = [sum(float(costs[i, j]) for i, j in itertools.pairwise(p)) for p in paths]
        assert got == list(paths[sums.index(min(sums))])


@pytest.mark.parametrize("cost", [ode_cost(0.3), sde_cost(0.3)], ids=["ode", "sde"])
def test_optima_are_those_of_a_general_optimiser(cost: labcore.Score) -> None:
    first, last, n = math.log(80.0), math.log(0.01), 6
    u = settled(cost, first, last, n)

    def total(inner: Any) -> float:
        v = torch.tensor([first, *inner, last], dtype=F64)
        return float(cost(v[:-1], v[1:]).sum())

    least = float(cost(u[:-1], u[1:]).sum())
    start: Any = torch.linspace(first, last, n + 1)[1:-1].numpy()
    found: Any = scipy.optimize.minimize(
        total,
        start,
        method="Nelder-Mead",
        options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-14},
    )
    assert least <= float(found.fun) * (1 + 1e-6)


def test_polish_lowers_the_cost_and_keeps_the_order() -> None:
    u, cost = torch.linspace(4, -4, 12, dtype=F64), ode_cost(1.0)
    better = polish(u, cost)
    assert float(cost(better[:-1], better[1:]).sum()) < 0.9 * float(cost(u[:-1], u[1:]).sum())
    assert bool((better[1:] < better[:-1]).all())
    assert (better[0], better[-1]) == (u[0], u[-1])


@pytest.mark.parametrize("process", [vp(), edm()], ids=["vp", "edm"])
@pytest.mark.parametrize("n", [5, 20, 100])
def test_ddim_errs_least_on_the_grid_made_for_it(process: Process, n: int) -> None:
    """By the exact audit on N(0, 1/4): 20 % below the best of the others."""
    data = gaussian(torch.zeros(1), 0.25 * torch.eye(1))
    ours = align_your_steps(process, n, t_eps=None, family="ode", stds=(0.5,))
    others = [g(process, n, t_eps=None) for g in (uniform, log_snr, karras, exponential)]
    error = [audit(ddim, process, ts, data).w2 for ts in (ours, quadratic(process, n), *others)]
    assert error[0] < 0.8 * min(error[1:])


def test_local_errors_of_one_gaussian_are_the_closed_form() -> None:
    """About m, DDIM scales y by (w + ab)/(w + a^2) and the flow by sqrt((w + b^2)/(w + a^2))."""
    w, knots = 0.04, torch.linspace(2.0, -3.0, 21, dtype=F64)
    got = local_errors(ring(1), math.sqrt(w), knots)
    start = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    square = float(start.square().sum(1).mean())  # of y / sqrt(w + sigma^2), all along
    for i, j in ((0, 5), (3, 20), (10, 11)):
        a, b = (float(knots[k].exp()) for k in (i, j))
        short = math.sqrt((w + b * b) / (w + a * a)) - (w + a * b) / (w + a * a)
        wanted = square * (w + a * a) * short**2 / (w + b * b)
        assert float(got[i, j]) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("n", [8, 16])
def test_ddim_stays_nearer_the_flow_of_a_mixture_on_equal_error(n: int) -> None:
    """Against a fine Heun run from the same x_T, on the ring it was made on."""
    process = edm()
    law = labcore.Mixture(
        torch.full((8,), 1 / 8, dtype=F64),
        ring(8),
        (0.01 * torch.eye(2, dtype=F64)).repeat(8, 1, 1),
    )
    score = exact(process, from_mixture(law))
    x = process.prior().chol @ initial([0], 500, (2,), dtype=F64)
    fine = final(heun(process, score, x, log_snr(process, 800, t_eps=None), None), x)
    error = {}
    for grid in (equal_error, log_snr, karras, polynomial):
        out = final(ddim(process, score, x, grid(process, n, t_eps=None), None), x)
        error[grid.name] = float((out - fine).square().sum(1).mean().sqrt())
    assert error["equal_error"] < 0.9 * min(v for k, v in error.items() if k != "equal_error")


@pytest.mark.parametrize(
    ("grid", "options"),
    [
        (polynomial, {"rho": 0.0}),
        (polyexponential, {"rho": -1.0}),
        (beta_quantile, {"alpha": 0.0}),
        (align_your_steps, {"stds": ()}),
        (align_your_steps, {"stds": (0.5, 0.0)}),
        (equal_error, {"std": math.nan}),
        (equal_error, {"modes": 0}),
    ],
)
def test_options_out_of_range_are_refused(grid: Entry, options: dict[str, object]) -> None:
    with pytest.raises(labcore.InvalidGrid, match=f"grid '{grid.name}': "):
        grid(vp(), 5, t_eps=None, **options)

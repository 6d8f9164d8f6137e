"""Adaptive steps: errors follow the tolerance, costs counted and capped, times stay inside."""

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from labcore import Entry, Process, SamplerError, Score
from labcore.noise import brownian, initial
from labcore.scores import counted
from labcore.testing import default_data, gaussian_score, quadratic
from labcore_linear import cld, diag_vp, edm, ou, vp
from labcore_samplers import adaptive_rk23, adaptive_rk45, gotta_go_fast, rk4
from labcore_samplers.embedded import BOSH3, DOPRI5

F64, ROWS = torch.float64, 16
PAIRS = pytest.mark.parametrize("sampler", [adaptive_rk23, adaptive_rk45], ids=lambda e: e.name)
ALL = pytest.mark.parametrize(
    "sampler", [adaptive_rk23, adaptive_rk45, gotta_go_fast], ids=lambda e: e.name
)
PROCESSES = [vp(), edm(), diag_vp(), ou(), cld()]
each_process = pytest.mark.parametrize(
    "process", PROCESSES, ids=["vp", "edm", "diag", "ou", "cld"]
)


def exact(process: Process) -> Score:
    event = process.event_shape or (2,)
    return gaussian_score(process, default_data(torch.Size(event).numel()), event)


def run(
    sampler: Entry,
    process: Process,
    ts: Tensor,
    score: Score | None = None,
    rows: int = ROWS,
    **options: Any,
) -> tuple[Tensor, float, dict[str, float]]:
    """The states, the NFE and what the sampler tells."""
    event = process.event(process.event_shape or (2,))
    x = process.prior().chol @ initial([0], rows, event, dtype=F64)
    metered = counted(score or exact(process), rows)
    noise = brownian(ts, event, [0], rows, dtype=F64)
    told: dict[str, float] = {}

    def states() -> Generator[Tensor]:
        told.update((yield from sampler(process, metered, x, ts, noise, **sampler.bind(options))))

    with torch.inference_mode():
        return torch.stack(list(states())), metered.nfe, told


@each_process
@PAIRS
def test_tight_tolerances_give_the_flow_on_every_process(sampler: Entry, process: Process) -> None:
    """In steps far longer than those of the reference, within and at the end of the grid."""
    ts = quadratic(process, 8)
    tight, nfe, told = run(sampler, process, ts, rtol=1e-6, atol=1e-6)
    fine = quadratic(process, 1024)
    reference, cost, _ = run_fixed(process, fine)
    assert (tight[-1] - reference[-1]).abs().max() < 3e-5
    assert (tight - reference[127::128]).abs().max() < 2e-3 * reference.abs().max()
    assert nfe < cost
    stages = 3 if sampler is adaptive_rk23 else 6
    assert nfe == 1 + stages * (told["accepted"] + told["rejected"])


def run_fixed(process: Process, ts: Tensor) -> tuple[Tensor, float, None]:
    event = process.event(process.event_shape or (2,))
    x = process.prior().chol @ initial([0], ROWS, event, dtype=F64)
    score = counted(exact(process), ROWS)
    with torch.inference_mode():
        states = torch.stack(list(rk4(process, score, x, ts, brownian(ts, event, [0], ROWS))))
    return states, score.nfe, None


@pytest.mark.parametrize(("sampler", "order"), [(adaptive_rk23, 3), (adaptive_rk45, 5)])
def test_cost_grows_as_the_order_says(sampler: Entry, order: int) -> None:
    """NFE ~ tolerance^(-1/order), from 1e-4 to 1e-8."""
    costs = [run(sampler, vp(), quadratic(vp(), 1), rtol=tol, atol=tol)[1] for tol in (1e-4, 1e-8)]
    wanted = 1e4 ** (1 / order)
    assert 0.5 * wanted < costs[1] / costs[0] < 1.6 * wanted


@pytest.mark.parametrize(("pair", "low"), [(BOSH3, 2), (DOPRI5, 4)])
def test_both_rules_of_a_pair_integrate_powers(pair, low: int) -> None:  # type: ignore[no-untyped-def]
    """b is exact to t^(order-1), b* to one power less and not to that one; rows of a sum to c."""
    for c, row in zip(pair.c, pair.a, strict=True):
        assert sum(row) == pytest.approx(c, abs=1e-14)
    assert pair.a[-1] == pair.b[: len(pair.a[-1])]

    def moment(b: tuple[float, ...], p: int) -> float:
        return sum(w * c**p for w, c in zip(b, pair.c, strict=True)) - 1 / (p + 1)

    assert all(abs(moment(pair.b, p)) < 1e-14 for p in range(pair.order))
    assert all(abs(moment(pair.lower, p)) < 1e-14 for p in range(low))
    assert abs(moment(pair.lower, low)) > 1e-4


@each_process
@ALL
def test_no_score_is_asked_outside_the_grid(sampler: Entry, process: Process) -> None:
    seen: list[float] = []
    inner = exact(process)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return inner(x, t)

    for n in (1, 7):
        ts = quadratic(process, n)
        run(sampler, process, ts, watched, rtol=0.05, atol=0.05)
    assert max(seen) == process.T
    assert min(seen) == process.t_eps


@ALL
def test_evaluations_are_capped(sampler: Entry) -> None:
    with pytest.raises(SamplerError, match="8 score evaluations"):
        run(sampler, vp(), quadratic(vp(), 1), rtol=1e-3, atol=1e-3, max_nfe=8)


@ALL
def test_a_score_that_is_not_finite_is_told(sampler: Entry) -> None:
    inner = exact(vp())

    def broken(x: Tensor, t: Tensor) -> Tensor:
        return inner(x, t) if float(t) > 0.5 else torch.full_like(x, torch.nan)

    with pytest.raises(SamplerError, match=r"NaN or Inf in the step from t=0\.[5-9]"):
        run(sampler, vp(), quadratic(vp(), 3), broken)


def test_gotta_go_fast_goes_to_the_path_that_its_tolerance_says() -> None:
    """One path for all tolerances: each run is nearer to the tightest than the one before."""
    ts = quadratic(vp(), 1)
    ends, costs = [], []
    for tol in (0.3, 0.03, 0.003, 0.0003):
        x, nfe, told = run(gotta_go_fast, vp(), ts, rtol=tol, atol=tol, dt_min=1e-7)
        ends.append(x[-1])
        costs.append(nfe)
        assert nfe == 2 * (told["accepted"] + told["rejected"])
    far = [float((x - ends[-1]).square().mean().sqrt()) for x in ends[:-1]]
    assert costs == sorted(costs)
    assert far[1] < 0.5 * far[0]
    assert far[2] < 0.5 * far[1]


def test_gotta_go_fast_reaches_the_law_on_few_evaluations() -> None:
    """4000 samples: the mean within 4 standard errors and the tolerance, covariance within 0.1."""
    data = default_data(2)
    x, nfe, _ = run(gotta_go_fast, vp(), quadratic(vp(), 1), rows=4000, rtol=0.02, atol=0.01)
    spread = data.covs[0].diagonal().sqrt()
    assert ((x[-1].mean(0) - data.means[0]).abs() < 4 * spread / 4000**0.5 + 0.02).all()
    assert torch.allclose(x[-1].T.cov(), data.covs[0], atol=0.1 * float(spread.max() ** 2))
    assert nfe < 800

"""Cells run straight: seeds batched as if alone, errors attributed, guilty cells alone failing."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_lab import ENTRIES, nan_below, registry_of, study

import labcore
from labcore import use
from labcore.measure import run_floor
from labcore.parts import Parts
from labcore.run import Result, _cause, run_cells, sample
from labcore.study import Floor


def parts_and_cells(**changes: Any) -> tuple[Parts, list[Any], list[Any]]:
    made = study(**changes)
    registry = registry_of(made)
    return Parts(registry), made.cells(registry), made.metric_uses(registry)


def only(sampler: Any, *more: Any, **changes: Any) -> list[Result]:
    parts, cells, metrics = parts_and_cells(
        sampler=sampler.name, entries=[*ENTRIES, sampler, *more], steps=4, **changes
    )
    return run_cells(cells, metrics, parts)


def test_a_batch_of_seeds_is_the_runs_alone() -> None:
    parts, cells, metrics = parts_and_cells(sampler="toy_em", steps=8)
    together = run_cells(cells, metrics, parts)
    alone = [run_cells([cell], metrics, parts)[0] for cell in cells]
    for a, b in zip(together, alone, strict=True):
        assert a.status == b.status == "ok"
        for label, named in a.values.items():
            assert named == pytest.approx(b.values[label], rel=1e-5)


def test_samples_follow_the_target() -> None:
    """Mean and covariance within 5 standard errors at 20,000 samples and 200 Heun steps."""
    parts, cells, _ = parts_and_cells(sampler="toy_heun", steps=200, seed=0, n=20_000)
    sampled = sample(cells, parts)
    x, nfe = sampled.x, sampled.nfe
    law = parts.target(cells[0].target).mixture
    assert law is not None
    assert nfe == 400
    error = (x.double().mean(0) - law.mean).abs()
    assert bool((error < 5 * (law.cov.diagonal() / 20_000).sqrt()).all())
    spread = law.cov.diagonal().outer(law.cov.diagonal()) + law.cov.square()
    assert bool(((x.double().T.cov() - law.cov).abs() < 5 * (spread / 20_000).sqrt()).all())


def test_exact_start_and_denoising_change_what_they_say() -> None:
    """With beta small enough p_T is far from the prior: the exact start removes that error."""

    def mean_error(**changes: Any) -> float:
        parts, cells, metrics = parts_and_cells(
            process=use("toy_vp", b1=1.0),
            sampler="toy_heun",
            steps=50,
            seed=0,
            n=20_000,
            **changes,
        )
        return run_cells(cells, metrics, parts)[0].values["local:toy_mean"][""]

    assert mean_error(start="prior") > 0.1 > 5 * mean_error(start="exact")


def test_final_denoising_is_metered() -> None:
    parts, cells, metrics = parts_and_cells(sampler="toy_em", steps=5, seed=0, end="denoise")
    assert run_cells(cells, metrics, parts)[0].nfe == 6


def test_float64_cells_run_in_float64() -> None:
    parts, cells, _ = parts_and_cells(sampler="toy_em", steps=5, seed=0, dtype="float64")
    assert sample(cells, parts).x.dtype == torch.float64


def test_nan_score_names_the_first_time_and_the_score() -> None:
    parts, cells, metrics = parts_and_cells(
        score=use("toy_nan"), sampler="toy_em", steps=8, entries=[*ENTRIES, nan_below(0.2)]
    )
    for result in run_cells(cells, metrics, parts):
        assert result.status == "failed"
        assert "score 'local:toy_nan': NaN or Inf at t=0.1" in result.reason


def test_wrong_score_shape_is_a_clear_error() -> None:
    @labcore.score
    def column(process, target):  # type: ignore[no-untyped-def]
        return lambda x, t: x[:, :1]

    parts, cells, metrics = parts_and_cells(
        score="column", sampler="toy_em", steps=4, entries=[*ENTRIES, column]
    )
    results = run_cells(cells, metrics, parts)
    assert all("(192, 1)" in r.reason or "(64, 1)" in r.reason for r in results)
    assert {r.status for r in results} == {"failed"}


def test_sampler_that_yields_another_shape() -> None:
    @labcore.sampler(order=1, evals=1)
    def narrow(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for _ in ts[1:]:
            yield x[:, :1]

    assert "keep shape and dtype" in only(narrow)[0].reason


def test_sampler_that_mutates_its_input() -> None:
    @labcore.sampler(order=1, evals=1)
    def greedy(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for _ in ts[1:]:
            x.mul_(0.5)
            yield x.clone()

    assert "changed its input" in only(greedy)[0].reason


def test_sampler_that_skips_grid_points() -> None:
    @labcore.sampler(order=1, evals=1)
    def lazy(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        yield x

    assert "1 states for 4 steps" in only(lazy)[0].reason


def test_sampler_that_draws_from_the_global_generator() -> None:
    @labcore.sampler(order=1, evals=1)
    def loose(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for _ in ts[1:]:
            yield x + torch.randn_like(x)

    state = torch.get_rng_state()
    assert "torch's global generator" in only(loose)[0].reason
    assert torch.equal(state, torch.get_rng_state())


def test_blow_up_is_blamed_on_the_sampler() -> None:
    @labcore.sampler(order=1, evals=1)
    def wild(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for t in ts[:-1]:
            x = 1e30 * x + score(x, t)
            yield x

    reason = only(wild)[0].reason
    assert "x is not finite" in reason
    assert "e+30 before: the step is too large" in reason


@pytest.mark.parametrize(
    ("sizes", "large"),
    [([1.0, 2e3], True), ([1.0, 2e2], False), ([0.0, 1e-6], False), ([], False)],
)
def test_steps_are_too_large_where_states_grew(sizes: list[float], large: bool) -> None:
    assert ("too large" in _cause(sizes)) is large


@pytest.mark.parametrize("at", [1, 4])
def test_a_coefficient_that_is_not_finite_is_not_blamed_on_the_steps(at: int) -> None:
    @labcore.sampler(order=1, evals=1)
    def divides(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for i, t in enumerate(ts[:-1], 1):
            x = x + 0.01 * score(x, t)
            yield x * (torch.nan if i >= at else 1.0)
            x = x * (torch.nan if i >= at else 1.0)

    reason = only(divides)[0].reason
    where = "x is not finite at t=" if at == 1 else "its last step gave NaN or Inf"
    assert where in reason
    assert "at most just before: look for 0/0" in reason
    assert "too large" not in reason


def test_one_guilty_seed_leaves_the_others_standing() -> None:
    @labcore.sampler(order=1, evals=1)
    def picky(process: Any, score: Any, x: Tensor, ts: Tensor, noise: Any) -> Iterator[Tensor]:
        for t, s in pairwise(ts):
            if float(noise(t, s)[:64].mean()) > 0.1:
                raise RuntimeError("unlucky")
            yield x

    results = only(picky, seed=range(8))
    statuses = [r.status for r in results]
    assert "ok" in statuses
    assert "failed" in statuses
    guilty = [r for r in results if r.status == "failed"]
    assert all(r.reason == "RuntimeError: unlucky" and "picky" in r.traceback for r in guilty)


@pytest.mark.parametrize(
    ("returned", "said"),
    [("high", "returned str"), (float("nan"), "must be finite"), (None, "NoneType")],
)
def test_a_bad_metric_fails_alone(returned: Any, said: str) -> None:
    @labcore.metric
    def bad(outcome):  # type: ignore[no-untyped-def]
        return returned

    parts, cells, metrics = parts_and_cells(
        metrics=["toy_mean", "bad"], entries=[*ENTRIES, bad], seed=0, sampler="toy_em"
    )
    result = run_cells(cells[:1], metrics, parts)[0]
    assert result.status == "ok"
    assert "local:toy_mean" in result.values
    assert said in result.unmeasured["local:bad"]


def test_floor_is_the_metric_between_exact_sets() -> None:
    """E|mean_a - mean_b|^2 = 2 tr(S)/n: the floor's mean square is within 5 sigma of it."""
    parts, cells, metrics = parts_and_cells(n=100)
    floor = Floor(cells[0].target, 100, 400)
    got = torch.tensor([v["local:toy_mean"][""] for v in run_floor(floor, metrics, parts)])
    law = parts.target(cells[0].target).mixture
    assert law is not None
    expected = 2 * law.cov.trace() / 100
    sd = (8 * law.cov.square().sum()).sqrt() / 100 / 400**0.5
    assert abs(got.square().mean() - expected) < 5 * sd


def test_what_a_sampler_returns_becomes_rows_of_its_cell() -> None:
    @labcore.sampler(order=1, evals=1)
    def telling(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for t in ts[:-1]:
            x = x + 0.0 * score(x, t)
            yield x
        first = torch.arange(len(x)).double() // 64
        return {"acceptance": first, "tries": 7}

    results = only(telling, seed=[5, 6])
    assert [r.values["diagnostics"] for r in results] == [
        {"acceptance": 0.0, "tries": 7.0},
        {"acceptance": 1.0, "tries": 7.0},
    ]


def test_a_log_density_is_metered_and_a_score_of_double_cost_pays_double() -> None:
    @labcore.sampler(order=1, evals=3)
    def thrifty(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for t in ts[:-1]:
            score.log_prob(x, t), score(x, t), score(x, t)
            yield x

    @labcore.score
    def rich(process, target):  # type: ignore[no-untyped-def]
        law = ENTRIES[2](process, target)
        return labcore.ScoreWith(law, lambda x, t: -x.square().sum(1), cost=2)

    parts, cells, metrics = parts_and_cells(
        sampler="thrifty", score="rich", steps=4, seed=0, entries=[*ENTRIES, thrifty, rich]
    )
    assert run_cells(cells, metrics, parts)[0].nfe == 4 * 3 * 2
    assert "knows no log density" in only(thrifty)[0].reason

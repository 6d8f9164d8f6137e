"""The checks of cost and of every number of steps: each planted fault is caught, twins pass."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import labcore
from labcore import Noise, Process, Score
from labcore.testing import Case, check_sampler, vp
from labcore.testing.probe import family, probe
from labcore_samplers import annealed_langevin, ddim, edm_churn, lms3, mala, restart

F64 = torch.float64
MINE = ("nfe", "steps")


def found(sampler: Any, *, seed: int = 0, process: Process | None = None, **traits: Any) -> Any:
    entry = labcore.sampler(name="planted", **traits)(sampler)
    return check_sampler(entry, process, checks=MINE, on_fail="return", seed=seed)


def euler(process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return x + float(s - t) * labcore.velocity(process, score)(t, x)


def heun(process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    v, h = labcore.velocity(process, score), float(s - t)
    slope = v(t, x)
    return x + h / 2 * (slope + v(s, x + h * slope))


def scaled(factor: float) -> Any:
    def step(process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x + factor * (euler(process, score, x, t, s) - x)

    return step


def chosen(step_for: Any) -> Any:
    """A sampler whose step is step_for(number of steps)."""

    def sampler(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        step = step_for(len(ts) - 1)
        for t, s in pairwise(ts):
            x = step(process, score, x, t, s)
            yield x

    return sampler


def multistep(low_order_end: Any) -> Any:
    """DPM-Solver++(2M) with a last step of order 1 where low_order_end(number of steps)."""

    def sampler(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        N, old = len(ts) - 1, None
        lam = process.log_snr(ts) / 2
        for i, (t, s) in enumerate(pairwise(ts)):
            x0, h = process.tweedie(x, t, score(x, t)), lam[i + 1] - lam[i]
            D = x0
            if old is not None and not (i == N - 1 and low_order_end(N)):
                D = x0 + h / (lam[i] - lam[i - 1]) / 2 * (x0 - old)
            ratio = process.Sigma(s).chol @ process.Sigma(t).chol.inv
            Phi = process.Phi(s, torch.zeros_like(s))
            x, old = ratio @ x - torch.expm1(-h) * (Phi @ D), x0
            yield x

    return sampler


@pytest.mark.parametrize("at", [4, 15, 37, 80, 700])
def test_another_method_from_some_number_of_steps_on_is_found_at_that_number(at: int) -> None:
    certificate = found(chosen(lambda n: heun if n >= at else euler), order=1)
    assert f"from {at} steps on a step asks for other things" in certificate["steps"].found


@pytest.mark.parametrize("at", [6, 11, 41, 90])
@pytest.mark.parametrize("factor", [0.99, 1.001])
def test_other_coefficients_from_some_number_of_steps_on_are_found(at: int, factor: float) -> None:
    step = scaled(factor)
    certificate = found(chosen(lambda n: step if n >= at else euler), order=1, evals=1)
    assert certificate["steps"].found.startswith(f"from {at} steps on")
    assert certificate["nfe"].status == "passed"


@pytest.mark.parametrize("below", [11, 15, 50, 200])
def test_a_last_step_of_lower_order_below_some_number_of_steps_is_found(below: int) -> None:
    certificate = found(multistep(lambda n: n < below), order=2, evals=1)
    assert f"from {below} steps on the weight of a score changes" in certificate["steps"].found


@pytest.mark.parametrize("low", [True, False])
def test_a_last_step_of_lower_order_at_all_numbers_of_steps_is_one_algorithm(low: bool) -> None:
    certificate = found(multistep(lambda _: low), order=1, evals=1)
    assert not certificate.failed


@pytest.mark.parametrize("entry", [ddim, lms3, edm_churn, restart, mala, annealed_langevin])
def test_no_switch_is_seen_where_there_is_none(entry: labcore.Entry) -> None:
    assert not check_sampler(entry, checks=MINE, on_fail="return", seed=3).failed


def test_a_dependence_on_the_number_of_steps_that_is_no_switch_is_told() -> None:
    """Euler's drift times 1 + 1/N: other coefficients at each number of steps."""
    certificate = found(chosen(lambda n: scaled(1 + 1 / n)), order=1, evals=1)
    check = certificate["steps"]
    assert check.status == "passed"
    assert "depends on their number" in check.found


def test_nan_at_one_number_of_steps_is_found() -> None:
    nan = scaled(float("nan"))
    assert (
        "NaN or Inf at 37 steps"
        in found(chosen(lambda n: nan if n == 37 else euler))["steps"].found
    )


def last_step_of_length_zero(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    times = [*ts[:-1], ts[-2]]
    for t, s in pairwise(times):
        x = euler(process, score, x, t, s)
        yield x


def a_time_twice(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    """A grid with one time repeated inside, which costs one evaluation that moves nothing."""
    for i, (t, s) in enumerate(pairwise(ts)):
        if i == 2:
            x = euler(process, score, x, t, t)
        x = euler(process, score, x, t, s)
        yield x


def test_steps_of_length_zero_are_found() -> None:
    assert "does not move" in found(last_step_of_length_zero)["steps"].found
    assert "calls the score twice in a row at the same x" in found(a_time_twice)["steps"].found


def writes_to_the_meter(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    for t, s in pairwise(ts):
        x = heun(process, score, x, t, s)
        score.nfe -= 1
        yield x


def calls_past_the_meter(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    for t, s in pairwise(ts):
        slope = score.model.score(x, t)
        x = euler(process, lambda x, t: 0.5 * (score(x, t) + slope), x, t, s)  # noqa: B023
        yield x


def one_more_at_the_end(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    for t, s in pairwise(ts):
        x = euler(process, score, x, t, s)
        yield x
    score(x, ts[-1])


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (writes_to_the_meter, "the meter says 1 score evaluations in 1 steps where 2 were made"),
        (calls_past_the_meter, "the meter says 1 score evaluations in 1 steps where 2 were made"),
        (one_more_at_the_end, "2 score evaluations in 1 steps (torch.float64), declared 1"),
        (chosen(lambda _: heun), "declared 1"),
        (chosen(lambda n: heun if n == 53 else euler), "106 score evaluations in 53 steps"),
    ],
)
def test_evaluations_are_counted_by_the_lab_and_not_by_the_meter(sampler: Any, says: str) -> None:
    assert says in found(sampler, order=1, evals=1)["nfe"].found


def test_evaluations_of_a_final_call_can_be_declared() -> None:
    assert found(one_more_at_the_end, order=1, evals=1, extra=1)["nfe"].status == "passed"


def refuses_few(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    if len(ts) < 4:
        raise labcore.SamplerError("refuses_few: it needs 3 steps or more")
    for t, s in pairwise(ts):
        x = euler(process, score, x, t, s)
        yield x


def test_a_sampler_may_refuse_few_steps_and_says_so() -> None:
    certificate = found(refuses_few, order=1, evals=1)
    assert not certificate.failed
    assert "it refuses fewer than 3" in certificate["steps"].found


def test_grids_of_a_family_have_one_time_more_each() -> None:
    process = vp()
    for n in range(1, 200):
        before, after = (set(family(process, k).tolist()) for k in (n, n + 1))
        assert len(before) == n + 1
        assert len(after - before) == 1
        assert before < after


def test_the_open_loop_reads_off_the_formula() -> None:
    """Euler's: a step adds h (-G^2/2) of the answer, and multiplies what was by 1 + h A."""
    entry = labcore.sampler(order=1, evals=1, name="euler")(chosen(lambda _: euler))
    case = Case(entry, vp(), {})
    p = probe(case, 3)
    t = p.ts
    weight = [float(-(t[i + 1] - t[i]) * case.process.GG(t[i]).param / 2) for i in range(3)]
    carry = [float(1 + (t[i + 1] - t[i]) * case.process.A(t[i]).param) for i in range(3)]
    expected = [weight[0] * carry[1] * carry[2], weight[1] * carry[2], weight[2]]
    assert p.linear
    assert p.response[-1, :, 0].tolist() == pytest.approx(expected, rel=1e-12)

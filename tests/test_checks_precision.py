"""The checks of precision and stability: each planted fault is caught, correct twins pass."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import labcore
from labcore.testing import Case, check_sampler, quadratic, vp
from labcore.testing.checks.precision import NOISE, computational_noise
from labcore.testing.checks.stability import Modes
from labcore_samplers import ddim, euler, euler_maruyama, heun, langevin, rk4

F64 = torch.float64


def found(sampler: Any, check: str, **how: Any) -> Any:
    entry = labcore.sampler(name="planted", order=1, evals=1, **how.pop("traits", {}))(sampler)
    return check_sampler(entry, checks=[check], on_fail="return", **how)[check]


def single(x: Tensor) -> Tensor:
    return x.float().to(x)


def euler_with(
    *, of_state: Any = None, of_time: Any = None, of_score: Any = None, of_h: Any = None
):  # type: ignore[no-untyped-def]
    """Euler, with something done to one of its numbers."""

    def same(x: Tensor) -> Tensor:
        return x

    def sampler(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        v = labcore.velocity(process, lambda x, t: (of_score or same)(score(x, t)))
        for t, s in pairwise(ts):
            h = (of_h or same)(s - t)
            x = (of_state or same)(x + h.to(x) * v((of_time or same)(t), x))
            yield x

    return sampler


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["of_state", "of_time", "of_score", "of_h"])
def test_float32_in_a_run_in_float64_is_found(what: str, seed: int) -> None:
    check = found(euler_with(**{what: single}), "precision", seed=seed)
    assert check.status == "failed"
    assert "as if something in it were float32" in check.found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", [euler, heun, ddim, rk4, euler_maruyama])
def test_float64_has_the_noise_of_float64(sampler: labcore.Entry, seed: int) -> None:
    noise = computational_noise(Case(sampler, vp(), sampler.bind({}), seed))
    assert noise < 1e-13
    assert noise < NOISE / 1000


def test_the_floor_of_float32_is_where_its_rounding_is() -> None:
    """Order 4 meets it at tens of steps, order 1 at ten thousand and more; neither is better than
    one rounding, nor much worse than one a step."""
    checks = [check_sampler(s, checks=["precision"])["precision"] for s in (rk4, euler)]
    for check in checks:
        assert 1e-8 < check.figures["float32"][-1] < 256 * 2**-24
        assert 1e-4 < check.figures["bfloat16"][-1] < 2**-8
    assert 10 < checks[0].figures["float32 floor at"] < 100
    assert checks[1].figures["float32 floor at"] > 5000


def test_an_overflow_of_float32_is_found() -> None:
    def huge(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for t, s in pairwise(ts):
            x = (1e30 * (1e30 * x)) / 1e30 / 1e30 if len(ts) > 20 else x
            x = x + float(s - t) * labcore.velocity(process, score)(t, x)
            yield x

    assert "NaN or Inf at 64 steps in float32" in found(huge, "precision").found


def unstable(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    """x_{i+1} = -4 x_i + 5 x_{i-1} + h (4 v_i + 2 v_{i-1}): consistent, with a root at -5."""
    v, before = labcore.velocity(process, score), None
    for t, s in pairwise(ts):
        new, h = v(t, x), float(s - t)
        ahead = (
            x + h * new
            if before is None
            else -4 * x + 5 * before[0] + h * (4 * new + 2 * before[1])
        )
        before, x = (x, new), ahead
        yield x


def test_a_multistep_formula_with_a_root_outside_the_circle_is_unstable() -> None:
    check = found(unstable, "stability")
    assert check.status == "failed"
    assert "no less with more steps" in check.found


def test_the_amplification_is_the_flow_s_in_the_limit() -> None:
    """|C_s^-1/2 J C_t^1/2| is 1 in every mode for a fine probability flow, less for an SDE."""
    flow, sde = (Modes(Case(s, vp(), s.bind({}))) for s in (rk4, euler_maruyama))
    ts = quadratic(vp(), 512)
    assert flow.amplification(ts).tolist() == pytest.approx([1.0] * 12, abs=1e-6)
    assert float(sde.amplification(ts).max()) < 1


def test_eulers_amplification_is_its_product_over_the_steps() -> None:
    modes, ts, process = Modes(Case(euler, vp(), {})), quadratic(vp(), 5), vp()
    one = torch.ones(12, dtype=F64)
    for t, s in pairwise(ts):
        C = modes.law(t)[:, 0, 0]
        A, GG = process.A(t).param, process.GG(t).param
        one = one * (1 + (s - t) * (A + GG / 2 / C))
    C_t, C_s = modes.law(ts[0])[:, 0, 0], modes.law(ts[-1])[:, 0, 0]
    expected = one.abs() * (C_t / C_s).sqrt()
    assert modes.amplification(ts).tolist() == pytest.approx(expected.tolist(), rel=1e-10)


def test_the_least_stable_number_of_steps_is_exact() -> None:
    modes = Modes(Case(euler, vp(), {}))
    check = check_sampler(euler, checks=["stability"])["stability"]
    least = check.figures["stable from"]
    worst = [float(modes.amplification(quadratic(vp(), n)).max()) for n in (least - 1, least)]
    assert worst[0] > 2 >= worst[1]


def test_steps_that_do_not_shrink_are_told_and_not_failed() -> None:
    check = check_sampler(langevin, checks=["stability"])["stability"]
    assert check.status == "passed"
    assert "its steps do not shrink with the grid" in check.found

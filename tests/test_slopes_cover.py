"""Orders read off lists of errors: intervals cover, dips and floors and plateaus are told."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labcore.testing.slopes import Slope, fading, follow, measure

STEPS = (8, 16, 32, 64, 128, 256)


def drawn(rng: np.random.Generator, noise: float) -> tuple[float, Slope]:
    """The order and what is measured, for c1 h^p + c2 h^(p+1) + c3 h^(p+2) + rounding."""
    p = float(rng.choice([1, 1.5, 2, 3, 4]))
    n = 2 ** np.arange(3, rng.integers(7, 11))
    h = 1 / n
    r, q = 10 ** rng.uniform([-1, -1], [1.2, 2]) * rng.choice([-1, 1], 2)
    floor = 10 ** rng.uniform(-15, -13)
    errors = 10 ** rng.uniform(-2, 2) * h**p * np.abs(1 + r * h + q * h**2)
    errors *= 1 + noise * rng.standard_normal(len(n))
    errors = np.abs(errors + floor * rng.uniform(-1, 1, len(n)))
    return p, measure(n.tolist(), errors.tolist(), floor=floor, noise=noise)


@pytest.mark.parametrize(("noise", "covered", "alarms"), [(0.0, 0.94, 0.002), (0.05, 0.85, 0.01)])
def test_the_interval_holds_the_order(noise: float, covered: float, alarms: float) -> None:
    """Of thousands of curves, few are not told from another order, and none far from its own."""
    rng = np.random.default_rng(0)
    found = [drawn(rng, noise) for _ in range(3000)]
    resolved = [(p, s) for p, s in found if s.resolved]
    assert len(resolved) > 0.9 * len(found)
    assert np.mean([s.low <= p <= s.high for p, s in resolved]) > covered
    assert np.mean([not s.within(p) for p, s in resolved]) < alarms
    assert np.median([s.half for _, s in resolved]) < (0.25 if noise else 0.05)


def test_a_wrong_order_is_not_within_its_interval() -> None:
    """Half an order less is told wherever the second term is no larger than the first."""
    rng = np.random.default_rng(1)
    n = np.array(STEPS)
    for _ in range(1000):
        p, r = float(rng.choice([1, 2, 3])), rng.uniform(-4, 4)
        found = measure(STEPS, (n**-p * (1 + r / n)).tolist())
        assert found.within(p)
        assert not found.within(p + 0.5)
        assert not found.within(p - 0.5)


def test_the_next_order_is_fitted_not_averaged() -> None:
    n = np.array(STEPS)
    found = measure(STEPS, (n**-3.0 * (1 + 4 / n)).tolist())
    plain = -np.polyfit(np.log(n), np.log(n**-3.0 * (1 + 4 / n)), 1)[0]
    assert abs(plain - 3) > 0.05
    assert found.value == pytest.approx(3, abs=0.03)


def test_the_rounding_floor_is_left_out() -> None:
    errors = [1e-3 * 16.0**-k + 1e-11 for k in range(8)]
    found = measure([8 * 2**k for k in range(8)], errors, floor=1e-11)
    assert found.value == pytest.approx(4, abs=0.1)
    assert found.steps[found.last] < 8 * 2**6
    few = measure(STEPS, [1e-15] * 6, floor=1e-14)
    assert not few.resolved
    assert "use fewer steps" in few.why


def test_the_coarse_end_is_left_out_where_it_is_another_law() -> None:
    errors = [5.0, 4.0, 3.5, *(1e2 * n**-2.0 for n in (64, 128, 256, 512))]
    found = measure([8, 16, 32, 64, 128, 256, 512], errors)
    assert (found.steps[found.first], found.steps[found.last]) == (64, 512)
    assert found.value == pytest.approx(2, abs=1e-6)


def test_a_change_of_sign_is_not_taken_for_an_order() -> None:
    """c1 h^2 - c2 h^3 crosses zero between the last two step counts."""
    n = np.array(STEPS[:5])
    found = measure(n.tolist(), np.abs(n**-2.0 - 100 * n**-3.0).tolist())
    assert not found.resolved or found.within(2)


def test_a_plateau_is_told_with_its_height() -> None:
    errors = [0.3 / n + 0.02 for n in (8, 64, 512, 4096, 32768)]
    found = measure([8, 64, 512, 4096, 32768], errors)
    assert found.plateau == pytest.approx(0.02, rel=0.05)
    assert not found.resolved
    assert found.high < 0.5


def test_steps_are_doubled_until_the_order_is_known() -> None:
    asked: list[int] = []

    def error(n: int) -> float:
        asked.append(n)
        return n**-2.0 * (1 + 3 / n)

    found = follow(error, fine=1024)
    assert asked == [8, 16, 32, 64, 128][: len(asked)]
    assert found.value == pytest.approx(2, abs=0.1)
    asked.clear()
    assert math.isnan(follow(lambda n: 1e-16, floor=1e-14).value)


@given(
    p=st.sampled_from([2, 3]),
    hidden=st.floats(50, 700),
    sign=st.sampled_from([1, -1]),
    drift=st.floats(-5, 5),
)
def test_a_lower_order_that_hides_up_to_some_steps_takes_over_at_fine_ones(
    p: int, hidden: float, sign: int, drift: float
) -> None:
    """a n^-p + b n^(1-p), equal in size at ``hidden`` steps."""

    def error(n: int) -> float:
        return abs(n**-p * (1 + drift / n) + sign / hidden * n ** (1 - p))

    steps, lower = fading(error, p, p, floor=1e-16)
    assert max(steps) == 8192
    assert lower == pytest.approx(p - 1, abs=0.15)


@given(
    p=st.sampled_from([1, 2, 3, 4]),
    drift=st.floats(-40, 40),
    plateau=st.floats(-12, -2),
    less=st.sampled_from([0, 1]),
    finest=st.sampled_from([2048, 8192]),
)
@example(p=1, drift=0.0, plateau=-3.1, less=0, finest=2048)
def test_neither_drift_nor_a_plateau_is_a_lower_order(
    p: int, drift: float, plateau: float, less: int, finest: int
) -> None:
    """Seen as p and declared as p or one less."""

    def error(n: int) -> float:
        return n**-p * (1 + drift / n) + 10**plateau

    assert fading(error, p, max(p - less, 1), floor=1e-16, finest=finest)[1] is None


def test_a_blow_up_at_fine_steps_is_no_order() -> None:
    steps, lower = fading(lambda n: n**-2.0 if n < 512 else math.inf, 2, 2)
    assert lower is None
    assert max(steps) >= 512

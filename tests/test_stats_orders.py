"""Fitted orders: known slopes come back, and the noise floor stays out of the fit."""

import numpy as np
import pytest
import scipy.stats
from synthetic_rows import curve, failed, floor, frame, row, seeds, table

from labcore.errors import LabError
from labcore.stats import slope, slopes

STEPS = (5, 10, 20, 40, 80, 160)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.0])
def test_a_power_law_gives_its_order(order):
    fit = slope(frame(curve(lambda k: 7 * k**-order, STEPS, [1.0, 1.0])))
    assert fit.slope == pytest.approx(-order, abs=1e-10)
    assert (fit.lo, fit.hi) == pytest.approx((-order, -order), abs=1e-9)
    assert fit.x == STEPS
    assert (dict(fit.left_out), fit.reason) == ({}, "")


def test_common_noise_of_a_seed_cancels():
    """Each seed off by its own factor at all steps: the order is known exactly all the same."""
    fit = slope(frame(curve(lambda k: 3 / k, STEPS, [0.2, 1.0, 3.0, 0.9])))
    assert (fit.lo, fit.slope, fit.hi) == pytest.approx((-1, -1, -1), abs=1e-9)


def test_one_seed_gives_the_regression_interval():
    noise = np.exp(np.random.default_rng(0).normal(0, 0.2, len(STEPS)))
    values = dict(zip(STEPS, noise / np.array(STEPS) ** 2, strict=True))
    fit = slope(frame(curve(values.get, STEPS, [1.0])))
    want = scipy.stats.linregress(np.log(STEPS), np.log(list(values.values())))
    half = scipy.stats.t.ppf(0.975, len(STEPS) - 2) * want.stderr
    assert fit.slope == pytest.approx(want.slope, rel=1e-12)
    assert (fit.lo, fit.hi) == pytest.approx((want.slope - half, want.slope + half), rel=1e-9)


@pytest.mark.parametrize("count", [1, 6])
def test_interval_holds_the_order(count):
    """1000 noisy curves of order 2: at least 0.95 less 4 sd (0.0276) hold it.

    The wider of two intervals may hold more; one made of a normal quantile would hold 0.88
    (4 degrees of freedom), 7 sd too few.
    """
    rng = np.random.default_rng(count)
    n, k, seed = np.indices((1000, len(STEPS), count)).reshape(3, -1)
    steps = np.array(STEPS)[k]
    values = steps**-2.0 * np.exp(rng.normal(0, 0.1, len(k)))
    fits = slopes(table({"n": n, "steps": steps, "nfe": steps, "seed": seed, "value": values}))
    assert len(fits) == 1000
    held = ((fits["lo"] <= -2) & (fits["hi"] >= -2)).mean()
    assert 0.95 - 0.0276 <= held <= (0.95 + 0.0276 if count == 1 else 1.0)
    assert fits["slope"].mean() == pytest.approx(-2, abs=0.01)


def test_points_at_the_floor_are_left_out():
    """err = 1/k^2 plus a floor of 1e-3: without the floor the flat end spoils the order."""
    law = curve(lambda k: k**-2.0 + 1e-4 * (k > 40), STEPS, [1.0, 1.01, 0.99])
    spoiled = slope(frame(law))
    assert spoiled.slope is not None
    assert spoiled.slope > -1.9
    fit = slope(frame(law, floor([1e-4, 1.5e-4, 0.5e-4] * 20)))
    assert fit.x == (5, 10, 20, 40)
    assert fit.left_out == {"at the floor": 2}
    assert fit.slope == pytest.approx(-2, abs=1e-9)


def test_a_lucky_point_past_the_floor_is_left_out():
    values = dict(zip(STEPS, [1.0, 0.1, 0.01, 0.0005, 0.009, 0.008], strict=True))
    fit = slope(frame(curve(values.get, STEPS, [1.0]), floor([1e-3] * 40)))
    assert fit.x == (5, 10, 20)
    assert fit.left_out == {"at the floor": 1, "beyond the floor": 2}


def test_clear_sets_how_far_above_the_floor():
    rows = frame(curve(lambda k: 1 / k, STEPS, [1.0]), floor([0.004] * 40))
    assert slope(rows).x == (5, 10, 20, 40, 80)
    assert slope(rows, clear=10).x == (5, 10, 20)


def test_a_mean_whose_interval_reaches_the_floor_is_not_clear():
    noisy = seeds([0.001, 2.0, 0.5], steps=20, nfe=20)
    clean = curve(lambda k: 5 / k, (5, 10), [1.0, 1.0, 1.0])
    fit = slope(frame(clean, noisy, floor([0.01] * 40)))
    assert fit.slope is None
    assert fit.left_out == {"at the floor": 1}


def test_negative_means_are_counted_not_logged():
    """An unbiased squared metric: negative at the finest steps, no floor rows."""
    values = dict(zip(STEPS, [1.0, 0.25, 1 / 16, 1 / 64, -0.001, 0.0], strict=True))
    fit = slope(frame(curve(values.get, STEPS, [1.0])))
    assert fit.slope == pytest.approx(-2)
    assert fit.left_out == {"not positive": 2}
    unclear = slope(frame(curve(lambda k: 1 / k, STEPS, [3.0, -1.0, 0.2])))
    assert unclear.left_out == {"not clear of zero": 6}


def test_a_failed_point_does_not_end_the_run():
    law = curve(lambda k: k**-1.0, (5, 10, 40, 80), [1.0, 1.0])
    lost = [failed(steps=20, nfe=20, seed=s) for s in (0, 1)]
    fit = slope(frame(law, lost))
    assert fit.x == (5, 10, 40, 80)
    assert fit.left_out == {"failed": 1}
    assert fit.slope == pytest.approx(-1)


def test_seeds_lost_at_one_point_do_not_spoil_the_others():
    law = curve(lambda k: 2 / k, STEPS, [1.0, 1.1, 0.9])
    law[4] = failed(steps=10, nfe=10, seed=1)
    fit = slope(frame(law))
    assert fit.slope == pytest.approx(-1, abs=0.02)
    assert fit.lo < -1 < fit.hi


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_points_give_a_reason(count):
    fit = slope(frame(curve(lambda k: 1 / k, STEPS[:count], [1.0]), seeds([np.nan], steps=500)))
    assert fit.slope is None
    assert np.isnan([fit.lo, fit.hi]).all()
    assert fit.reason == f"{count} usable points, 3 needed (1 failed)"


def test_all_failed_has_no_slope():
    fit = slope(frame(*(seeds([np.nan, np.nan], steps=k, nfe=k) for k in STEPS)))
    assert fit.reason == "0 usable points, 3 needed (6 failed)"


def test_slope_against_nfe_or_steps():
    """Two calls a step and one to end: nfe = 2 k + 1 bends the line, steps do not."""
    law = [row(steps=k, nfe=2 * k + 1, value=k**-2.0) for k in STEPS]
    assert slope(frame(law), x="steps").slope == pytest.approx(-2)
    assert slope(frame(law), x="nfe").x == tuple(2.0 * k + 1 for k in STEPS)


def test_window_takes_points_within():
    bent = curve(lambda k: 1.0 if k < 20 else 400 / k**2, STEPS, [1.0])
    fit = slope(frame(bent), window=(20, np.inf))
    assert fit.x == (20, 40, 80, 160)
    assert fit.slope == pytest.approx(-2)


def test_slopes_of_each_curve_in_one_table():
    rows = frame(
        curve(lambda k: 1 / k, STEPS, [1.0, 1.1], sampler="a:one"),
        curve(lambda k: 9 / k**2, STEPS, [1.0, 1.1], sampler="a:two"),
        curve(lambda k: 9 / k**2, STEPS[:2], [1.0, 1.1], sampler="a:short"),
    )
    table = slopes(rows).set_index("sampler")
    assert table["slope"].to_numpy() == pytest.approx([-1, -2, np.nan], nan_ok=True)
    assert table["points"].tolist() == [6, 6, 2]
    assert table.loc["a:short", "reason"] == "2 usable points, 3 needed"
    with pytest.raises(LabError, match="holds 3 curves"):
        slope(rows)
    assert slopes(rows.iloc[:0]).empty

"""The order a sampler shows: the slope of its error against the work, in log-log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from labcore.errors import LabError
from labcore.stats.intervals import floors, per_seed, summary_of, t_quantile, with_floors
from labcore.stats.rows import SETTING, cells

Axis = Literal["nfe", "steps"]
CURVE = tuple(c for c in SETTING if c not in ("steps", "t_eps"))  # a grid's end may follow n


@dataclass(frozen=True)
class Slope:
    """slope (minus the order) with its interval, or None and the reason why.

    `x` are the points it was fitted on and `left_out` counts the others by cause.
    """

    slope: float | None
    lo: float
    hi: float
    x: tuple[float, ...]
    left_out: Mapping[str, int]
    reason: str


def slope(
    frame: pd.DataFrame,
    x: Axis = "nfe",
    *,
    level: float = 0.95,
    clear: float = 3.0,
    window: tuple[float, float] = (0.0, np.inf),
) -> Slope:
    """Fitted slope of log mean against log x for the frame's one curve.

    Used is the longest run of points that are clearly above the floor: the mean above `clear`
    times the band, and above it by two standard errors (where there are no floor rows, above
    zero by two). A mean at or below zero, which an unbiased metric can have, is never one of
    them. What the floor adds to a biased metric is not subtracted: it flattens the last points,
    and raising `clear` leaves these out.

    The interval is the wider of two: that of the regression's residuals (curvature counts), and
    that of the slopes of single seeds, each linearised at the mean (common noise cancels).
    """
    curves = list(_curves(frame, x, level, clear, window))
    if len(curves) != 1:
        raise LabError(
            f"slope: the frame holds {len(curves)} curves, not one; filter it, or use slopes()"
        )
    return curves[0][1]


def slopes(
    frame: pd.DataFrame,
    x: Axis = "nfe",
    *,
    level: float = 0.95,
    clear: float = 3.0,
    window: tuple[float, float] = (0.0, np.inf),
) -> pd.DataFrame:
    """`slope` of every curve: its setting, slope, lo, hi, points, x, left_out, reason."""
    rows = [
        {
            **curve,
            **{"slope": np.nan if fit.slope is None else fit.slope, "lo": fit.lo, "hi": fit.hi},
            **{"points": len(fit.x), "x": fit.x, "left_out": dict(fit.left_out)},
            "reason": fit.reason,
        }
        for curve, fit in _curves(frame, x, level, clear, window)
    ]
    fitted = ["slope", "lo", "hi", "points", "x", "left_out", "reason"]
    return pd.DataFrame(rows, columns=[*(c for c in CURVE if c in frame), *fitted])


def _curves(
    frame: pd.DataFrame, x: Axis, level: float, clear: float, window: tuple[float, float]
) -> Iterator[tuple[dict[str, Any], Slope]]:
    seeds, keys = per_seed(cells(frame), SETTING)
    if seeds.empty:
        return
    summary = with_floors(summary_of(seeds, keys, level), floors(frame, level=level), level=level)
    seeds["setting"] = seeds.groupby(keys, dropna=False, sort=False, observed=True).ngroup()
    values = seeds.pivot(index="seed", columns="setting", values="value").to_numpy()
    curve = [c for c in CURVE if c in keys]
    for key, points in summary.groupby(curve, dropna=False, sort=False, observed=True):
        points = points[points[x].between(*window)].sort_values(x)
        why = _left_out(points, clear)
        used = _longest_run(why)
        fit = _fit(points[x].to_numpy()[used], values[:, points.index[used]], level)
        yield dict(zip(curve, key, strict=True)), _verdict(fit, points[x].to_numpy(), used, why)


def _left_out(points: pd.DataFrame, clear: float) -> np.ndarray:
    """Why each point is not part of the fit; "" where it is."""
    columns = ("mean", "sd", "count", "floor_hi")
    mean, sd, count, floor = (points[c].to_numpy(dtype=float) for c in columns)
    lo = mean - 2 * np.nan_to_num(sd / np.sqrt(np.maximum(count, 1)))
    causes = {
        "failed": np.isnan(mean),
        "not positive": mean <= 0,
        "at the floor": (mean < clear * floor) | (lo <= floor),
        "not clear of zero": lo <= 0,
    }
    return np.select(list(causes.values()), list(causes), default="").astype(object)


def _longest_run(why: np.ndarray) -> np.ndarray:
    """Mask of the longest run of usable points, the coarsest of equals; failures do not end it."""
    run = np.cumsum((why != "") & (why != "failed"))
    usable = why == ""
    if not usable.any():
        return usable
    longest = np.bincount(run[usable]).argmax()
    return usable & (run == longest)


def _fit(x: np.ndarray, values: np.ndarray, level: float) -> tuple[float, float]:
    """Slope and half-width from values (seeds, points), NaN where a seed failed."""
    m = len(x)
    if m < 3 or np.ptp(x) == 0:
        return np.nan, np.nan
    mean = np.nanmean(values, axis=0)
    log_x, log_y = np.log(x) - np.log(x).mean(), np.log(mean)
    weights = log_x / (log_x @ log_x)
    fitted = float(weights @ log_y)
    residual = log_y - log_y.mean() - fitted * log_x
    half = t_quantile(level, m - 2) * np.sqrt(residual @ residual / (m - 2) / (log_x @ log_x))
    single = (values / mean)[~np.isnan(values).any(axis=1)] @ weights
    if len(single) > 1:
        over_seeds = t_quantile(level, len(single) - 1) * single.std(ddof=1) / len(single) ** 0.5
        half = max(half, over_seeds)
    return fitted, float(half)


def _verdict(fit: tuple[float, float], x: np.ndarray, used: np.ndarray, why: np.ndarray) -> Slope:
    why = np.where(used | (why != ""), why, "beyond the floor")
    causes, counts = np.unique(why[~used], return_counts=True)
    left_out = dict(zip(causes.tolist(), counts.tolist(), strict=True))
    points, (value, half) = tuple(x[used].tolist()), fit
    if not np.isnan(value):
        return Slope(value, value - half, value + half, points, left_out, "")
    others = ", ".join(f"{count} {cause}" for cause, count in left_out.items())
    reason = f"{len(points)} usable points, 3 needed" + (f" ({others})" if others else "")
    return Slope(None, np.nan, np.nan, points, left_out, reason)

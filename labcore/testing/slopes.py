"""The order of convergence in a list of errors, with an interval.

An error e(n) = c n^-p (1 + r/n + ...) has a straight line in log n only in the limit. Its local
slopes, between neighbouring step counts, drift towards p as r/n goes to zero, until rounding (or
a plateau that has another cause) takes over. So log e is fitted by

    log e = a - p log n + b/n

by least squares over the asymptotic window: the longest tail of the points above the floor whose
residuals are those of the given noise and of the terms left out. The interval has two parts:
Student's for the scatter, and the drift of the fine end, |p - local slope there|, together with
what the floor adds to the last point, for what the model leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

EPS = 2.0**-52
CLEAR = 30.0
"""How far above the floor a point must be to count: there it adds 3 % at most."""
TERMS = 0.02
"""Residuals (of log e) that the terms left out may leave: 2 % of the error."""
DRIFT = 0.5
"""Beyond this change of the local slope in the window's finest three points none is read off."""


@dataclass(frozen=True)
class Slope:
    """An order with its interval [low, high] over steps[first : last + 1].

    ``resolved`` is false where no window is asymptotic: too few points above the floor, a dip
    (the error changes its sign) or local slopes that do not settle; ``why`` then says so, and the
    interval is what the finest points allow. ``plateau`` is the height where the error stops
    falling above the floor, or None.
    """

    value: float
    low: float
    high: float
    first: int
    last: int
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    resolved: bool = True
    why: str = ""
    plateau: float | None = None

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def local(self) -> tuple[float, ...]:
        """The slopes between neighbouring step counts."""
        return tuple(_local(np.array(self.steps, float), np.array(self.errors)).tolist())

    def within(self, declared: float, tolerance: float = 0.15) -> bool:
        """Whether some order of the interval is as near as ``tolerance`` to the declared one."""
        return self.low - tolerance <= declared <= self.high + tolerance

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {max(self.half, 0.005):.2f}"


def measure(
    steps: Sequence[int],
    errors: Sequence[float],
    *,
    floor: float = 0.0,
    noise: Sequence[float] | float = 0.0,
) -> Slope:
    """The order of errors (k,) at increasing step counts (k,), k >= 3.

    ``floor`` is the absolute error that rounding alone makes; ``noise`` the relative standard
    error of each error, where they are estimates (points of 50 % and more do not count).
    """
    n, e = np.asarray(steps, float), np.asarray(errors, float)
    sd = np.broadcast_to(np.asarray(noise, float), n.shape)
    told = tuple(map(int, steps)), tuple(map(float, errors))
    clear = np.isfinite(e) & (e > CLEAR * max(floor, 1e-300)) & (sd < 0.5)
    last = len(n) - 1
    while last >= 0 and not clear[last]:
        last -= 1
    first = last
    while first > 0 and clear[first - 1]:
        first -= 1
    if last - first < 2:
        return Slope(math.nan, -math.inf, math.inf, max(first, 0), max(last, 0), *told, False, FEW)
    local = _local(n[first : last + 1], e[first : last + 1])
    flat = _plateau(local, e[first : last + 1], sd[first : last + 1])
    if flat is not None:
        return Slope(float(local[-1]), 0.0, 0.3, first, last, *told, False, FLAT, flat)
    fit = None
    for begin in range(last - 2, first - 1, -1):
        kept = slice(begin, last + 1)
        wider = _fit(n[kept], e[kept], sd[kept], floor)
        if fit is not None and not wider.consistent:
            break
        fit, first = wider, begin
    assert fit is not None
    low, high = fit.p - fit.half, fit.p + fit.half
    return Slope(fit.p, low, high, first, last, *told, fit.why == "", fit.why)


FEW = "fewer than three errors above the rounding floor; use fewer steps"
FLAT = "the error stops falling"
UNSETTLED = "the local slopes do not settle; use more steps"


@dataclass(frozen=True)
class _Fit:
    p: float
    half: float
    consistent: bool
    why: str


def _fit(n: np.ndarray, e: np.ndarray, sd: np.ndarray, floor: float) -> _Fit:
    """Weighted least squares for (a, p, b) of the module's model, and the interval of p."""
    weight = 1 / np.hypot(np.maximum(sd, 1e-4), floor / e)
    M = np.stack([np.ones_like(n), -np.log(n), n[0] / n], 1) * weight[:, None]
    at, *_ = np.linalg.lstsq(M, np.log(e) * weight, rcond=None)
    inverse = np.linalg.inv(M.T @ M)
    rest = np.log(e) * weight - M @ at
    free = len(n) - 3
    # The scatter is at least that given, and Student's where the residuals show more.
    scatter = 2.6 * math.sqrt(inverse[1, 1])
    if free:
        seen = math.sqrt(float(rest @ rest) / free * inverse[1, 1])
        scatter = max(scatter, float(stdtrit(free, 0.995)) * seen if sd.max() == 0 else 0.0)
    drift = _local(n, e)
    left = abs(at[1] - drift[-1])
    left += (floor / e[-1] + floor / e[-2]) / math.log(n[-1] / n[-2])
    allowed = np.maximum(TERMS, 3 * sd)
    consistent = bool((np.abs(rest / weight) <= allowed).all()) and left < DRIFT
    settled = abs(drift[-1] - drift[-2]) < DRIFT + 4 * float(np.hypot(sd[-1], sd[-2]))
    return _Fit(float(at[1]), scatter + left, consistent, "" if settled else UNSETTLED)


def _local(n: np.ndarray, e: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(e[:-1] / e[1:]) / np.log(n[1:] / n[:-1])


def _plateau(local: np.ndarray, e: np.ndarray, sd: np.ndarray) -> float | None:
    """The height of the last three errors where they no longer fall, else None."""
    if (local[-2:] < 0.2).all() and (np.abs(local[-2:]) < 0.2 + 4 * sd[-2:]).all():
        return float(e[-3:].mean())
    return None

"""The order of convergence in a list of errors, with an interval.

An error e(n) = c n^-p (1 + r/n + ...) has a straight line in log n only in the limit. Its local
slopes, between neighbouring step counts, drift towards p as r/n goes to zero, until rounding (or
a plateau that has another cause) takes over. So log e is fitted by

    log e = a - p log n + b/n

by least squares over the asymptotic window: the longest tail of the points above the floor whose
residuals are those of the given noise and of the terms left out. The interval has two parts:
three standard errors for the scatter, and the drift of the fine end, |p - local slope there|,
together with what the floor adds to the last point, for what the model leaves out. Where noise is
given and hides b/n, a line is fitted instead, with half of what b/n would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
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
    usable = last - first + 1
    if usable < 3:
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
    why = fit.why or (UNSETTLED if last - first < 3 < usable else "")
    return Slope(fit.p, low, high, first, last, *told, why == "", why)


def follow(
    error: Callable[[int], float | tuple[float, float]],
    *,
    floor: float = 0.0,
    coarse: int = 8,
    fine: int = 256,
    width: float = 0.1,
) -> Slope:
    """The order of error(n), n doubled from ``coarse`` until it is known to ``width``.

    ``error`` may give a relative standard error too. Ends at ``fine`` steps or at the floor.
    """
    n: list[int] = []
    e: list[float] = []
    sd: list[float] = []
    at: Slope | None = None
    while at is None or not (n[-1] >= fine or e[-1] <= CLEAR * floor):
        n.append(2 * n[-1] if n else coarse)
        made = error(n[-1])
        value, noise = made if isinstance(made, tuple) else (made, 0.0)
        e.append(value)
        sd.append(noise)
        if len(n) > 3:
            at = measure(n, e, floor=floor, noise=sd)
            if at.resolved and at.half <= width:
                break
        elif n[-1] >= fine:
            at = measure(n, e, floor=floor, noise=sd)
    return at


def fading(
    error: Callable[[int], float],
    seen: float,
    declared: float,
    *,
    floor: float = 0.0,
    finest: int = 8192,
) -> tuple[dict[int, float], float | None]:
    """Errors far beyond those that gave the order ``seen``, and the order below the declared one
    that takes over there, or None.

    A term b n^-q, q < p, hides behind a n^-p up to (a/b)^(1/(p-q)) steps: a weight that is one
    per cent off shows at some thousand steps. So n is doubled from 512 to ``finest`` until two
    local slopes in a row are the order seen to 0.1. An end at a plateau, be it that of rounding
    or of tables, is no order.
    """
    e = {n: error(n) for n in (128, 256, 512)}

    def local(k: int) -> float:
        before, after = list(e.values())[-k - 1], list(e.values())[-k]
        known = before > 0 and 0 < after < math.inf
        return math.log2(before / after) if known else math.nan

    above = 30 * CLEAR * floor
    while max(e) < finest and e[max(e)] > above and (max(e) < 4096 or local(1) > 0.2):
        if max(abs(local(1) - seen), abs(local(2) - seen)) <= 0.1:
            break
        e[2 * max(e)] = error(2 * max(e))
    settles = local(2) - local(1) < min(0.12 * declared, 0.25)  # a plateau takes more each time
    ends = max(e) == finest and e[finest] > above
    return e, local(1) if ends and settles and 0.4 <= local(1) < declared - 0.45 else None


FEW = "fewer than three errors above the rounding floor; use fewer steps"
FLAT = "the error stops falling"
UNSETTLED = "the local slopes do not settle; use more steps"


@dataclass(frozen=True)
class _Fit:
    p: float
    half: float
    consistent: bool
    why: str


def _fit(n: Array, e: Array, sd: Array, floor: float) -> _Fit:
    """Weighted least squares for (a, p, b) of the module's model, and the interval of p."""
    weight = 1 / np.hypot(np.maximum(sd, 1e-4), floor / e)
    M = np.stack([np.ones_like(n), -np.log(n), n[0] / n], 1) * weight[:, None]
    line, curve = _least(M[:, :2], np.log(e) * weight), _least(M, np.log(e) * weight)
    straight = sd.max() > 0 and np.abs(line.rest).max() < 3
    best, local = (line if straight else curve), _local(n, e)
    left = abs(curve.p - line.p) / 2 if straight else abs(curve.p - float(local[-1]))
    left += float(floor / e[-1] + floor / e[-2]) / math.log(n[-1] / n[-2])
    allowed = np.maximum(TERMS, 3 * sd)
    noise = 3 * float(np.hypot(sd[-1], sd[-2]))
    consistent = bool((np.abs(best.rest / weight) <= allowed).all()) and left < DRIFT + noise
    settled = abs(local[-1] - local[-2]) < DRIFT + 2 * noise
    return _Fit(best.p, 3 * best.se + left, consistent, "" if settled else UNSETTLED)


class _Least(NamedTuple):
    p: float
    se: float
    rest: Array


def _least(M: Array, y: Array) -> _Least:
    """The second unknown of M at = y, by least squares; errors are 1, or as residuals show."""
    at, *_ = np.linalg.lstsq(M, y, rcond=None)
    rest = y - M @ at
    free = len(y) - M.shape[1]
    seen = math.sqrt(float(rest @ rest) / free) if free else 1.0
    se = math.sqrt(float(np.linalg.inv(M.T @ M)[1, 1])) * max(1.0, seen)
    return _Least(float(at[1]), se, rest)


def _local(n: Array, e: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(e[:-1] / e[1:]) / np.log(n[1:] / n[:-1])


def _plateau(local: Array, e: Array, sd: Array) -> float | None:
    """The height of the last three errors where they no longer fall, else None."""
    if (local[-2:] < 0.2).all() and (np.abs(local[-2:]) < 0.2 + 4 * sd[-2:]).all():
        return float(e[-3:].mean())
    return None

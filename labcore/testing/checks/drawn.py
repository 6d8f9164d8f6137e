"""What checks of errors against steps put on a page: plain numbers, and lines in log-log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from labcore.testing.slopes import Slope


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def figures_of(slope: Slope, declared: float) -> dict[str, Any]:
    """A measured order as plain data."""
    return {
        "steps": list(slope.steps),
        "errors": [finite(e) for e in slope.errors],
        "window": [slope.steps[slope.first], slope.steps[slope.last]],
        "slope": finite(slope.value),
        "interval": [finite(slope.low), finite(slope.high)],
        "declared": declared,
    }


def lines(title: str, ylabel: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    """A log-log plot against steps."""
    axes = {"xlabel": "steps", "ylabel": ylabel, "xscale": "log", "yscale": "log"}
    return {"kind": "lines", "title": title, **axes, "series": series}


def plot_of(
    title: str,
    ylabel: str,
    slope: Slope,
    declared: float,
    fine: Mapping[int, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """The errors, the fit over its window and the declared slope through the window's end."""
    n, e = list(slope.steps), [finite(v) for v in slope.errors]
    series: list[dict[str, Any]] = [{"label": "measured", "x": n, "y": e}]
    if fine:
        beyond = list(map(finite, fine.values()))
        series.append({"label": "at fine steps", "x": list(fine), "y": beyond})
    inside = n[slope.first : slope.last + 1]
    at, to = slope.steps[slope.last], slope.errors[slope.last]
    for label, p in ((f"fit, {slope}", slope.value), (f"declared, {declared:g}", declared)):
        if math.isfinite(p) and math.isfinite(to):
            line = [to * (at / k) ** p for k in inside]
            series.append({"label": label, "x": inside, "y": line, "dashed": True})
    return lines(title, ylabel, series)

"""Error against seconds, and the methods no other beats in both."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter

from labcore.plots.curves import axes_for, draw_failures, draw_floor, legend, metric_name, scale_y
from labcore.plots.panels import (
    label_axes,
    legend_below,
    note_of,
    select,
    split,
    summary,
    title_axes,
    varying,
)
from labcore.plots.style import Look, looks, paper, plain
from labcore.stats.intervals import Better

FRONT: Mapping[str, Any] = {"color": "0.15", "lw": 0.9, "ls": "-"}


def front(seconds: Any, error: Any) -> np.ndarray:
    """Mask of the points that no other beats: none as fast and better, or faster and as good.

    Of equal points all are on the front; NaN never is.
    """
    seconds, error = np.asarray(seconds, dtype=float), np.asarray(error, dtype=float)
    known = ~(np.isnan(seconds) | np.isnan(error))
    no_worse = (seconds[:, None] <= seconds) & (error[:, None] <= error)
    better = (seconds[:, None] < seconds) | (error[:, None] < error)
    return known & ~(no_worse & better & known[:, None]).any(axis=0)


def pareto(
    frame: pd.DataFrame,
    metric: str,
    *,
    hue: str = "sampler",
    facet: Sequence[str] | None = None,
    better: Better | None = "lower",
    level: float = 0.95,
    width: float | None = None,
) -> Figure:
    """Metric against the seconds of a run, and the Pareto front.

    A point is a setting: mean over seeds with its t interval, median seconds. Points of one
    `hue` are joined in order of steps. Means within the noise floor count as equal, so that of
    the methods there only the fastest is on the front. There is no front with `better` None,
    where neither direction is. Failed cells are crosses at the top.

    Raises LabError for a metric without rows, or settings that would be mixed in one line.
    """
    rows = select(frame, metric, "pareto")
    table = summary(rows, level, better)
    table["seconds"] = _expected(table)
    facet = varying(table, (hue, "steps")) if facet is None else list(facet)
    panels = split(table, facet, (hue, "steps"), "pareto")
    with paper():
        styles = looks(table[hue])
        figure, axes = axes_for(panels, table, width)
        fronts = False
        for ax, (_, panel) in zip(axes, panels, strict=True):
            _draw(ax, panel, hue, styles)
            fronts |= better is not None and _draw_front(ax, panel, better)
            _scale_x(ax, table["seconds"])
        scale_y(axes, [panel for _, panel in panels], table)
        title_axes(figure, axes, [title for title, _ in panels])
        label_axes(axes, "seconds per run", metric_name(table))
        handles, labels = legend(table, hue, styles, None, level)
        if fronts:
            handles, labels = [*handles, Line2D([], [], **FRONT)], [*labels, "Pareto front"]
        legend_below(figure, handles, labels, note_of(table, (hue, *facet)))
    return figure


def _expected(table: pd.DataFrame) -> pd.Series:
    """Median seconds; where no cell was timed, as failed ones are not, the usual ones per NFE."""
    timed = table["seconds"].where(table["seconds"] > 0)
    rate = timed / table["nfe"]
    usual = rate.groupby(table["sampler"]).transform("median").fillna(rate.median())
    return timed.fillna(usual * table["nfe"])


def _draw(ax: Axes, panel: pd.DataFrame, hue: str, styles: Mapping[Any, Look]) -> None:
    draw_floor(ax, panel)
    for value, line in panel.groupby(hue, sort=False, observed=True):
        look, line = styles[value], line.sort_values("nfe")
        ax.plot(line["seconds"], line["mean"], color=look.color, lw=0.6, ls=look.line, alpha=0.6)
        ax.vlines(line["seconds"], line["lo"], line["hi"], color=look.color, lw=0.8)
        ax.plot(line["seconds"], line["mean"], look.marker, color=look.color, mec="white", mew=0.4)
    draw_failures(ax, panel, "seconds", hue, styles)


def _scale_x(ax: Axes, seconds: pd.Series) -> None:
    ax.set_xscale("log")
    if not seconds.notna().any():
        return
    low, high = seconds.min() / 1.25, seconds.max() * 1.25
    ax.set_xlim(low, high)
    shown = round_numbers(low, high)
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FixedFormatter([plain(value) for value in shown]))
    ax.xaxis.set_minor_formatter(NullFormatter())


def round_numbers(low: float, high: float) -> list[float]:
    """Numbers of [low, high] for a log axis: 1, 2, 5 times powers of ten, or fewer if many.

    A short axis is nearly linear, and has equal steps.
    """
    decades = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, math.ceil(len(decades) / 8))
    digits = (1, 2, 5) if high < 1e3 * low else (1,)
    found = [digit * 10.0**k for k in decades[::every] for digit in digits]
    within = [value for value in found if low <= value <= high]
    if len(within) > 2:
        return within
    even = map(float, MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high))
    return [value for value in even if low <= value <= high]


def _draw_front(ax: Axes, panel: pd.DataFrame, better: Better) -> bool:
    """Steps through the front: at each number of seconds, the best mean reached so far.

    Whether a line is seen: one point, or none, has none.
    """
    if better == "lower":
        mean = panel["mean"].clip(lower=panel["floor_hi"].fillna(-np.inf))
        on = front(panel["seconds"], mean)
    else:
        mean = panel["mean"].clip(upper=panel["floor_lo"].fillna(np.inf))
        on = front(panel["seconds"], -mean)
    best = panel.assign(best=mean)[on].sort_values("seconds")
    if len(best[["seconds", "best"]].drop_duplicates()) < 2:
        return False
    ax.step(best["seconds"], best["best"], where="post", zorder=1.5, gid="front", **FRONT)
    return True

"""A metric against the work, in log-log: where methods differ, and where the floor ends that."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from labcore.plots.marks import states_of
from labcore.plots.panels import (
    grid_of_axes,
    label_axes,
    legend_below,
    names_of,
    note_of,
    select,
    split,
    summary,
    title_axes,
    varying,
)
from labcore.plots.style import COLUMN, GREY, PAGE, Look, looks, paper, plain, signed, with_error
from labcore.stats import slopes
from labcore.stats.orders import Axis

FLOOR = "0.87"
FLOOR_MEAN: Mapping[str, Any] = {"color": GREY, "lw": 0.6, "ls": (0, (1, 2))}


def curve(
    frame: pd.DataFrame,
    metric: str,
    x: Axis = "nfe",
    *,
    hue: str = "sampler",
    facet: Sequence[str] | None = None,
    fit: bool = True,
    level: float = 0.95,
    width: float | None = None,
) -> Figure:
    """Metric against NFE or steps, one line per `hue` and one panel per value of `facet`.

    Lines are means over seeds, bands their t intervals, the grey band the noise floor. A cross
    at the top marks failed cells and the legend counts them; where all failed, the line breaks.
    With `fit` the legend gives the slope over the points clearly above the floor (over several
    panels, its range, and how many have one where some do not). By default everything else that
    varies makes panels. A mean at or below zero makes the axis linear below the floor (symlog)
    rather than losing the point.

    Raises LabError for a metric without rows, or settings that would be mixed in one line.
    """
    rows = select(frame, metric, "curve")
    table = summary(rows, level, "lower")
    facet = varying(table, (hue, "steps")) if facet is None else list(facet)
    panels = split(table, facet, (hue, "steps"), "curve")
    fitted = slopes(rows, x, level=level) if fit else None
    with paper():
        styles = looks(table[hue])
        figure, axes = axes_for(panels, table, width)
        for ax, (_, panel) in zip(axes, panels, strict=True):
            _draw(ax, panel, x, hue, styles)
        scale_y(axes, [panel for _, panel in panels], table)
        for ax in axes:
            scale_x(ax, table[x])
        title_axes(figure, axes, [title for title, _ in panels])
        label_axes(axes, "NFE" if x == "nfe" else "steps", metric_name(table))
        handles, labels = legend(table, hue, styles, fitted, level)
        legend_below(figure, handles, labels, note_of(table, (hue, *facet)))
    return figure


def axes_for(
    panels: Sequence[Any], table: pd.DataFrame, width: float | None
) -> tuple[Figure, list[Axes]]:
    """One column wide for one panel, else the page; one target's panels share their y axis."""
    alone = len(panels) == 1
    return grid_of_axes(
        len(panels),
        width or (COLUMN if alone else PAGE),
        2.2 if alone else 1.75,
        2 if len(panels) == 4 else min(len(panels), 3),
        sharex=True,
        sharey=table["target"].nunique() == 1 if "target" in table else True,
    )


def metric_name(table: pd.DataFrame) -> str:
    return next(iter(names_of("metric", table["metric"]).values()))


def _draw(ax: Axes, panel: pd.DataFrame, x: Axis, hue: str, styles: Mapping[Any, Look]) -> None:
    """The floor, then lines with their bands, then the crosses of failures."""
    draw_floor(ax, panel)
    for value, line in panel.groupby(hue, sort=False, observed=True):
        look, line = styles[value], line[line[x] > 0].sort_values(x)
        ax.fill_between(line[x], line["lo"], line["hi"], color=look.color, alpha=0.18, lw=0)
        if len(line) == 1:  # a band over one point has no width
            ax.vlines(line[x], line["lo"], line["hi"], color=look.color, alpha=0.5, lw=1)
        ax.plot(
            line[x], line["mean"], color=look.color, marker=look.marker, ls=look.line,
            mec="white", mew=0.4,
        )  # fmt: skip
    draw_failures(ax, panel, x, hue, styles)


def draw_floor(ax: Axes, panel: pd.DataFrame) -> None:
    """The band of each floor the panel's settings have, and its mean as a dotted line."""
    known = panel[["floor_lo", "floor_hi", "floor_mean"]].drop_duplicates()
    for lo, hi, mean in known.dropna(subset="floor_mean").to_numpy():
        if np.isfinite(hi):
            ax.axhspan(lo, hi, color=FLOOR, lw=0, zorder=0.5, gid="floor")
        ax.axhline(mean, zorder=0.6, **FLOOR_MEAN)


def draw_failures(
    ax: Axes, panel: pd.DataFrame, x: str, hue: str, styles: Mapping[Any, Look]
) -> None:
    """A cross at the top edge for every setting with failed cells, those at one x stacked."""
    failed = panel[(panel["failures"] > 0) & (panel[x] > 0)]
    stacked = failed.groupby(x).cumcount()
    for at, value, above in zip(failed[x], failed[hue], stacked, strict=True):
        ax.plot(
            at, 0.98 - 0.05 * above, "x", color=styles[value].color, ms=4, mew=1.1, zorder=5,
            clip_on=False, gid="failed", transform=ax.get_xaxis_transform(),
        )  # fmt: skip


def scale_y(axes: Sequence[Axes], panels: Sequence[pd.DataFrame], table: pd.DataFrame) -> None:
    """Log axes that hold means, intervals and floors; symlog if a mean is not positive."""
    shared = len(axes) > 1 and axes[0].get_shared_y_axes().joined(axes[0], axes[1])
    symlog = (table["mean"] <= 0).any()
    for ax, panel in zip(axes, panels, strict=True):
        if symlog:
            _scale_symlog(ax, _linear_below(table))
        else:
            ax.set_yscale("log")
            ax.set_ylim(*_limits(table if shared else panel))
        if panel["mean"].isna().all():
            ax.text(0.5, 0.5, "all cells failed", transform=ax.transAxes, ha="center", color=GREY)
        if table[["mean", "floor_mean"]].isna().all(axis=None):
            ax.yaxis.set_major_locator(NullLocator())
            ax.yaxis.set_minor_locator(NullLocator())


def _scale_symlog(ax: Axes, linear: float) -> None:
    """Linear within +-linear, decades beyond; ticks at zero and where they do not crowd it."""
    ax.set_yscale("symlog", linthresh=linear, linscale=0.5)
    ax.margins(y=0.12)
    first = math.ceil(math.log10(0.7 * linear))
    last = math.floor(math.log10(max(np.abs(ax.get_ylim()).max(), linear)))
    decades = 10.0 ** np.arange(first, max(last, first) + 1)
    ax.yaxis.set_major_locator(FixedLocator([*-decades[::-1], 0.0, *decades]))


def _linear_below(table: pd.DataFrame) -> float:
    """Where the floor ends; without one, where the least of the means lies below zero."""
    below = table["floor_hi"].where(table["floor_hi"] > 0).max()
    known = below if np.isfinite(below) else -table["mean"].min()
    return float(known) if known > 0 else float(table["mean"].abs().max()) or 1.0


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Room for every mean and floor, and for intervals as far as a factor 10 from their mean."""
    mean = table["mean"]
    ends = [mean, table["lo"].clip(lower=mean / 10), table["hi"].clip(upper=mean * 10)]
    floors = [table[c].where(table[c] > 0) for c in ("floor_lo", "floor_hi", "floor_mean")]
    values = np.log(pd.concat([*ends, *floors]).dropna())
    if values.empty:
        return 0.1, 1.0
    lowest, highest = values.min(), values.max()
    margin = max(0.06 * (highest - lowest), 0.2)
    room = 2.5 if (table["failures"] > 0).any() else 1.0
    return float(np.exp(lowest - margin)), float(np.exp(highest + room * margin))


def scale_x(ax: Axes, values: pd.Series) -> None:
    """A log axis with plain numbers at the values themselves, as far as they do not collide."""
    at = np.unique(values[values > 0])
    ax.set_xscale("log")
    if not len(at):
        return
    span = np.log(max(at[-1] / at[0], 2.0))
    shown = [at[0]]
    for value in at[1:]:
        if np.log(value / shown[-1]) > 0.11 * span:
            shown.append(value)
    ax.set_xlim(at[0] * np.exp(-0.05 * span), at[-1] * np.exp(0.05 * span))
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FixedFormatter([plain(value) for value in shown]))
    ax.xaxis.set_minor_locator(NullLocator())


def legend(
    table: pd.DataFrame,
    hue: str,
    styles: Mapping[Any, Look],
    fitted: pd.DataFrame | None,
    level: float,
) -> tuple[list[Artist], list[str]]:
    """An entry per line with its slope and failures, then what floor and crosses mean."""
    names = names_of(hue, table[hue], states=states_of(table))
    failures = table.groupby(hue, sort=False)["failures"].sum()
    handles: list[Artist] = []
    labels = []
    for value, look in styles.items():
        handles.append(
            Line2D(
                [], [], color=look.color, marker=look.marker, ls=look.line, mec="white", mew=0.4
            )
        )
        lost = _kept(f"{failures[value]} failed") if failures[value] else ""
        labels.append(names[value] + _slope_text(fitted, hue, value) + lost)
    if table["floor_hi"].notna().any():
        handles.append(Patch(color=FLOOR, lw=0))
        labels.append(f"noise floor ({100 * level:g} %)")
    elif table["floor_mean"].notna().any():
        handles.append(Line2D([], [], **FLOOR_MEAN))
        labels.append("noise floor (mean)")
    if failures.any():
        handles.append(Line2D([], [], color=GREY, marker="x", ls="", ms=4, mew=1.1))
        labels.append("failed cells")
    return handles, labels


def _slope_text(fitted: pd.DataFrame | None, hue: str, value: Any) -> str:
    """`, slope −1.02 ± 0.05`, or over several panels `, slope −1.1 to −0.9`; and how many of
    them have one, where not all do."""
    if fitted is None:
        return ""
    curves = fitted[fitted[hue] == value]
    found = curves[curves["slope"].notna()]
    if found.empty:
        return ""
    some = f" in {len(found)} of {len(curves)} panels" if len(found) < len(curves) else ""
    if len(found) == 1:
        slope, hi = found.iloc[0][["slope", "hi"]]
        return _kept(f"slope {with_error(slope, hi - slope)}{some}")
    low, high = found["slope"].min(), found["slope"].max()
    return _kept(f"slope {signed(low)} to {signed(high)}{some}")


def _kept(text: str) -> str:
    """A further part of a label, which a line break goes before and not into."""
    return ", " + text.replace(" ", "\N{NO-BREAK SPACE}")

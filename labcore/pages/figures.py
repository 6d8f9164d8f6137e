"""The plots that a check asks for, drawn: lines and regions, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from labcore.plots.curves import scale_x
from labcore.plots.files import rendered
from labcore.plots.panels import grid_of_axes, legend_below, title_axes
from labcore.plots.style import GREY, Look, escape, looks, paper
from labcore.text import reason_of

WIDTH, HEIGHT = 3.25, 2.2
MARKED = 40
"""Lines of more points than this carry no markers."""

REFERENCE = {"color": GREY, "lw": 0.9, "marker": ""}
DASHES = ((0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""How lines to compare with are drawn, one after the other."""

DECADES = 2.0
"""How far from its level a region's colours go."""

Plot = Mapping[str, Any]


def draw(plot: Plot) -> Figure:
    """The figure of a plot of kind "lines" or "region" (see labcore.certificates.Check)."""
    drawers = {"lines": _lines, "region": _region}
    with paper():
        figure, (ax,) = grid_of_axes(1, WIDTH, HEIGHT, 1)
        handles, labels = drawers[plot["kind"]](ax, plot)
        ax.set_xlabel(escape(plot.get("xlabel", "")))
        ax.set_ylabel(escape(plot.get("ylabel", "")))
        title_axes(figure, [ax], [escape(plot.get("title", ""))])
        legend_below(figure, handles, labels)
    return figure


def svg(plot: Plot) -> bytes | str:
    """The drawn plot as SVG, or in words why it cannot be drawn."""
    try:
        return rendered(draw(plot), "svg")
    except Exception as error:
        return f"this plot cannot be drawn ({reason_of(error)})"


def _numbers(values: Any) -> np.ndarray:
    """An array of floats; None is NaN."""
    return np.array(values, dtype=object).astype(float)


def _lines(ax: Axes, plot: Plot) -> tuple[list[Any], list[str]]:
    series = list(plot["series"])
    solid = [str(i) for i, line in enumerate(series) if not line.get("dashed")]
    styles, dashes = looks(solid), cycle(DASHES)
    handles, labels = [], []
    for i, line in enumerate(series):
        look = styles.get(str(i))
        style = _style(look, len(line["x"])) if look else {**REFERENCE, "ls": next(dashes)}
        ax.plot(_numbers(line["x"]), _numbers(line["y"]), **style)
        handles.append(Line2D([], [], **style))
        labels.append(escape(line["label"]))
    if plot.get("xscale") == "log" and len(x := _positive(series, "x")):
        scale_x(ax, pd.Series(x))
    if plot.get("yscale") == "log" and len(_positive(series, "y")):
        ax.set_yscale("log")
    return handles, labels


def _style(look: Look, points: int) -> dict[str, Any]:
    marker = look.marker if points <= MARKED else ""
    return {"color": look.color, "ls": look.line, "marker": marker, "mec": "white", "mew": 0.4}


def _positive(series: Sequence[Mapping[str, Any]], axis: str) -> np.ndarray:
    values = np.concatenate([_numbers(line[axis]).ravel() for line in series] or [np.zeros(0)])
    found: np.ndarray = values[np.isfinite(values) & (values > 0)]
    return found


def _region(ax: Axes, plot: Plot) -> tuple[list[Any], list[str]]:
    """z against its level in decades, red beyond and blue within, the level a black line."""
    import matplotlib

    x, y, z = (_numbers(plot[name]) for name in ("x", "y", "z"))
    level = float(plot["level"])
    log = level > 0 and not bool((z <= 0).any())
    beyond = np.log10(z / level) if log else z - level
    most = DECADES if log else float(np.nanmax(np.abs(beyond), initial=1e-300))
    norm = TwoSlopeNorm(0.0, -most, most)
    for axis, scale in (("x", ax.set_xscale), ("y", ax.set_yscale)):
        if plot.get(f"{axis}scale") == "log":
            scale("log")
    if plot.get("xscale") == "log":
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_facecolor("0.85")
    colours = matplotlib.colormaps["RdBu_r"]
    mesh = ax.pcolormesh(
        x, y, np.ma.masked_invalid(beyond.clip(-most, most)), cmap=colours, norm=norm,
        shading="nearest", rasterized=True,
    )  # fmt: skip
    known = beyond[np.isfinite(beyond)]
    if min(z.shape) > 1 and len(known) and known.min() < 0 < known.max():
        ax.contour(x, y, np.ma.masked_invalid(beyond), [0.0], colors="black", linewidths=0.9)
    figure = ax.get_figure(root=True)
    bar = figure.colorbar(mesh, ax=ax, fraction=0.06, pad=0.03)  # type: ignore[union-attr]
    if log:
        ticks = np.arange(-DECADES, DECADES + 1).tolist()
        signs = ["≤ ", *[""] * (len(ticks) - 2), "≥ "]
        bar.set_ticks(
            ticks, labels=[f"{s}{level * 10**t:g}" for s, t in zip(signs, ticks, strict=True)]
        )
    else:
        ticks = np.linspace(-most, most, 5).tolist()
        bar.set_ticks(ticks, labels=[f"{level + t:.3g}" for t in ticks])
    bar.set_label(escape(plot.get("zlabel", "")))
    bar.outline.set_visible(False)
    return [], []

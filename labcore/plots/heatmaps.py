"""Every combination of two axes at a glance, with what failed and what the floor hides."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labcore.errors import LabError
from labcore.plots.curves import metric_name
from labcore.plots.marks import states_of
from labcore.plots.panels import (
    NUMBERS,
    SPACING,
    grid_of_axes,
    inches,
    label_axes,
    legend_below,
    names_of,
    note_of,
    select,
    split,
    summary,
    title_axes,
    varying,
    wrapped,
)
from labcore.plots.style import COLUMN, GREY, PAGE, mean_and_half, paper, plain, short_number
from labcore.stats.intervals import Better

CELL, LINE, BAR = 0.66, 0.125, 0.6
"""Inches: width of a cell, height of a line in it, room for the colour bar."""

LABEL = 1.5
"""Inches: how wide the names of rows, and those of columns that stand upright, may get."""

NOT_RUN = "not run"


@dataclass(frozen=True)
class _Side:
    """One side of the map: its column, the values along it and what they are called."""

    column: str
    values: list[Any]
    names: list[str]


def heatmap(
    frame: pd.DataFrame,
    metric: str,
    *,
    rows: str = "sampler",
    columns: str = "grid",
    better: Better | None = "lower",
    level: float = 0.95,
    width: float | None = None,
) -> Figure:
    """The mean in every (row, column), its half-width under it; what else varies makes panels.

    "at floor" marks means the noise floor explains: they share the floor's colour. With `better`
    None, where neither direction is, they are those within the floor. Settings whose cells all
    failed are hatched and settings that were not run are empty. Budgets make panels, unless they
    are an axis: by NFE or by steps, whichever has fewer values, or by ranges of NFE that no two
    of a setting share, as where steps of 3 evaluations leave some of a budget.

    Raises LabError for a metric without rows, or a place with several means.
    """
    table = summary(select(frame, metric, "heatmap"), level, better)
    table = table.assign(colour=_colours(table, better), text=table.apply(_text, axis=1))
    down, across = (_side(table, c) for c in (rows, columns))
    facet = varying(table, (rows, columns, "steps"))
    if not {rows, columns} & {"nfe", "steps"}:
        table, facet = _by_budget(table, [rows, columns], facet)
    panels = split(table, facet, (rows, columns, "steps"), "heatmap")
    if table.duplicated([rows, columns, *facet]).any():
        raise LabError(f"heatmap: several means for one {rows} and {columns}; filter the frame")
    with paper():
        beside = max(1, int((PAGE - LABEL - BAR) / (len(across.values) * CELL)))
        beside = min(len(panels), beside)
        natural = LABEL + beside * len(across.values) * CELL + BAR
        width = width or min(max(natural, COLUMN), PAGE)
        lines = max(2, int(table["text"].str.count("\n").max()) + 1)
        height = len(down.values) * (lines * LINE + 0.1) + 0.3
        figure, axes = grid_of_axes(len(panels), width, height, beside, sharex=True, sharey=True)
        room = (width - LABEL - BAR) / (beside * len(across.values))
        norm, size = _norm(table["colour"]), float(np.clip(room * 72 / 6.0, 3.5, 7))
        for ax, (_, panel) in zip(axes, panels, strict=True):
            _panel(ax, panel, down, across, norm, size)
        _name_sides(figure, axes, down, across, room)
        titles = [title for title, _ in panels]
        title_axes(figure, axes, titles, 0.92 * room * len(across.values))
        label_axes(axes, NUMBERS.get(columns, ""), NUMBERS.get(rows, ""))
        if table["colour"].notna().any():
            _colour_bar(figure, axes, metric_name(table))
        legend_below(figure, [], [], note_of(table, (rows, columns, *facet)))
    return figure


def _by_budget(
    table: pd.DataFrame, sides: list[str], facet: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The facets with the column that tells budgets apart, and the table in their order."""
    table = table.assign(budget=_budgets(table, [*sides, *facet]))
    budget = min(("nfe", "steps", "budget"), key=lambda c: table[c].nunique() or np.inf)
    if table[budget].nunique() < 2:
        return table, facet
    size = table["steps" if budget == "steps" else "nfe"].to_numpy(float)
    seen = [pd.factorize(table[c], use_na_sentinel=False)[0] for c in facet]
    return table.iloc[np.lexsort([size, *reversed(seen)])], [*facet, budget]


def _budgets(table: pd.DataFrame, setting: list[str]) -> pd.Series:
    """`NFE 6 to 8`: the k-th budgets of all settings; missing where they are not of one size,
    or where some reach the next ones."""
    nfe = table["nfe"]
    rank = nfe.groupby([table[c] for c in setting], dropna=False, observed=True).rank("dense")
    ends = nfe.groupby(rank).agg(["min", "max"])
    low, high = ends["min"].to_numpy(), ends["max"].to_numpy()
    if (high[:-1] >= low[1:]).any() or (high > 1.5 * low).any():
        return pd.Series(np.nan, index=table.index)
    return rank.map({k: _range(*of) for k, of in ends.iterrows()})


def _range(low: float, high: float) -> str:
    return f"NFE {plain(low)}" + (f" to {plain(high)}" if high > low else "")


def _side(table: pd.DataFrame, column: str) -> _Side:
    """Values as they first appear, numbers by size."""
    found = table[column].drop_duplicates()
    values = (found.sort_values() if column in NUMBERS else found).tolist()
    names = names_of(column, values, bare=True, states=states_of(table))
    return _Side(column, values, [names[v] for v in values])


def _colours(table: pd.DataFrame, better: Better | None) -> pd.Series:
    """The means, with all that the floor explains at the floor: there are no shades within it."""
    if better is None:
        return table["mean"].where(table["seen"], table["floor_mean"])
    if better == "lower":
        return table["mean"].clip(lower=table["floor_hi"].fillna(-np.inf))
    return table["mean"].clip(upper=table["floor_lo"].fillna(np.inf))


def _norm(values: pd.Series) -> Normalize:
    lowest, highest = values.min(), values.max()
    if not np.isfinite(lowest):
        return Normalize(0.0, 1.0)
    wide = lowest > 0 and highest / lowest > 5
    return LogNorm(lowest, highest) if wide else Normalize(lowest, highest)


def _text(cell: pd.Series) -> str:
    """Mean, half-width, whether it is at the floor, and how many cells failed; a line each."""
    lost, ran = cell["failures"], cell["failures"] + cell["count"]
    if np.isnan(cell["mean"]):
        return f"failed\n{lost:.0f} of {ran:.0f}"
    half = cell["hi"] - cell["mean"]
    known = np.isfinite(half) and half > 0
    lines = [*mean_and_half(cell["mean"], half)] if known else [short_number(cell["mean"])]
    if not cell["seen"]:
        lines.append("at floor")
    if lost > 0:
        lines.append(f"{lost:.0f} of {ran:.0f} failed")
    return "\n".join(lines)


def _name_sides(figure: Figure, axes: list[Axes], down: _Side, across: _Side, room: float) -> None:
    """Names at the ticks, broken to their room or else upright; the figure grows by that."""
    size = matplotlib.rcParams["xtick.labelsize"]
    beside = wrapped(figure, down.names, LABEL, size)
    below = wrapped(figure, across.names, 0.95 * room, size)
    flat = all(inches(figure, name, size) < room for name in below)
    if not flat:
        below = wrapped(figure, across.names, LABEL, size)
    for ax in axes:
        ax.set_yticks(np.arange(len(beside)) + 0.5, beside, rotation=0, linespacing=SPACING)
        ax.set_xticks(
            np.arange(len(below)) + 0.5, below, rotation=0 if flat else 90, linespacing=SPACING
        )
        ax.tick_params(length=0)
    deep = max(
        name.count("\n") * LINE if flat else inches(figure, name, size) - LINE for name in below
    )
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + deep)


def _panel(
    ax: Axes, panel: pd.DataFrame, down: _Side, across: _Side, norm: Normalize, size: float
) -> None:
    import seaborn

    places = pd.MultiIndex.from_product([down.values, across.values])
    cells = panel.set_index([down.column, across.column]).reindex(places)
    means = cells["colour"].to_numpy(dtype=float).reshape(len(down.values), -1)
    texts = cells["text"].fillna(NOT_RUN).to_numpy(dtype=str).reshape(means.shape)
    seaborn.heatmap(
        means, annot=texts, fmt="", ax=ax, cmap="crest", norm=norm, vmin=norm.vmin, vmax=norm.vmax,
        cbar=False, linewidths=0.8, linecolor="white",
        annot_kws={"size": size, "linespacing": SPACING},
    )  # fmt: skip
    for i, j in np.argwhere(np.isnan(means)).tolist():
        _draw_missing(ax, i, j, str(texts[i, j]), size)


def _draw_missing(ax: Axes, i: int, j: int, text: str, size: float) -> None:
    failed = text != NOT_RUN
    box = {"fc": "0.95", "ec": "none", "pad": 1.0} if failed else None
    ax.text(
        j + 0.5, i + 0.5, text, ha="center", va="center", size=size, color=GREY, bbox=box,
        linespacing=SPACING,
    )  # fmt: skip
    if failed:
        ax.add_patch(
            Rectangle(
                (j + 0.01, i + 0.01), 0.98, 0.98, fc="0.95", ec="0.75", lw=0, hatch="/////",
                gid="failed",
            )
        )  # fmt: skip


def _colour_bar(figure: Figure, axes: list[Axes], name: str) -> None:
    drawn = axes[0].collections[0]
    bar = figure.colorbar(
        drawn, ax=axes, fraction=0.05, pad=0.02, aspect=figure.get_size_inches()[1] / 0.13
    )
    bar.set_label(name)
    bar.outline.set_visible(False)

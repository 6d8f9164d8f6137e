"""From rows to panels: which rows a figure shows, how they are split, where the legend goes."""

import re
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from labcore.errors import LabError
from labcore.plots.marks import States, caption, marked, states_of
from labcore.plots.style import escape, plain, short_names
from labcore.stats import SETTING, cells, find, floors, summarise, with_floors
from labcore.stats.intervals import Better

MOST = 24
SPACING = 1.0  # of lines within a label
LABELS = ("target", "process", "score", "grid", "sampler", "metric")
NUMBERS = {"steps": "steps", "nfe": "NFE", "n": "n", "t_eps": "t_eps"}


def select(frame: pd.DataFrame, metric: str, figure: str) -> pd.DataFrame:
    """The rows of one metric: its cells, failed ones included, and its floor."""
    rows = cells(frame)
    if rows.empty:
        raise LabError(f"{figure}: the frame has no cells; run the study first")
    label = find(rows["metric"], metric, "metric")
    shown = rows[rows["metric"] == label].assign(kind="cell")
    if "kind" not in frame:
        return shown
    floor = frame[(frame["kind"] == "floor") & (frame["metric"] == label)]
    return pd.concat([shown, floor], ignore_index=True) if len(floor) else shown


def summary(rows: pd.DataFrame, level: float, better: Better | None) -> pd.DataFrame:
    """Means with intervals, floors and, per row, whether it is resolved from the floor.

    Where neither direction is better, a mean on either side of the floor is.
    """
    means, floor = summarise(rows, level=level), floors(rows, level=level)
    table = with_floors(means, floor, better or "lower", level)
    below = (table["mean"] < table["floor_lo"]) & (better is None)
    return table.assign(seen=(table["resolved"].fillna(True) | below).astype(bool))


def varying(table: pd.DataFrame, without: Sequence[str]) -> list[str]:
    """The columns of a setting that take several values, but a t_eps that others decide."""
    by = ("process", "grid", "steps", "against")
    ends = ("t_eps",) if _decides(table, by, "t_eps") else ()
    columns = [c for c in SETTING if c in table and c not in (*without, *ends, "metric")]
    return [c for c in columns if table[c].nunique(dropna=False) > 1]


def _decides(table: pd.DataFrame, columns: Sequence[str], other: str) -> bool:
    """Whether equal values in ``columns`` mean equal values in ``other``."""
    known = [c for c in columns if c in table]
    if not known or other not in table:
        return False
    groups = table.groupby(known, dropna=False, observed=True)[other]
    return bool((groups.nunique(dropna=False) <= 1).all())


def split(
    table: pd.DataFrame, facet: Sequence[str], without: Sequence[str], figure: str
) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of each panel; whatever varies within a panel unseen is an error."""
    hidden = [c for c in varying(table, without) if c not in facet]
    if hidden:
        raise LabError(
            f"{figure}: {', '.join(hidden)} would be mixed in one panel; filter the frame, "
            "or name them in facet"
        )
    if not facet:
        return [("", table)]
    groups = list(table.groupby(list(facet), dropna=False, sort=False, observed=True))
    if len(groups) > MOST:
        raise LabError(
            f"{figure}: {len(groups)} panels by {', '.join(facet)}, at most {MOST}; "
            "filter the frame"
        )
    states = states_of(table)
    names = {c: names_of(c, table[c], states=states) for c in facet}
    titles = [", ".join(names[c][v] for c, v in zip(facet, key, strict=True)) for key, _ in groups]
    return [(title, rows) for title, (_, rows) in zip(titles, groups, strict=True)]


def names_of(
    column: str, values: Iterable[Any], bare: bool = False, states: States = MappingProxyType({})
) -> dict[Any, str]:
    """What a reader is shown for each value of a column; `bare` where an axis names the column.

    Samplers are marked by what `states` say of them.
    """
    values = list(dict.fromkeys(values))
    if column in LABELS:
        short = short_names(str(v) for v in values)
        of = states if column == "sampler" else {}
        return {v: marked(escape(short[str(v)]), of.get(v)) for v in values}
    if column in NUMBERS:
        return {v: plain(v) if bare else f"{NUMBERS[column]} = {plain(v)}" for v in values}
    speaks = bare or column == "budget"
    return {v: escape(str(v) if speaks else f"{column}: {v}") for v in values}


def note_of(table: pd.DataFrame, labelled: Sequence[str]) -> str:
    """What the marks of a table's samplers mean, which labels or titles of `labelled` carry."""
    states = states_of(table)
    return caption(states, names_of("sampler", states), "sampler" in labelled)


def grid_of_axes(
    count: int, width: float, height: float, columns: int, **share: Any
) -> tuple[Figure, list[Axes]]:
    """A figure without a window, of `count` axes in rows of `columns`, each `height` high."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def title_axes(
    figure: Figure, axes: Sequence[Axes], titles: Sequence[str], room: float | None = None
) -> None:
    """Titles, broken to their panel's room in inches; the figure grows by the lines that adds."""
    spec = axes[0].get_gridspec()
    rows, columns = (spec.nrows, spec.ncols) if spec else (1, 1)
    width, height = figure.get_size_inches()
    size = matplotlib.rcParams["axes.titlesize"]
    broken = wrapped(figure, titles, room or 0.9 * width / columns, size)
    for ax, title in zip(axes, broken, strict=True):
        ax.set_title(title, linespacing=SPACING)
    lines = max(title.count("\n") for title in broken) * rows
    figure.set_size_inches(width, height + lines * 1.25 * size / 72)


def label_axes(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels under the lowest panel of each column and left of each row."""
    spec = axes[0].get_gridspec()
    columns = spec.ncols if spec else 1
    for i, ax in enumerate(axes):
        if i + columns >= len(axes):
            ax.set_xlabel(x)
            ax.tick_params(labelbottom=True)
        if i % columns == 0:
            ax.set_ylabel(y)


def legend_below(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], note: str = ""
) -> None:
    """A legend under the axes, in as many columns as fit, and a note under it.

    The figure grows by their heights.
    """
    before = figure.get_size_inches()[1]
    below = _note_below(figure, note) if note else 0.0
    legend = _legend(figure, handles, labels) if handles else None
    height = figure.get_size_inches()[1]
    engine = figure.get_layout_engine()
    if below and isinstance(engine, ConstrainedLayoutEngine):  # it knows of one legend, not two
        taken = (height - before) / height
        engine.set(rect=(0.0, taken, 1.0, 1.0 - taken))
        if legend is not None:
            legend.set_bbox_to_anchor((0.0, below / height, 1.0, 1.0), figure.transFigure)


def _legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> Legend:
    """A legend in as many columns as fit; the figure grows by its height."""
    width = figure.get_size_inches()[0]
    size = matplotlib.rcParams["legend.fontsize"]
    em = size / 72
    handle = 3.2 * em
    texts = wrapped(figure, labels, width - handle - em, size, indent="  ")
    wide = [inches(figure, text, size) for text in texts]
    fitting = [c for c in range(1, 7) if _legend_width(wide, c, handle, 1.2 * em) <= width - em]
    columns = min(max(fitting, default=1), len(texts))
    columns = -(-len(texts) // -(-len(texts) // columns))  # no column more than the rows need
    legend = figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, columnspacing=1.2,
        handlelength=2.4, handletextpad=0.6, labelspacing=0.35, borderpad=0.2, borderaxespad=0.3,
    )  # fmt: skip
    _grow(figure, legend, 0.5 * em)
    return legend


def _note_below(figure: Figure, note: str) -> float:
    """A text at the lower end of the figure, which grows by it; its height in inches."""
    size = matplotlib.rcParams["legend.fontsize"]
    width = figure.get_size_inches()[0]
    (text,) = wrapped(figure, [note], width - size / 72, size)
    nothing = Line2D([], [], ls="", marker="")
    legend = figure.legend(
        [nothing], [text], loc="lower center", handlelength=0, handletextpad=0,
        borderpad=0.2, borderaxespad=0.3,
    )  # fmt: skip
    legend.set_gid("certificates")
    return _grow(figure, legend, 0.04)


def _grow(figure: Figure, legend: Legend, more: float) -> float:
    """Make the figure taller by a legend and some more; by how many inches."""
    for text in legend.get_texts():
        text.set_linespacing(SPACING)
    width, height = figure.get_size_inches()
    box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    room = float(box.height / figure.dpi + more)
    figure.set_size_inches(width, height + room)
    return room


def _legend_width(wide: Sequence[float], columns: int, handle: float, gap: float) -> float:
    rows = -(-len(wide) // columns)
    filled = [wide[i : i + rows] for i in range(0, len(wide), rows)]
    return sum(max(column) + handle for column in filled) + gap * (len(filled) - 1)


def inches(figure: Figure, text: str, size: float) -> float:
    """Width of the widest line of a text drawn at a font size in points."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    lines, font = text.replace(r"\$", "$").split("\n"), FontProperties(size=size)
    widths = [renderer.get_text_width_height_descent(line, font, False)[0] for line in lines]
    return float(max(widths)) / float(figure.dpi)


def wrapped(
    figure: Figure, texts: Sequence[str], width: float, size: float, indent: str = ""
) -> list[str]:
    """The texts, broken where they are wider: after a space, or within a name after `_,(:`.

    Further lines begin with `indent`. A no-break space holds together what it joins, and is
    drawn as a space.
    """
    lines = (_lines(figure, text, width, size, indent) for text in texts)
    return ["\n".join(broken).replace("\N{NO-BREAK SPACE}", " ") for broken in lines]


def _lines(figure: Figure, text: str, width: float, size: float, indent: str) -> Iterator[str]:
    line = ""
    for piece in re.split(r"(?<=[ _,(:])", text):
        if line.strip() and inches(figure, line + piece.rstrip(), size) > width:
            yield line.rstrip()
            line = indent
        line += piece
    yield line.rstrip()

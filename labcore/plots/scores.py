"""How good a score is over t: the values of a metric at single times."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from labcore.errors import LabError
from labcore.plots.panels import grid_of_axes, legend_below
from labcore.plots.style import COLUMN, escape, looks, paper, short_names
from labcore.stats import at_times, bare, cells, over_trainings, summarise


def score_curve(
    frame: pd.DataFrame,
    metric: str = "fisher",
    *,
    level: float = 0.95,
    width: float | None = None,
) -> Figure:
    """A metric of the score over t, log-log: a line a score, bands of t intervals over seeds.

    Trainings that differ in their seed alone are repeats (stats.over_trainings). Raises LabError
    where no row of the metric is of one time, or where settings would be mixed in one line.
    """
    rows = at_times(over_trainings(cells(frame)))
    rows = rows[[metric in (of, bare(of)) for of in rows["of"]]]
    if rows.empty:
        raise LabError(f"score_curve: no row of {metric!r} at one time; measure fisher")
    for column in ("target", "process", "of"):
        if rows[column].nunique() > 1:
            raise LabError(f"score_curve: several of {column} in one figure; filter the frame")
    parts = list(rows.groupby("part", sort=False))
    names, styles = short_names(rows["score"]), looks(rows["score"])
    with paper():
        width = width or COLUMN * 1.2 * len(parts)
        figure, axes = grid_of_axes(len(parts), width, 2.4, len(parts))
        for ax, (_, panel) in zip(axes, parts, strict=True):
            table = summarise(panel, ("score", "t"), level=level).sort_values("t")
            for score, line in table.groupby("score", sort=False):
                look = styles[str(score)]
                ax.fill_between(
                    line["t"], line["lo"].clip(lower=line["mean"] / 10), line["hi"],
                    color=look.color, alpha=0.15, lw=0,
                )  # fmt: skip
                ax.plot(
                    line["t"], line["mean"], color=look.color, ls=look.line, marker=look.marker,
                    mec="white", mew=0.4, ms=3,
                )  # fmt: skip
            ax.set_xscale("log")
            if (table["mean"] > 0).all() and table["mean"].max() > 10 * table["mean"].min():
                ax.set_yscale("log")
            ax.set(xlabel="t", ylabel=escape(_called(rows["of"].iloc[0], panel["part"].iloc[0])))
        handles = [
            Line2D([], [], color=s.color, ls=s.line, marker=s.marker, mec="white", mew=0.4)
            for s in styles.values()
        ]
        legend_below(figure, handles, [escape(names[score]) for score in styles])
    return figure


def _called(metric: str, part: str) -> str:
    """`fisher at t`, or the name of a part, `tweedie_calibration: slope`."""
    of = part.removesuffix("t").strip()
    return f"{bare(metric)}: {of}" if of else f"{bare(metric)} at t"

"""Figures of a study's rows, ready for a paper: aggregated first, then drawn.

    curve       a metric against the work, with intervals, the noise floor and the fitted slope
    heatmap     sampler by grid, the mean in every cell
    pareto      error against seconds, and who is on the front
    score_curve a metric of scores over t;  score_map  where in the plane scores err
    sheet_2d    samples over the true density;  sheet_images  samples as pictures
    save        PNG, SVG and PDF, the same bytes for the same figure

Each returns a matplotlib Figure that belongs to no window and no global state. Failed cells are
drawn as failed, and what lies within the noise floor is marked so.
"""

from labcore.plots.curves import curve
from labcore.plots.files import save
from labcore.plots.fronts import front, pareto
from labcore.plots.heatmaps import heatmap
from labcore.plots.maps import score_map
from labcore.plots.scores import score_curve
from labcore.plots.sheets import sheet_2d, sheet_images
from labcore.plots.style import COLUMN, PAGE, escape, short_names

__all__ = [
    "COLUMN",
    "PAGE",
    "curve",
    "escape",
    "front",
    "heatmap",
    "pareto",
    "save",
    "score_curve",
    "score_map",
    "sheet_2d",
    "sheet_images",
    "short_names",
]

"""Intervals, noise floors, fitted orders and paired comparisons on the tidy frame of results.

A *setting* is all that a cell names but its seed. With values v_1 .. v_k over k seeds, of mean m
and standard deviation s:

    summarise   m +- t_{k-1} s / sqrt(k)
    floors      the metric between two independent exact samples of the same size, repeated: its
                band is where one more repeat would fall, and a value inside it shows nothing
    slope       least squares of log m on log NFE over the points clearly above the floor
    over_trainings   scores that differ in the seed of their training become repeats of one
    paired      d_j = a_j - b_j on common seeds; p = P(|sum +-d_j| >= |sum d_j|) over all signs
    reversals   pairs whose order turns round from one score, process, .. to another

A failed cell has no value and never vanishes: it is counted in a column `failures`. Every
function returns something new and leaves its frame alone.
"""

from labcore.stats.intervals import (
    floors,
    resolved,
    summarise,
    t_quantile,
    with_floors,
)
from labcore.stats.orders import Slope, slope, slopes
from labcore.stats.pairs import compare, holm, paired, sign_flip
from labcore.stats.repeats import at_times, over_trainings
from labcore.stats.reversals import reversals
from labcore.stats.rows import FLOOR, SETTING, bare, cells, find

__all__ = [
    "FLOOR",
    "SETTING",
    "Slope",
    "at_times",
    "bare",
    "cells",
    "compare",
    "find",
    "floors",
    "holm",
    "over_trainings",
    "paired",
    "resolved",
    "reversals",
    "sign_flip",
    "slope",
    "slopes",
    "summarise",
    "t_quantile",
    "with_floors",
]

"""Squared maximum mean discrepancy with Gaussian kernels (Gretton et al. 2012).

MMD^2 = E k(X,X') + E k(Y,Y') - 2 E k(X,Y),    k = mean_c exp( -|x-y|^2 / (2 (c h)^2) )
"""

import math
from statistics import mean
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

import labcore
from labcore_metrics.checks import fail, pair
from labcore_metrics.pairs import u_statistic

_MEDIAN = 1000  # points the median distance is taken over


def mmd2(x: Tensor, y: Tensor, h: float) -> float:
    """The unbiased U-statistic for exp( -|x-y|^2 / (2 h^2) ), x (n, d), y (m, d)."""
    return u_statistic(x, y, lambda squares: squares.mul_(-0.5 / h**2).exp_())


def median_distance(y: Tensor) -> float:
    """Median of |y_i - y_j|, i < j, over at most 1000 points evenly spaced in y (n, d)."""
    some = y.double()[:: math.ceil(len(y) / _MEDIAN)]
    return float(np.median(torch.pdist(some).numpy()))


@labcore.metric(
    better="lower",
    minimum=2,
    cite="Gretton et al. (2012)",
    sees=(
        "1000 samples: a shift of 0.23 or a spread of 16 % at d=2, 0.32 or 6 % at d=64; "
        "blind to what is finer than its bandwidth"
    ),
)
def mmd(
    outcome: labcore.Outcome,
    *,
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,),
    bandwidth: PositiveFloat | None = None,
    block: Annotated[int, Field(ge=2)] = 10_000,
) -> float:
    """Squared MMD, unbiased: zero on average for exact samples, so it can be negative.

    The kernel is the mean of Gaussians of bandwidth ``scales`` times the median distance within
    the reference, or times ``bandwidth``. Beyond ``block`` points it is the mean over blocks of
    at most that many, unbiased too (Zaremba, Gretton, Blaschko 2013).
    """
    x, y = pair(mmd, outcome)
    h = median_distance(y) if bandwidth is None else bandwidth
    if h == 0:
        raise fail(
            mmd, "most reference points coincide, so the median distance is 0; pass bandwidth"
        )
    count = min(math.ceil(len(x) / block), len(x) // 2)
    blocks = zip(x.tensor_split(count), y.tensor_split(count), strict=True)
    return mean(mmd2(a, b, scale * h) for a, b in blocks for scale in scales)

"""Energy distance: 2 E|X-Y| - E|X-X'| - E|Y-Y'| (Szekely and Rizzo 2013).

It is zero only when the laws agree. Directions add up: for a unit vector theta uniform on the
sphere E|<theta, z>| = c_d |z|, so the mean over theta of the energy distance of the projections,
over c_d, is the energy distance itself, and in one dimension sorting gives it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

import labcore
from labcore_metrics.checks import pair
from labcore_metrics.pairs import u_statistic
from labcore_metrics.sliced import frames

_BLOCK = 8  # directions sorted at a time: 13 MB at n = 100,000


def energy_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased U-statistic over all pairs, x (n, d), y (m, d); can be slightly negative."""
    return -u_statistic(x, y, torch.sqrt_)


def sliced_energy_distance(x: Tensor, y: Tensor, theta: Tensor) -> float:
    """The same expectation by sorting along theta (L, d): O(L n log n), exact when d = 1."""
    n, m = len(x), len(y)
    total = 0.0
    for block in theta.to(x.dtype).split(_BLOCK):
        a, b = ((block @ z.T).numpy() for z in (x, y))
        within_a, within_b = _spread(a), _spread(b)
        cross = _spread(np.concatenate([a, b], axis=1)) - within_a - within_b
        total += 2 * (cross / (n * m) - within_a / (n * (n - 1)) - within_b / (m * (m - 1)))
    return total / len(theta) / _mean_cosine(x.shape[1])


def _spread(a: NDArray[np.floating]) -> float:
    """sum over rows of sum_{i<j} |a_i - a_j| = sum_{i=0}^{n-1} (2 i - n + 1) a_(i); sorts a."""
    a.sort(axis=1)
    ranks = 2.0 * np.arange(a.shape[1]) - (a.shape[1] - 1)
    return float(np.einsum("ln,n->", a, ranks, dtype=np.float64))


def _mean_cosine(d: int) -> float:
    """c_d = E|<theta, e>| = Gamma(d/2) / ( sqrt(pi) Gamma((d+1)/2) )."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)


@labcore.metric(
    better="lower",
    minimum=2,
    cite="Szekely and Rizzo (2013)",
    sees=(
        "1000 samples: a shift of 0.23 or a spread of 16 % at d=2, 0.32 or 6 % at d=64; "
        "falls like n^-1/2"
    ),
)
def energy(
    outcome: labcore.Outcome, *, pairs_up_to: PositiveInt = 10_000, directions: PositiveInt = 200
) -> float:
    """Energy distance, unbiased: zero on average for exact samples, so it can be negative.

    Up to ``pairs_up_to`` points all pairs are used; beyond, ``directions`` estimate the same
    number. In one dimension it is exact at any n.
    """
    x, y = pair(energy, outcome)
    if x.shape[1] == 1:
        return sliced_energy_distance(x.double(), y.double(), torch.ones(1, 1))
    if len(x) <= pairs_up_to:
        return energy_distance(x, y)
    return sliced_energy_distance(
        x, y, frames(directions, x.shape[1], outcome.generator("energy"))
    )

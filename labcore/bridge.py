"""Brownian intervals: how one is split in two and joined again, and a whole path by splitting.

An interval of length h is known by its normals: (w,) or (w, k), independent N(0, I), with

    increment            W = sqrt(h) w
    space-time area      H = sqrt(h/12) k,   int_0^h (W_r - W_0) dr = h (W/2 + H)

For parts in the ratio a^2 : b^2, a^2 + b^2 = 1,

    w = a w1 + b w2,     k = a^3 k1 + b^3 k2 + sqrt(3) a b (b w1 - a w2)

are orthonormal rows. Splitting completes them to an orthogonal matrix, a product of rotations,
whose transpose maps (w, k) and as many fresh normals to the parts: P. Levy's construction, and
with areas that of Foster, Lyons, Oberhauser (2020) "An optimal polynomial approximation of
Brownian motion", SIAM J. Numer. Anal. 58.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Normals = tuple[Tensor, ...]


def rotate(x: Tensor, y: Tensor, c: float, s: float) -> None:
    """x, y <- c x - s y, s x + c y in place, c^2 + s^2 = 1, c >= 0: three shears, no buffer."""
    shear = -s / (1.0 + c)
    x.add_(y, alpha=shear)
    y.add_(x, alpha=s)
    x.add_(y, alpha=shear)


def split(node: Normals, fresh: Normals, ratio: float) -> None:
    """Split an interval, in place: node becomes its first part, a^2 = ratio, fresh the second."""
    a, b = sqrt(ratio), sqrt(1.0 - ratio)
    if len(node) == 2:
        (_, k), (w2, k2), rho = node, fresh, sqrt(a**6 + b**6)
        rotate(k, w2, rho, -sqrt(3.0) * a * b)
        rotate(k, k2, a**3 / rho, b**3 / rho)
    rotate(node[0], fresh[0], a, b)


def join(left: tuple[float, Normals], right: tuple[float, Normals]) -> tuple[float, Normals]:
    """Two neighbouring intervals (length, normals) as one: what a split undoes."""
    (h1, (w1, *k1)), (h2, (w2, *k2)) = left, right
    a, b = sqrt(h1 / (h1 + h2)), sqrt(h2 / (h1 + h2))
    area = [
        a**3 * x + b**3 * y + sqrt(3.0) * a * b * (b * w1 - a * w2)
        for x, y in zip(k1, k2, strict=True)
    ]
    return h1 + h2, (a * w1 + b * w2, *area)


@lru_cache(maxsize=16)
def tree(n: int) -> tuple[NDArray[np.intp], tuple[int, ...], tuple[int, ...]]:
    """The splits of a grid of n steps in the order of a walk, depth first.

    (3, n - 1): an interval's first time, where it is split, its last time; the depth of each; and
    how many come before each step. A grid of N = Q 2^P steps, Q odd, is split into Q units and
    each unit is halved. The grid of every second point has the same units, so with one generator
    a depth it sees the same path.
    """
    unit = n & -n
    trunk = (n // unit - 1).bit_length()
    splits, depths, before = list[tuple[int, int, int]](), list[int](), [0] * n
    rest = [(0, n, 0)]
    while rest:
        i, j, depth = rest.pop()
        first = len(splits)
        while j - i > 1:
            if j - i > unit:
                m, depth = i + (j - i) // unit // 2 * unit, depth + 1
            else:
                m, depth = (i + j) // 2, trunk + unit.bit_length() - (j - i).bit_length() + 1
            splits.append((i, m, j))
            depths.append(depth)
            rest.append((m, j, depth))
            j = m
        before[i] = len(splits) - first
    return np.array(splits, dtype=np.intp).reshape(-1, 3).T, tuple(depths), tuple(before)


def path(times: Sequence[float], fresh: Callable[[int], Normals]) -> Iterator[Normals]:
    """The normals of the steps of a grid in order, depth first: O(log N) of them are alive.

    ``fresh(depth)`` returns the next normals of a depth of the tree.
    """
    splits, depths, before = tree(len(times) - 1)
    parts = zip(splits.T.tolist(), depths, strict=True)
    rest = [fresh(0)]
    for count in before:
        node = rest.pop()
        for (i, m, j), depth in islice(parts, count):
            right = fresh(depth)
            split(node, right, (times[i] - times[m]) / (times[i] - times[j]))
            rest.append(right)
        yield node


def increments(
    times: Sequence[float], fresh: Callable[[int, float], Tensor], scales: Sequence[float]
) -> Iterator[Tensor]:
    """scale * w of the steps of a grid in order: ``path`` without areas, in two passes a step.

    ``fresh(depth, std)`` returns the next normals of a depth times std; scales are positive. With
    h and H the lengths of the first step of an interval and of all of it, the interval is held as
    e W/H, e = scale sqrt(h): at a step that is what is asked for. Parts of lengths a + b = H have

        W1/a = W/H - sqrt(b/(aH)) n,     W2/b = W/H + sqrt(a/(bH)) n = W1/a + sqrt(H/(ab)) n

    and the first inherits e: with n drawn at the size it has in the second, each is one addition.
    The last form needs no buffer, and loses a digit where a is small; there the one before serves.
    """
    t = np.asarray(times)
    splits, depths, before = tree(len(t) - 1)
    e = np.asarray(scales) * np.sqrt(t[:-1] - t[1:])
    (a, b), (at_first, at_mid) = -np.diff(t[splits], axis=0), e[splits[:2]]
    q, inside = at_mid / at_first, a >= b
    whole = np.where(inside, a + b, a)  # H, or what is divided by where the two forms differ
    std = at_mid * np.sqrt((a + b) / (a * b))
    std = np.where(inside, std, std * (a / (a + b)))
    back = -b / (q * whole)
    parts = zip(depths, *(v.tolist() for v in (std, back, q, inside)), strict=True)
    rest = [fresh(0, float(e[0] / sqrt(t[0] - t[-1])))]
    for count in before:
        node = rest.pop()
        for depth, sd, alpha, beta, in_place in islice(parts, count):
            right = fresh(depth, sd)
            if in_place:
                right.add_(node.add_(right, alpha=alpha), alpha=beta)
            else:
                whole, node = node, torch.add(node, right, alpha=alpha)
                right.add_(whole, alpha=beta)
            rest.append(right)
        yield node

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
from itertools import pairwise
from math import sqrt

import torch
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


def cuts(n: int) -> Callable[[int, int, int], tuple[int, int]]:
    """Where steps i .. j of a grid of n, at some depth of its tree, are split, and how deep then.

    A grid of N = Q 2^P steps, Q odd, is split into Q units and each unit is halved. The grid of
    every second point has the same units, so with one generator a depth it sees the same path.
    """
    unit = n & -n
    trunk = (n // unit - 1).bit_length()

    def cut(i: int, j: int, depth: int) -> tuple[int, int]:
        if j - i > unit:
            return i + (j - i) // unit // 2 * unit, depth + 1
        return (i + j) // 2, trunk + unit.bit_length() - (j - i).bit_length() + 1

    return cut


def path(times: Sequence[float], fresh: Callable[[int], Normals]) -> Iterator[Normals]:
    """The normals of the steps of a grid in order, depth first: O(log N) of them are alive.

    ``fresh(depth)`` returns the next normals of a depth of the tree.
    """
    n = len(times) - 1
    cut, rest = cuts(n), [(0, n, 0, fresh(0))]
    while rest:
        i, j, depth, node = rest.pop()
        while j - i > 1:
            m, depth = cut(i, j, depth)
            right = fresh(depth)
            split(node, right, (times[i] - times[m]) / (times[i] - times[j]))
            rest.append((m, j, depth, right))
            j = m
        yield node


def increments(
    times: Sequence[float], fresh: Callable[[int, float], Tensor], scales: Sequence[float]
) -> Iterator[Tensor]:
    """scale * w of the steps of a grid in order: ``path`` without areas, in two passes a step.

    ``fresh(depth, std)`` returns the next normals of a depth times std; scales are positive. With
    h and H the lengths of the first step of an interval and of all of it, the interval is held as
    e W/H, e = scale sqrt(h): at a step that is what is asked for. Parts of lengths a + b = H have

        W1/a = W/H - sqrt(b/(aH)) n,     W2/b = W/H + sqrt(a/(bH)) n

    and the first inherits e: with n drawn at the size it has in the second, each is one addition.
    """
    n = len(times) - 1
    e = [scale * sqrt(t - s) for scale, (t, s) in zip(scales, pairwise(times), strict=True)]
    node = fresh(0, e[0] / sqrt(times[0] - times[n]))
    cut, rest, spare = cuts(n), [(0, n, 0, node)], torch.empty_like(node)
    while rest:
        i, j, depth, node = rest.pop()
        while j - i > 1:
            m, depth = cut(i, j, depth)
            a, b, q = times[i] - times[m], times[m] - times[j], e[m] / e[i]
            right = fresh(depth, e[m] * sqrt(a / b / (a + b)))
            node, spare = torch.add(node, right, alpha=-b / a / q, out=spare), node
            right.add_(spare, alpha=q)
            rest.append((m, j, depth, right))
            j = m
        yield node

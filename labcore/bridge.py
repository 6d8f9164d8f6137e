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
from math import sqrt

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


def path(times: Sequence[float], fresh: Callable[[int], Normals]) -> Iterator[Normals]:
    """The normals of the steps of a grid in order, depth first: O(log N) of them are alive.

    ``fresh(depth)`` returns the next normals of a depth of the tree. A grid of N = Q 2^P steps, Q
    odd, is split into Q units and each unit is halved. The grid of every second point has the same
    units, so with one generator a depth it sees the same path.
    """
    n = len(times) - 1
    unit = n & -n
    trunk = (n // unit - 1).bit_length()
    rest = [(0, n, 0, fresh(0))]
    while rest:
        i, j, depth, node = rest.pop()
        while j - i > 1:
            if j - i > unit:
                m, depth = i + (j - i) // unit // 2 * unit, depth + 1
            else:
                m, depth = (i + j) // 2, trunk + unit.bit_length() - (j - i).bit_length() + 1
            right = fresh(depth)
            split(node, right, (times[i] - times[m]) / (times[i] - times[j]))
            rest.append((m, j, depth, right))
            j = m
        yield node

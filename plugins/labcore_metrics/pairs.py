"""Averages over all pairs of points, in blocks of rows so that memory does not grow like n^2."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK = 2**18  # entries of a block of squared distances: 2 MB

Transform = Callable[[Tensor], Tensor]
"""In place, entry by entry: a block of squared distances |x - y|^2 to f(|x - y|^2)."""


def u_statistic(x: Tensor, y: Tensor, f: Transform) -> float:
    """Unbiased estimate of E f(|X-X'|^2) + E f(|Y-Y'|^2) - 2 E f(|X-Y|^2); x (n, d), y (m, d).

    Pairs of a point with itself are left out, so the mean over draws is zero when the laws agree
    and single values can be negative (Gretton et al. 2012, eq. 3).
    """
    centre = y.mean(0, dtype=torch.float64)  # keeps the terms that cancel in |x-y|^2 small
    x, y = x - centre, y - centre
    n, m = len(x), len(y)
    return (
        distinct_sum(x, f) / (n * (n - 1))
        + distinct_sum(y, f) / (m * (m - 1))
        - 2 * cross_sum(x, y, f) / (n * m)
    )


def square_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows, |x_i - y_j|^2 for those i and all j), float64; the block is reused by the next."""
    right = _right(y)
    step = max(1, _BLOCK // len(y))
    buffer = x.new_empty(min(step, len(x)), len(y))
    for i in range(0, len(x), step):
        part = x[i : i + step]
        yield (
            slice(i, i + step),
            torch.mm(_left(part), right, out=buffer[: len(part)]).clamp_(min=0),
        )


def cross_sum(x: Tensor, y: Tensor, f: Transform) -> float:
    """sum_ij f(|x_i - y_j|^2)."""
    return math.fsum(f(squares).sum().item() for _, squares in square_blocks(x, y))


def distinct_sum(x: Tensor, f: Transform) -> float:
    """sum_{i != j} f(|x_i - x_j|^2); each pair is computed once."""
    right = _right(x)
    step = max(1, _BLOCK // len(x))
    total = 0.0
    for i in range(0, len(x), step):
        part = x[i : i + step]
        block = f((_left(part) @ right[:, i:]).clamp_(min=0))
        block.diagonal().zero_()
        total += 2 * block.sum().item() - block[:, : len(part)].sum().item()
    return total


def _left(x: Tensor) -> Tensor:
    """(n, d+2) with _left(x) @ _right(y) = |x_i|^2 - 2 <x_i, y_j> + |y_j|^2."""
    norm = x.square().sum(1, keepdim=True)
    return torch.cat([-2 * x, norm, torch.ones_like(norm)], 1)


def _right(y: Tensor) -> Tensor:
    norm = y.square().sum(1, keepdim=True)
    return torch.cat([y, torch.ones_like(norm), norm], 1).T

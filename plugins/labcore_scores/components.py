"""The score of one Gaussian mixture, from its components in whitened form.

With C_k^-1 = P_k = W_k^T W_k and y_k = W_k (x - m_k),

    log w_k N(x; m_k, C_k) = c_k - |y_k|^2 / 2 + const,     c_k = log w_k + log |det W_k|
    grad log p(x) = - sum_k r_k W_k^T y_k,                  r = softmax_k( c_k - |y_k|^2 / 2 )

All W_k stacked make it two matrix products. Samples stay the innermost axis and components the
first, where a softmax is 20 times faster than over a short last axis, and rows come in blocks
that stay in the cache. Nothing is written in place, so the score can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

Rows = Callable[[Tensor], Tensor]
"""The score at one time, of a block of rows (b, D)."""

SMALL = 4
"""Up to this dimension a log-density is one row of quadratic features."""

_BLOCK = 2**17  # numbers in a block of rows: 512 kB in float32
_SPREAD = 1e4  # largest |x|^2 / variance at which the expanded square keeps the digits needed


def in_rows(score: Callable[..., Tensor], width: int, *parts: Tensor) -> Tensor:
    """score(*parts) in blocks of rows that need about ``width`` numbers each."""
    rows = 2 ** max(6, (_BLOCK // width).bit_length() - 1)
    return torch.cat(
        [score(*block) for block in zip(*(p.split(rows) for p in parts), strict=True)]
    )


def components(W: Tensor, means: Tensor, c: Tensor, widest: Tensor, like: Tensor) -> Rows:
    """The score of components W (K, D, D), means (K, D), c (K,), all float64, for rows in the
    dtype and on the device of ``like``; ``widest`` is the largest variance of a coordinate.
    """
    D = means.shape[1]
    origin = means.mean(0)
    reach = (means - origin).square().sum(1).amax() + 9 * widest
    precise = W.square().sum((1, 2)).amax()
    if D > SMALL or float(reach * precise) > _SPREAD:
        shift = W @ means[:, :, None]
        flat = (W.reshape(-1, D), shift.reshape(-1, 1), c[:, None])
        return partial(whitened, *(p.to(like) for p in flat))
    i, j, half, _ = _pairs(D)
    P = W.mT @ W
    h = (P @ (means - origin)[:, :, None]).squeeze(-1)
    top = (c - 0.5 * ((means - origin) * h).sum(1))[:, None]
    packed = P[:, i, j]
    logs, back = torch.cat([h, -half * packed], 1), torch.cat([h, packed], 1).mT
    return partial(quadratic, *(p.to(like) for p in (origin[:, None], logs, top, back)))


def whitened(W: Tensor, shift: Tensor, c: Tensor, x: Tensor) -> Tensor:
    """Score at x (b, D), from W (K D, D), shift = W_k m_k (K D, 1) and c (K, 1)."""
    K, D = len(c), x.shape[1]
    y = torch.addmm(shift, W, x.mT, beta=-1).view(K, D, len(x))
    r = torch.softmax(torch.add(c, (y * y).sum(1), alpha=-0.5), 0)
    return -((y * r[:, None]).view(K * D, len(x)).mT @ W)


def quadratic(origin: Tensor, logs: Tensor, c: Tensor, back: Tensor, x: Tensor) -> Tensor:
    """Score at x (b, D), D <= SMALL.

    The log-densities h_k x - x P_k x / 2 + c_k are one product with the features (x_i, x_i x_j),
    and sum_k r_k h_k - (sum_k r_k P_k) x is one with the responsibilities.
    """
    D = len(origin)
    i, j, _, place = _pairs(D)
    y = x.mT - origin
    r = torch.softmax(torch.addmm(c, logs, torch.cat([y, y[i] * y[j]])), 0)
    average = back @ r
    return (average[:D] - (average[place] * y).sum(1)).mT


@cache
def _pairs(D: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """i <= j of the upper triangle, 1/2 on its diagonal, and where each (i, j) is kept."""
    with torch.inference_mode(False):
        i, j = torch.triu_indices(D, D)
        place = torch.empty(D, D, dtype=torch.long)
        place[i, j] = place[j, i] = torch.arange(D, D + len(i))
        return i, j, torch.where(i == j, 0.5, 1.0).double(), place

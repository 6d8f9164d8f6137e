"""The exact score of a finite data set: the ideal denoiser, which is attention.

For x_i, i = 1..N, equally likely, with L L^T = Sigma(t), U = L^-1 Phi and y = L^-1 x,

    r_i = softmax_i( (U x_i) . y - |U x_i|^2 / 2 ),   x0(x) = sum_i r_i x_i
    grad log p_t(x) = L^-T ( U x0(x) - y )

The query U^T y meets keys x_i, which are also the values, in an attention that never holds the
(B, N) table of weights. The bias -|U x_i|^2 / 2 is a mask where all rows share a time, else it is
the product of extra columns. Data are centred first, which changes nothing but the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

import labcore
from labcore import LabError, LinOp, Process, Score, ScoreWith, Target
from labcore_scores.density import log_prob_of_data
from labcore_scores.times import by_time

Event = tuple[int, ...]
_SLACK = 1e-3  # rounding error of a log-weight beyond which float64 takes over
_NARROW = 16  # heads of fewer columns are slower than these with zeros in them
_TABLE = 2**24  # numbers in the largest table of weights, where the device needs one: 64 MB


class Bias(NamedTuple):
    """-|U x_i|^2 / 2 = columns_i . query, for columns (N, c) and query (u, c), in float64."""

    query: Tensor
    columns: Tensor


BiasOf = Callable[[LinOp, int], Bias]
"""(U, number of times it is given at) -> Bias."""


@labcore.score(
    needs=("data",),
    gives=("log_p_t",),
    cite="Karras et al. (2022) arXiv:2206.00364, appendix B.3",
)
def empirical(process: Process, target: Target) -> Score:
    """Exact score of the empirical law of a data set, under any linear process.

    grad log p_t(x) = Sigma^-1 (Phi x0(x) - x), where x0(x) averages the data with weights
    proportional to N(x; Phi x_i, Sigma). t > 0 is 0-d or (B,). At times so small that the dtype of
    x cannot tell the data apart, float64 does.
    """
    if target.data is None:
        raise LabError(
            "score 'empirical': the target is not a finite data set; use 'exact' for a mixture"
        )
    event, state = target.event, process.event(target.event)
    with torch.inference_mode(False):
        data = target.data.reshape(len(target.data), -1).to("cpu", torch.float64)
        mean = data.mean(0, keepdim=True)
        points = data - mean
        bias_of = _BIAS[process.structure](process, points, event)
    centre = process.embed(mean.reshape(1, *event))

    @lru_cache(maxsize=4)
    def keys(dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return points.to(device, dtype)

    def at(x: Tensor, t: Tensor) -> Tensor:
        Linv = process.Sigma(t).chol.inv
        U = Linv @ process.Phi(t, torch.zeros_like(t))
        bias = bias_of(U, t.numel())
        z = x.reshape(len(x), *state)
        if _largest(bias) * torch.finfo(x.dtype).eps > _SLACK:
            z = z.double()
        y = Linv @ z - U @ centre.to(z).expand_as(z)
        query = process.project(U.T @ y).flatten(1)
        x0 = _attend(query, keys(z.dtype, z.device), bias).reshape(len(z), *event)
        return (Linv.T @ (U @ process.embed(x0) - y)).reshape(x.shape).to(x)

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        fewest = 0 if process.structure == "dense" else 8
        return by_time(at, x.flatten(1), t, fewest).reshape(x.shape)

    return ScoreWith(score, log_prob=log_prob_of_data(process, target))


def _largest(bias: Bias) -> float:
    """A bound of the bias, over the data and times."""
    return float((bias.query.abs() * bias.columns.abs().amax(0)).sum(1).amax())


def _attend(query: Tensor, points: Tensor, bias: Bias) -> Tensor:
    """Averages of the points (B, d), weighted by softmax(query points^T + bias)."""
    d = query.shape[1]
    if len(bias.query) == 1:
        mask = (bias.columns @ bias.query[0]).to(query)
    else:
        mask = None
        query = torch.cat([query, bias.query.to(query)], 1)
        points = torch.cat([points, bias.columns.to(points)], 1)
    # The CPU kernel works in tiles; others may need the table, and get some rows at a time.
    rows = len(query) if query.device.type == "cpu" else max(64, _TABLE // len(points))
    return torch.cat([_average(part, points, mask)[:, :d] for part in query.split(rows)])


def _average(query: Tensor, points: Tensor, mask: Tensor | None) -> Tensor:
    table = None if mask is None else mask.expand(1, 1, len(query), len(points))
    blank = (0, max(0, _NARROW - query.shape[1]))
    q, k = pad(query, blank)[None, None], pad(points, blank)[None, None]
    return scaled_dot_product_attention(q, k, k, attn_mask=table, scale=1.0)[0, 0]


def _one_column(process: Process, points: Tensor, event: Event) -> BiasOf:
    """U^T U is a multiple of the identity."""
    if process.Sigma(torch.tensor(process.T, dtype=torch.float64)).param.ndim > 3:
        return _columns(process, points, event)  # a block of its own for each coordinate
    return _weighed(process, event, -0.5 * points.square().sum(1, keepdim=True))


def _columns(process: Process, points: Tensor, event: Event) -> BiasOf:
    """U^T U is diagonal."""
    return _weighed(process, event, -0.5 * points.square())


def _weighed(process: Process, event: Event, columns: Tensor) -> BiasOf:
    """The same columns at all times, weighed by the diagonal of U^T U."""
    ones = process.embed(torch.ones(1, *event, dtype=torch.float64))

    def bias(U: LinOp, n: int) -> Bias:
        weights = process.project(U.T @ (U @ ones.expand(n, *ones.shape[1:])))
        return Bias(weights.flatten(1)[:, : columns.shape[1]], columns)

    return bias


def _moving_column(process: Process, points: Tensor, event: Event) -> BiasOf:
    """U is any matrix, the same for all rows: the norms are taken anew at each time."""
    states = process.embed(points.reshape(len(points), *event))
    one = torch.ones(1, 1, dtype=torch.float64)
    return lambda U, n: Bias(one, -0.5 * (U @ states).flatten(1).square().sum(1, keepdim=True))


_BIAS: dict[str, Callable[[Process, Tensor, Event], BiasOf]] = {
    "scalar": _one_column,
    "channel": _one_column,
    "diag": _columns,
    "dense": _moving_column,
}

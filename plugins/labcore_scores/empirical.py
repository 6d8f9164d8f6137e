"""The exact score of a finite data set: the ideal denoiser, which is attention.

For x_i, i = 1..N, equally likely, with L L^T = Sigma(t), U = L^-1 Phi and y = L^-1 x,

    r_i = softmax_i( (U x_i) . y - |U x_i|^2 / 2 ),   x0(x) = sum_i r_i x_i
    grad log p_t(x) = L^-T ( U x0(x) - y )

The query U^T y meets keys x_i, which are also the values, and -|U x_i|^2 / 2 is a product of
extra columns: attention, that never holds the (B, N) table of weights. Data are centred first,
which changes nothing but the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import labcore
from labcore import LabError, LinOp, Process, Score, Target
from labcore_scores.times import by_time

Event = tuple[int, ...]
_SLACK = 1e-3  # rounding error of a log-weight beyond which float64 takes over
_TABLE = 2**24  # numbers in the largest table of weights, where the device needs one: 64 MB


class Bias(NamedTuple):
    """-|U x_i|^2 / 2 as the product of ``query`` (u, c) with extra columns of ``keys``."""

    query: Tensor
    keys: Callable[[Tensor], Tensor]  # in the dtype and on the device of its argument
    largest: float


BiasOf = Callable[[LinOp, int], Bias]
"""(U, number of times it is given at) -> Bias."""


@labcore.score(needs=("data",), cite="Karras et al. (2022) arXiv:2206.00364, appendix B.3")
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
        bias_of = _BIAS[process.structure](process, data - mean, event)
    centre = process.embed(mean.reshape(1, *event))

    def at(x: Tensor, t: Tensor) -> Tensor:
        Linv = process.Sigma(t).chol.inv
        U = Linv @ process.Phi(t, torch.zeros_like(t))
        bias = bias_of(U, t.numel())
        z = x.reshape(len(x), *state)
        if bias.largest * torch.finfo(x.dtype).eps > _SLACK:
            z = z.double()
        y = Linv @ z - U @ centre.to(z).expand_as(z)
        query = process.project(U.T @ y).flatten(1)
        extra = bias.query.to(z).expand(len(z), -1)
        x0 = _attend(torch.cat([query, extra], 1), bias.keys(z))[:, : query.shape[1]]
        pull = U @ process.embed(x0.reshape(len(z), *event)) - y
        return (Linv.T @ pull).reshape(x.shape).to(x)

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        fewest = 0 if process.structure == "dense" else 8
        return by_time(at, x.flatten(1), t, fewest).reshape(x.shape)

    return score


def _attend(query: Tensor, keys: Tensor) -> Tensor:
    """softmax(query keys^T) keys, (B, c). The CPU kernel tiles the table itself."""
    rows = len(query) if query.device.type == "cpu" else max(64, _TABLE // len(keys))
    parts = [
        scaled_dot_product_attention(q[None, None], keys[None, None], keys[None, None], scale=1.0)
        for q in query.split(max(rows, 1))
    ]
    return torch.cat([p[0, 0] for p in parts])


def _fixed_columns(process: Process, points: Tensor, event: Event, columns: Tensor) -> BiasOf:
    """U^T U is diagonal: its diagonal (u, c) is the query of -x_i^2 / 2, summed over what it
    does not tell apart."""
    ones = process.embed(torch.ones(1, *event, dtype=torch.float64))
    farthest = columns.abs().amax(0)

    @lru_cache(maxsize=4)
    def cast(dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return torch.cat([points, columns], 1).to(device, dtype)

    def bias(U: LinOp, n: int) -> Bias:
        query = process.project(U.T @ (U @ ones.expand(n, *ones.shape[1:]))).flatten(1)[
            :, : columns.shape[1]
        ]
        largest = float((query * farthest).sum(1).amax())
        return Bias(query, lambda z: cast(z.dtype, z.device), largest)

    return bias


def _one_column(process: Process, points: Tensor, event: Event) -> BiasOf:
    """U^T U is a multiple of the identity."""
    if process.Sigma(torch.tensor(process.T, dtype=torch.float64)).param.ndim > 3:
        return _columns(process, points, event)  # a block of its own for each coordinate
    columns = -0.5 * points.square().sum(1, keepdim=True)
    return _fixed_columns(process, points, event, columns)


def _columns(process: Process, points: Tensor, event: Event) -> BiasOf:
    return _fixed_columns(process, points, event, -0.5 * points.square())


def _moving_column(process: Process, points: Tensor, event: Event) -> BiasOf:
    """U is any matrix, the same for all rows: the norms are taken anew at each time."""
    states = process.embed(points.reshape(len(points), *event))
    one = torch.ones(1, 1, dtype=torch.float64)

    def bias(U: LinOp, n: int) -> Bias:
        column = -0.5 * (U @ states).flatten(1).square().sum(1, keepdim=True)
        keys = torch.cat([points, column], 1)
        return Bias(one, keys.to, -float(column.min()))

    return bias


_BIAS: dict[str, Callable[[Process, Tensor, Event], BiasOf]] = {
    "scalar": _one_column,
    "channel": _one_column,
    "diag": _columns,
    "dense": _moving_column,
}

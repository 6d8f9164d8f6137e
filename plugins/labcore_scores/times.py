"""One score, one time or many: rows that share a time are evaluated together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Flat = Callable[[Tensor, Tensor], Tensor]
"""(x (B, D), t () or (B,)) -> score (B, D), t in float64 on the CPU."""


def by_time(at: Flat, x: Tensor, t: Tensor, fewest: int = 8) -> Tensor:
    """at(x, t), time by time where on average ``fewest`` rows or more of a (B,) t share one."""
    if len(x) == 0:
        return x
    if t.ndim == 0:
        return at(x, t)
    times, member = t.unique(return_inverse=True)
    if len(t) < fewest * len(times):
        return at(x, t)
    rows = [(member == i).nonzero().squeeze(1).to(x.device) for i in range(len(times))]
    parts = torch.cat([at(x[mine], time) for mine, time in zip(rows, times, strict=True)])
    return parts[torch.cat(rows).argsort()]

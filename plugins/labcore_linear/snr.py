"""The time at which a process has a given log-SNR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import labcore

CELLS = 256  # of the table that brackets every root
ROUNDS = 64
SETTLED = 1e-11  # a Newton step of this size leaves an error of about its square


def time_of_log_snr(process: labcore.Process, level: Tensor, t_eps: float) -> Tensor:
    """t in [t_eps, T] with process.log_snr(t) = level, for levels (n,), to 1e-14 relative.

    Newton in log t, where log-SNR is nearly straight, with its slope -t tr(Sigma^-1 G G^T)/D; a
    step that leaves the bracket is replaced by bisection. Every root is found on its own, so a
    level has the same time whatever other levels are asked for.
    """
    ends = math.log(t_eps), math.log(process.T)
    knots = torch.linspace(*ends, CELLS + 1, dtype=torch.float64)
    values = process.log_snr(_time(process, knots, t_eps))
    cell = torch.searchsorted(-values, -level).clamp(1, CELLS)
    low, high = knots[cell - 1], knots[cell]
    share = (values[cell - 1] - level) / (values[cell - 1] - values[cell])
    u = low + share.clamp(0, 1) * (high - low)
    moving = torch.ones_like(u, dtype=torch.bool)
    for _ in range(ROUNDS):
        t = _time(process, u, t_eps)
        excess = process.log_snr(t) - level
        low, high = torch.where(excess >= 0, u, low), torch.where(excess <= 0, u, high)
        new = u - excess / _slope(process, t)
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        moved, u = (new - u).abs() > SETTLED, torch.where(moving, new, u)
        moving = moving & moved
        if not bool(moving.any()):
            break
    return _time(process, u, t_eps)


def _time(process: labcore.Process, u: Tensor, t_eps: float) -> Tensor:
    return u.exp().clamp(t_eps, process.T)


def _slope(process: labcore.Process, t: Tensor) -> Tensor:
    """d log_snr / d log t = -t tr(Sigma^-1 G G^T) / D, (n,)."""
    event = process.event(process.event_shape or (1,))
    pull = process.Sigma(t).inv @ process.GG(t)
    return -t * pull.trace(event) / torch.Size(event).numel()

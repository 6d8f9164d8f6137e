"""What every time grid must be: n + 1 float64 times, strictly decreasing, from T into (0, T)."""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.errors import InvalidGrid
from labcore.processes import Process


def check_grid(ts: Tensor, process: Process, n: int | None = None, name: str = "grid") -> Tensor:
    """The grid as float64, or InvalidGrid that says which time is wrong and why."""
    if not isinstance(ts, Tensor) or ts.ndim != 1:
        raise InvalidGrid(f"{name}: it is no 1-D tensor of times; return a (n+1,) float64 tensor")
    if ts.dtype != torch.float64:
        raise InvalidGrid(f"{name}: its times are {ts.dtype}; compute them in torch.float64")
    if len(ts) < 2 or (n is not None and len(ts) != n + 1):
        wanted = f"{n + 1} times for {n} steps" if n is not None else "at least 2 times"
        raise InvalidGrid(f"{name}: it has {len(ts)} times; it needs {wanted}")
    if not bool(torch.isfinite(ts).all()):
        raise InvalidGrid(f"{name}: a time is NaN or infinite; check its options")
    steps = ts[:-1] - ts[1:]
    if not bool((steps > 0).all()):
        i = int((steps <= 0).nonzero()[0])
        raise InvalidGrid(
            f"{name}: t[{i}]={ts[i]:.6g} is followed by t[{i + 1}]={ts[i + 1]:.6g}; "
            "times must strictly decrease from T to t_eps"
        )
    if ts[0] > process.T * (1 + 1e-12):
        raise InvalidGrid(f"{name}: it starts at {ts[0]:.6g}, beyond T={process.T:g}")
    if ts[0] < process.T * (1 - 1e-6):
        raise InvalidGrid(
            f"{name}: t[0] is {ts[0]:.6g} and T is {process.T:g}; begin at T, whose law every run "
            "starts from"
        )
    if ts[-1] <= 0:
        raise InvalidGrid(
            f"{name}: it ends at t_eps={ts[-1]:.6g}, where Sigma is singular and no score exists; "
            f"use t_eps > 0 (this process's default is {process.t_eps:g})"
        )
    return ts

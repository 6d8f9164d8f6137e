"""What every process asks of its options before it computes anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import labcore


def refuse(name: str, text: str) -> labcore.InvalidOption:
    """The error ``process 'name': text``; the text gives reason and remedy."""
    return labcore.InvalidOption(f"process '{name}': {text}")


def positive(name: str, **values: float) -> None:
    """Every value is finite and above 0, or InvalidOption."""
    for key, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise refuse(name, f"{key} is {value}; give a finite number above 0")


def dimension(name: str, d: int) -> None:
    """d is a whole number of at least 1, or InvalidOption."""
    if d < 1:
        raise refuse(name, f"d is {d}; give the target's dimension, at least 1")


def span(name: str, T: float, t_eps: float) -> None:
    """0 < t_eps < T < infinity, or InvalidOption."""
    positive(name, T=T, t_eps=t_eps)
    if t_eps >= T:
        raise refuse(name, f"t_eps is {t_eps}, not below T={T}; give a smaller t_eps")


def matrix(name: str, key: str, rows: Sequence[Sequence[float]]) -> Tensor:
    """The nested list as a finite float64 matrix (r, c), or InvalidOption."""
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise refuse(name, f"{key} is no matrix; give rows of equal length")
    M = torch.tensor(rows, dtype=torch.float64)
    if not bool(torch.isfinite(M).all()):
        raise refuse(name, f"{key} has an entry that is NaN or infinite; give finite numbers")
    return M

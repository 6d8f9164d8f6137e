"""The slope of reverse dynamics at known times, its coefficients cast to the state once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labcore import Process, Score


@dataclass(frozen=True, slots=True)
class Slope:
    """x -> A x - rate G G^T s(x, t) at one time t; rate 1/2 is the probability flow's."""

    t: Tensor
    A: Any
    pull: Any

    def __call__(self, score: Score, x: Tensor) -> Tensor:
        g = score(x, self.t)
        out: Tensor = self.pull.accumulate(self.A @ x, g)
        return out


def slopes(process: Process, ts: Tensor, x: Tensor, rate: Tensor | float = 0.5) -> list[Slope]:
    """One slope for each of ts (n,); ``rate`` is a number or one a time."""
    A = (process.A(ts) * torch.ones_like(ts)).per_step(x)
    pull = (process.GG(ts) * (-rate * torch.ones_like(ts))).terms(x)
    return [Slope(*each) for each in zip(ts.unbind(), A, pull, strict=True)]

"""Where in [t_eps, T] an objective looks: t, and the importance 1 / (its density)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from labcore import Process

Times = Callable[[int, Generator], tuple[Tensor, Tensor]]
"""(n, generator) -> t (n,) float64 and 1/(p(t) (T - t_eps)), (n,): 1 where t is uniform."""


def uniform(process: Process) -> Times:
    """t uniform, one draw in each of n equal parts: low discrepancy, unbiased."""

    def times(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(1, generator=generator, dtype=torch.float64)
        part = (torch.arange(n, dtype=torch.float64) + u) / n
        t = process.t_eps + (process.T - process.t_eps) * part
        return t[torch.randperm(n, generator=generator)], torch.ones(n, dtype=torch.float64)

    return times

"""A scheduler whose table of noise levels is the lab's grid.

Schedulers are made for a table of num_train_timesteps values alphas_cumprod = alpha^2 / (alpha^2 +
sigma^2), which their configuration ``trained_betas`` gives one by one. A table of the N + 1 levels
of the grid, data first, and timesteps N, N-1, .. make them step on the grid. They hold it in
float32: 1 - alphas_cumprod then has an error of 6e-8 whatever its size, which near the data, where
sigma^2 is 1e-4, is 1e-3 of it. With tables="float64" the public attributes that hold tables are
set once more, in float64, so that what is left is the method's own error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from labcore import Levels


@contextmanager
def quiet() -> Iterator[None]:
    """The library's warnings, of its own settings and numpy functions on tensors, kept to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make(name: str, **config: Any) -> Any:
    """The library's scheduler ``name``."""
    with quiet():
        import diffusers.schedulers as library

        return getattr(library, name)(**config)


def along(scheduler: Any, steps: int, **how: Any) -> None:
    """set_timesteps."""
    with quiet():
        scheduler.set_timesteps(steps, **how)


def cumulative(of: Levels) -> Tensor:
    """alphas_cumprod of the grid, data first, (n+1,)."""
    signal, noise = of.alpha.flip(0).square(), of.sigma.flip(0).square()
    return signal / (signal + noise)


def betas(of: Levels) -> Tensor:
    """1 - alphas_cumprod[j] / alphas_cumprod[j-1], and 1 - alphas_cumprod[0] first, (n+1,)."""
    signal, noise = of.alpha.flip(0).square(), of.sigma.flip(0).square()
    total = signal + noise
    shrink = signal[1:] / signal[:-1]
    rest = (total[1:] - shrink * total[:-1]) / total[1:]
    return torch.cat([noise[:1] / total[:1], rest])


def config(of: Levels) -> dict[str, Any]:
    """The configuration that makes a scheduler's table that of the grid."""
    return {"num_train_timesteps": len(of.ts), "trained_betas": betas(of).tolist()}


def refine(scheduler: Any, of: Levels) -> None:
    """alphas_cumprod and what is made of it in a constructor, in float64."""
    scheduler.alphas_cumprod = cumulative(of)
    scheduler.betas = betas(of)
    scheduler.alphas = 1 - scheduler.betas


def doubled(levels: Tensor) -> Tensor:
    """r_0, r_1, r_1, .., r_N, r_N, 0: the levels as two-stage schedulers hold them."""
    return torch.cat([levels[:1], levels[1:].repeat_interleave(2), levels.new_zeros(1)])


def doubled_at_ends(levels: Tensor) -> Tensor:
    """What ``doubled`` gives for tables whose last value, of a step that is never taken, is 0."""
    return torch.cat([levels[:1], levels[1:].repeat_interleave(2), levels[-1:]])

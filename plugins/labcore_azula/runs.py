"""azula's samplers on the lab's grid: its time is the number of steps left.

The library takes a schedule, t -> (alpha, sigma), a denoiser, (x, t) -> E[x_0 | x_t = x], and
equal steps in its own time. Time i from N to 0, with a schedule that looks alpha and sigma up in a
table, is any grid, in float64. Its draws are torch.randn_like, answered by the lab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from labcore import Levels, Noise, Process, Score, levels, serving


def sampler(name: str, of: Levels, score: Score, seen: Callable[[Tensor], None], **kw: Any) -> Any:
    """The library's sampler ``name``; ``seen`` is shown every x that is denoised."""
    import azula.sample as library
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

    steps = len(of.ts) - 1

    class Table(Schedule):
        def __call__(self, left: Tensor) -> tuple[Tensor, Tensor]:
            i = steps - left.round().long()
            return of.alpha[i], of.sigma[i]

    class Tweedie(Denoiser):
        schedule = Table()

        def forward(self, x: Tensor, left: Tensor) -> Any:
            seen(x)
            i = steps - round(float(left))
            alpha, sigma = float(of.alpha[i]), float(of.sigma[i])
            return DiracPosterior((x + sigma**2 * score(x, of.ts[i])) / alpha)

    time = {"start": float(steps), "stop": 0.0, "steps": steps, "dtype": torch.float64}
    return getattr(library, name)(Tweedie(), silent=True, **time, **kw)


def one_by_one(
    name: str,
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    streams: tuple[str, ...] = ("",),
    **options: Any,
) -> Iterator[Tensor]:
    """The states of a one-step sampler, whose draws of a step are those of ``streams`` in turn."""
    made = sampler(name, levels(process, ts), score, lambda x: None, **options)
    left = made.timesteps
    for i in range(len(ts) - 1):
        draws = (noise(ts[i], ts[i + 1], stream) for stream in streams)
        with serving(partial(next, draws)):
            x = made.step(x, left[i], left[i + 1])
        yield x


def at_once(
    name: str, process: Process, score: Score, x: Tensor, ts: Tensor, **options: Any
) -> Iterator[Tensor]:
    """The states of a multistep sampler; all of them are kept until the last is known."""
    before: list[Tensor] = []
    last = sampler(name, levels(process, ts), score, before.append, **options)(x)
    yield from (*before[1:], last)

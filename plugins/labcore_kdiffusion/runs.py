"""k-diffusion's loops on the lab's grid, score and noise.

The library samples y = x_0 + sigma eps with a denoiser D(y, sigma) = E[x_0 | y]. A scalar process
is that in y = x/alpha at the levels sigma/alpha, which are handed over in the dtype of the state.

A one-step method is run on one step of the grid at a time, which its loop cannot tell from a whole
grid, so that states are not kept; a multistep one in a single run, its states by the callback.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labcore import Levels, Noise, Process, Score, levels, serving
from labcore_kdiffusion.library import sampling

Sampled = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Run:
    """One run in the library's terms: its grid, its denoiser and its noise sampler."""

    of: Levels
    score: Score
    x: Tensor
    noise: Noise

    @property
    def sigmas(self) -> Tensor:
        return self.of.ratio.to(self.x.dtype)

    @property
    def start(self) -> Tensor:
        return self.x / float(self.of.alpha[0])

    def model(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y, sigma), sigma (B,) of equal values."""
        return self.of.denoise(self.score, y, float(sigma[0]))

    def noise_sampler(self, begin: Tensor, end: Tensor) -> Tensor:
        return self.of.increment(self.noise, float(begin), float(end))


def prepared(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Run:
    return Run(levels(process, ts), score, x, noise)


def step_by_step(run: Run, sample: Sampled, **options: Any) -> Iterator[Tensor]:
    """The states of a one-step method."""
    y, sigmas = run.start, run.sigmas
    for i, alpha in enumerate(run.of.alpha[1:].tolist()):
        y = sample(run.model, y, sigmas[i : i + 2], disable=True, **options)
        yield alpha * y


def churned(run: Run, sample: Sampled, s_churn: float, **options: Any) -> Iterator[Tensor]:
    """The states of a method of Algorithm 2, which draws by torch.randn_like at every step.

    Its gamma is min(s_churn/N, sqrt(2) - 1) with N the steps of the grid it is given: here one.
    """
    y, sigmas, steps = run.start, run.sigmas, len(run.of.ts) - 1
    for i, alpha in enumerate(run.of.alpha[1:].tolist()):

        def draw(i: int = i) -> Tensor:
            unused = torch.zeros_like(run.x)  # a draw is made and left where nothing is churned
            return run.noise(run.of.ts[i], run.of.ts[i + 1], "churn") if s_churn else unused

        with serving(draw):
            pair, share = sigmas[i : i + 2], s_churn / steps
            y = sample(run.model, y, pair, disable=True, s_churn=share, **options)
        yield alpha * y


def at_once(run: Run, sample: Sampled, **options: Any) -> Iterator[Tensor]:
    """The states of a multistep method; all of them are kept until the last is known."""
    before: list[Tensor] = []
    last = sample(
        run.model,
        run.start,
        run.sigmas,
        callback=lambda told: before.append(told["x"]),
        disable=True,
        **options,
    )
    for y, alpha in zip([*before[1:], last], run.of.alpha[1:].tolist(), strict=True):
        yield alpha * y


def fast(run: Run, eta: float, s_noise: float) -> Iterator[Tensor]:
    """The states of dpm_fast, which lays its own grid: N steps equal in log sigma.

    N = floor(n/3) + 1 for its n evaluations; n = 3 N - 2 makes all steps of order 3 but the last.
    """
    steps, sigmas = len(run.of.ts) - 1, run.sigmas
    before: list[dict[str, Any]] = []

    def draw(begin: Tensor, end: Tensor) -> Tensor:
        i = len(before) - 1
        return run.noise(run.of.ts[i], run.of.ts[i + 1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.tensor() of a tensor, which keeps its precision
        last = sampling().sample_dpm_fast(
            run.model,
            run.start,
            sigmas[-1],
            sigmas[0],
            3 * steps - 2,
            callback=before.append,
            disable=True,
            eta=eta,
            s_noise=s_noise,
            noise_sampler=draw,
        )
    for told in before[1:]:
        yield run.of.at(float(told["sigma"]))[1] * told["x"]
    yield float(run.of.alpha[-1]) * last

"""What the checks of the battery are given: a sampler with its options on one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.entry import Entry
from labcore.linop import Event
from labcore.noise import Noise, brownian, initial
from labcore.processes import Process
from labcore.scores import CountedScore, Score, counted
from labcore.targets import state_law
from labcore.testing.audit import default_data
from labcore.testing.gaussians import gaussian_score
from labcore.testing.models import quadratic


class Broken(Exception):
    """What a check found wrong, and the remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


def passed(found: str, **more: Any) -> Check:
    """A check that ended well; the battery gives it its name."""
    return Check("", "passed", found, **more)


def skipped(why: str) -> Check:
    """A check that has nothing to say of this sampler, and why."""
    return Check("", "skipped", why)


class Case:
    """One sampler with its (bound) options on one process, and a way to run it.

    ``seed`` chooses the Gaussian data and the starts: seed 0 is what certificates are made with.
    """

    def __init__(
        self, entry: Entry, process: Process, options: dict[str, Any], seed: int = 0
    ) -> None:
        self.entry, self.process, self.options, self.seed = entry, process, options, seed
        self.event = tuple(process.event(process.event_shape or (2,)))
        self.data_event: Event = process.event_shape or (2,)
        self.data = default_data(torch.Size(self.data_event).numel(), seed)
        self._exact = gaussian_score(process, self.data, self.data_event)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact score, which insists on its protocol."""
        if not isinstance(t, Tensor) or t.shape not in ((), (len(x),)):
            raise Broken(
                f"it calls the score with t={t!r:.40}", "pass a 0-d tensor, such as ts[i]"
            )
        return self._exact(x, t)

    def start(self, seeds: Sequence[int], n: int, dtype: torch.dtype) -> Tensor:
        return self.process.prior().chol @ initial(seeds, n, self.event, dtype=dtype)

    def run(self, steps: int, **how: Any) -> list[Tensor]:
        """Copies of all states; the keywords are those of ``states``."""
        with torch.inference_mode():
            return [x.clone() for x in self.states(steps, **how)]

    def states(
        self,
        steps: int,
        *,
        ts: Tensor | None = None,
        seeds: Sequence[int] | None = None,
        n: int = 3,
        dtype: torch.dtype = torch.float64,
        score: Score | None = None,
    ) -> Iterator[Tensor]:
        """A run on ``ts``, by default the quadratic grid."""
        ts = quadratic(self.process, steps) if ts is None else ts
        seeds = (self.seed,) if seeds is None else seeds
        x = self.start(seeds, n, dtype)
        noise = brownian(ts, self.event, seeds, n, dtype=dtype)
        return self.call(score or self.score, x, ts, noise)

    def call(self, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
        if not isinstance(score, CountedScore):
            score = counted(score, len(x))
        score.model = replace(score.model, log_prob=self.log_prob, reverse=self.reverse)
        return iter(self.entry(self.process, score, x, ts, noise, **self.options))

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact log-density, for samplers that need one."""
        return state_law(self.process, self.data, t, self.data_event).log_prob(x.flatten(1))

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """The exact kernel X_s | X_t, for samplers that need it."""
        before = state_law(self.process, self.data, s, self.data_event)
        after = state_law(self.process, self.data, t, self.data_event)
        Phi = self.process.Phi(t, s).dense(self.event)[0]
        gain = before.covs[0] @ Phi.T @ torch.linalg.inv(after.covs[0])
        L = torch.linalg.cholesky(before.covs[0] - gain @ Phi @ before.covs[0])
        mean = before.means[0] + (x.flatten(1).double() - after.means[0]) @ gain.T
        return (mean + z.flatten(1).double() @ L.T).reshape(x.shape).to(x)

"""What the checks of the battery are given: a sampler with its options on one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.entry import Entry
from labcore.errors import SamplerError
from labcore.linop import Event
from labcore.noise import Noise, brownian, initial
from labcore.processes import Process
from labcore.roots import symmetric_root
from labcore.scores import CountedScore, Score, counted
from labcore.targets import Mixture, state_law
from labcore.testing.audit import default_data, final
from labcore.testing.gaussians import gaussian_score
from labcore.testing.models import cld, quadratic, vp

Kept = TypeVar("Kept")


class Broken(Exception):
    """What a check found wrong, and the remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


def passed(found: str, **more: Any) -> Check:
    """A check that ended well; the battery gives it its name."""
    return Check("", "passed", found, **more)


def skipped(why: str, **more: Any) -> Check:
    """A check that has nothing to say of this sampler, and why."""
    return Check("", "skipped", why, **more)


def insist(x: Tensor, t: Tensor) -> None:
    """The protocol of a score: one time, 0-d, or one a row."""
    if not isinstance(t, Tensor) or (t.ndim and t.shape != x.shape[:1]):
        raise Broken(f"it calls the score with t={t!r:.40}", "pass a 0-d tensor, such as ts[i]")


def default_process(entry: Entry) -> tuple[str, Process]:
    """CLD for a sampler that needs channels, else VP, and its name."""
    return ("cld", cld()) if "channel" in entry.needs else ("vp", vp())


class Case:
    """One sampler with its (bound) options on one process, and a way to run it.

    ``seed`` chooses the Gaussian data and the starts: seed 0 is what certificates are made with.
    """

    def __init__(
        self,
        entry: Entry,
        process: Process,
        options: dict[str, Any],
        seed: int = 0,
        data: Mixture | None = None,
    ) -> None:
        self.entry, self.process, self.options, self.seed = entry, process, options, seed
        self.event = tuple(process.event(process.event_shape or (2,)))
        self.data_event: Event = process.event_shape or (2,)
        self.data = data or default_data(torch.Size(self.data_event).numel(), seed)
        self.exact = gaussian_score(process, self.data, self.data_event)
        self._kept: dict[Any, Any] = {}

    @property
    def D(self) -> int:
        """Numbers in a state."""
        return torch.Size(self.event).numel()

    @property
    def coupled(self) -> bool:
        """The rows act on each other, as declared: the steps follow a tolerance."""
        return bool(self.entry.traits.get("coupled"))

    @property
    def order(self) -> float | None:
        """The order in law it declares."""
        order: float | None = self.entry.traits.get("order")
        return order

    def beside(self, **other: Any) -> Case:
        """The same sampler with another process, data or options."""
        given = {"process": self.process, "data": self.data, "options": self.options, **other}
        return Case(self.entry, given["process"], given["options"], self.seed, given["data"])

    @property
    def least(self) -> int:
        """The fewest steps it takes without refusing them by a SamplerError."""
        return self.once("least", self._least)

    def _least(self) -> int:
        for n in range(1, 9):
            try:
                self.run(n)
            except SamplerError:
                continue
            return n
        return 1

    def once(self, key: Any, make: Callable[[], Kept]) -> Kept:
        """make(), made once for all checks."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: Kept = self._kept[key]
        return kept

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact score, which insists on its protocol."""
        insist(x, t)
        return self.exact(x, t)

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
        model = score.model
        log_prob, reverse = model.log_prob or self.log_prob, model.reverse or self.reverse
        score.model = replace(model, log_prob=log_prob, reverse=reverse)
        return iter(self.entry(self.process, score, x, ts, noise, **self.options))

    def end(self, x: Tensor, ts: Tensor, noise: Noise, score: Score | None = None) -> Tensor:
        """A copy of the last state of a run from x."""
        with torch.inference_mode():
            return final(self.call(score or self.score, x, ts, noise), x).clone()

    def law(self, t: Tensor) -> Mixture:
        """The exact law of X_t over the flattened state."""
        return self.once(
            ("law", float(t)), lambda: state_law(self.process, self.data, t, self.data_event)
        )

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact log-density, for samplers that need one."""
        return self.law(t).log_prob(x.flatten(1))

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """The exact kernel X_s | X_t, for samplers that need it, by its symmetric root."""
        before, after = self.law(s), self.law(t)
        gain, root = self.once(("kernel", float(t), float(s)), lambda: self._kernel(t, s))
        mean = before.means[0] + (x.flatten(1).double() - after.means[0]) @ gain.T
        return (mean + z.flatten(1).double() @ root).reshape(x.shape).to(x)

    def _kernel(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        before = self.law(s).covs[0]
        Phi = self.process.Phi(t, s).dense(self.event)[0]
        gain = before @ Phi.T @ torch.linalg.inv(self.law(t).covs[0])
        cov = before - gain @ Phi @ before
        return gain, symmetric_root((cov + cov.T) / 2)

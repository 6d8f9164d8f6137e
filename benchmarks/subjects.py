"""Every registered sampler, ready to run on a nearly free score, its calls and draws counted."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import peers
import timing
import torch
from floors import Calls, fresh
from torch import Tensor

import labcore
from labcore import Entry, Process
from labcore.noise import Noise, brownian
from labcore.registry import load_registry
from labcore.scores import ScoreWith, counted
from labcore.testing import quadratic, vp
from labcore_linear import cld

N, SHAPE = 50, (4096, 2)
VP = vp(peers.B0, peers.B1)
MORE = 90  # at 100 steps torchsde's Brownian interval takes 40 times as long a step
TS, LONG = quadratic(VP, N), quadratic(VP, MORE)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

clocked = partial(timing.rounds, clock=time.thread_time)


def quietly(fn: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return fn()

    return run


def log_prob(x: Tensor, t: Tensor) -> Tensor:
    """log p_t of N(m, v I) up to a constant."""
    a2 = torch.exp(-(peers.B0 * t + (peers.B1 - peers.B0) / 2 * t * t))
    return (a2.sqrt() * peers.M - x).square().flatten(1).sum(1) / (-2 * (a2 * peers.V + (1 - a2)))


def reverse(x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
    """Not the kernel of any process: one operation, for the cost of the loop around it."""
    return torch.lerp(x, z, 0.1)


KNOWN = {"score": peers.score, "log_p_t": log_prob, "reverse": reverse}


def network(wrap: Callable[[str, Any], Any] = lambda name, fn: fn) -> ScoreWith:
    """All that a sampler may ask for, to be counted for each run as a study does."""
    score, log_p, kernel = (wrap(name, fn) for name, fn in KNOWN.items())
    return ScoreWith(score, log_p, reverse=kernel)


BARE = network()


def bare_calls() -> dict[str, Calls]:
    """Each of them along the grid, and fresh normals."""
    net, u = counted(BARE, len(START)), torch.rand(len(START))

    def score() -> Iterator[object]:
        for t in times[:-1]:
            yield net(START, t)

    def log_p() -> Iterator[object]:
        for t in times[:-1]:
            yield net.log_prob(START, t)

    def kernel() -> Iterator[object]:
        for t, s in pairwise(times):
            yield net.reverse(START, t, s, START, u)

    times = TS.unbind()
    return {"score": score, "log_p_t": log_p, "reverse": kernel, "fresh": fresh(START)}


@dataclass
class Count:
    """Calls by name, and draws."""

    calls: Counter[str] = field(default_factory=Counter)
    draws: int = 0

    def of(self, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls[name] += 1
            return fn(*args)

        return call


class Tallied(Noise):
    """Another noise, its draws counted."""

    def __init__(self, noise: Noise, count: Count) -> None:
        self._noise, self._count = noise, count

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        self._count.draws += parts
        return self._noise.draw(t, s, stream, parts)

    def tree(self, resolution: float) -> Noise:
        return Tallied(self._noise.tree(resolution), self._count)


def run(
    sampler: Entry,
    x: Tensor = START,
    ts: Tensor = TS,
    score: labcore.Score = peers.score,
    process: Process = VP,
    noise: Noise | None = None,
    **options: Any,
) -> Tensor:
    """One run as a study makes it: noise, coefficients, loop; the last state."""
    noise = noise or brownian(ts, x.shape[1:], [0], len(x))
    return deque(sampler(process, score, x, ts, noise, **options), maxlen=1).pop()


@dataclass(frozen=True)
class Subject:
    """A sampler with its options; ``lawful`` if its samples must have the law of the data."""

    who: str
    entry: Entry
    options: Mapping[str, Any]
    process: Process
    x: Tensor
    lawful: bool

    def run(self, ts: Tensor = TS) -> Tensor:
        score = counted(BARE, len(self.x))
        return run(self.entry, self.x, ts, score, self.process, **self.options)

    def tried(self, ts: Tensor = TS) -> tuple[Tensor, Count]:
        """A run, and what it called and drew."""
        count, x = Count(), self.x
        noise = Tallied(brownian(ts, x.shape[1:], [0], len(x)), count)
        score = counted(network(count.of), len(x))
        return run(self.entry, x, ts, score, self.process, noise, **self.options), count


VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("samplers:ddim", {"eta": 1.0}),
    ("samplers:predictor_corrector", {"predictor": "ddim", "corrector": "fixed"}),
)
GIVEN = {"scalar", "log_p_t", "reverse", "channel"}


def subjects() -> Iterator[Subject]:
    """All entries of the registry at their defaults, and some variants."""
    registry = load_registry()
    everyone = [(name, entry, dict[str, Any]()) for name, entry in registry.all("sampler")]
    everyone += [(name, registry.get("sampler", name), options) for name, options in VARIANTS]
    for name, entry, options in everyone:
        if not entry.needs <= GIVEN:
            print(f"left out: {name} needs {', '.join(sorted(entry.needs - GIVEN))}")
            continue
        channel = "channel" in entry.needs
        said = ", ".join(f"{k}={str(v).removesuffix('.0')}" for k, v in options.items())
        yield Subject(
            f"{name}({said})" if said else name,
            entry,
            options,
            cld() if channel else VP,
            START.reshape(-1, 2, 2) if channel else START,
            not channel and (entry.traits.get("order") is not None or "evals" not in entry.traits),
        )

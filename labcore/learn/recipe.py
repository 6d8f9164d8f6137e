"""What a learned score is made from, as plain data; its hash names the folder that keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch

from labcore.errors import InvalidOption
from labcore.parameterisations import PARAMETERISATIONS
from labcore.parts import Parts
from labcore.processes import Process
from labcore.registry import Registry
from labcore.seeds import derive
from labcore.study import Use, digest, use
from labcore.targets import Target

KINDS = ("target", "process", "network", "objective")


@dataclass(frozen=True)
class Recipe:
    """Target, process, network and objective by name, and how they are trained.

    reading: what the network's output means (labcore.models.Model); time: its level input.
    data_std: the data's standard deviation, 0 to measure it on 4096 samples.
    Adam with ``lr``, warmed up over ``warmup`` steps and then decayed to 0 along a cosine
    ("cosine") or kept ("constant"); gradients are clipped to norm ``clip`` (0: not); what is kept
    is the exponential moving average of the weights with ``ema`` (0: the last weights).
    ``holdout``: share of a finite data set that is never trained on, for the validation curve.
    precision: "float32", or "bfloat16" to call the network under autocast.
    shards: parts of a batch with random numbers of their own, which several devices may share out;
    the weights are the same whatever number of devices does.
    """

    target: Use
    process: Use
    network: Use
    objective: Use
    reading: str = "eps"
    time: str = "log_snr"
    data_std: float = 0.0
    steps: int = 2000
    batch: int = 512
    lr: float = 1e-3
    warmup: int = 100
    decay: str = "cosine"
    clip: float = 1.0
    ema: float = 0.999
    holdout: float = 0.1
    seed: int = 0
    precision: str = "float32"
    shards: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{f.name}={getattr(self, f.name)!r}, give a number"
            for f in fields(self)
            if f.type == "float" and type(getattr(self, f.name)) not in (int, float)
        ]
        wrong = wrong or [text for good, text in self._rules() if not good]
        if wrong:
            raise InvalidOption(f"recipe: {'; '.join(wrong)}")

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (_whole(self.steps) and self.steps >= 1, f"steps={self.steps!r}, give 1 or more"),
            (_whole(self.batch) and self.batch >= 1, f"batch={self.batch!r}, give 1 or more"),
            (_whole(self.warmup) and self.warmup >= 0, f"warmup={self.warmup!r}, give 0 or more"),
            (_whole(self.seed) and self.seed >= 0, f"seed={self.seed!r}, give 0 or more"),
            (
                _whole(self.shards) and self.shards >= 1 and _divides(self.shards, self.batch),
                f"shards={self.shards!r}, give a divisor of batch={self.batch!r}",
            ),
            (0 < self.lr < 10, f"lr={self.lr!r}, give a positive rate such as 1e-3"),
            (0 <= self.clip < math.inf, f"clip={self.clip!r}, give a norm, or 0 for none"),
            (0 <= self.ema < 1, f"ema={self.ema!r}, give 0 (none) to below 1, such as 0.999"),
            (0 <= self.holdout < 1, f"holdout={self.holdout!r}, give a share below 1"),
            (
                0 <= self.data_std < math.inf,
                f"data_std={self.data_std!r}, give a deviation, or 0 to measure it",
            ),
            (self.reading in READINGS, f"reading={self.reading!r}, give one of {READINGS}"),
            (self.time in TIMES, f"time={self.time!r}, give one of {TIMES}"),
            (self.decay in DECAYS, f"decay={self.decay!r}, give one of {DECAYS}"),
            (
                self.precision in PRECISIONS,
                f"precision={self.precision!r}, give one of {PRECISIONS}",
            ),
        ]

    def resolve(self, registry: Registry) -> Recipe:
        """The same with qualified names and all options; UnknownName or InvalidOption."""
        uses = {kind: getattr(self, kind).resolve(kind, registry) for kind in KINDS}
        return replace(self, **uses)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """As JSON has it; lr=1 and lr=1.0 are one recipe."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {f.name: float(values[f.name]) for f in fields(self) if f.type == "float"}
        return {**values, **{kind: values[kind].plain for kind in KINDS}}

    @cached_property
    def key(self) -> str:
        """32 hex digits that name these weights; of a resolved recipe."""
        return digest(self.plain)[:32]

    def __str__(self) -> str:
        return (
            f"{self.network} by {self.objective}, {self.steps} steps, {self.process} on "
            f"{self.target}"
        )


DECAYS = ("cosine", "constant")
PRECISIONS = ("float32", "bfloat16")
READINGS = (*PARAMETERISATIONS, "energy")
TIMES = ("log_snr", "t")


def _whole(value: Any) -> bool:
    return type(value) is int


def _divides(part: int, whole: Any) -> bool:
    return _whole(whole) and whole % part == 0


def read_recipe(plain: Mapping[str, Any]) -> Recipe:
    """The recipe whose ``plain`` this is; InvalidOption for anything else."""
    try:
        held = dict(plain)
        uses: dict[str, Any] = {kind: _use(held.pop(kind)) for kind in KINDS}
        return Recipe(**uses, **held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidOption(f"recipe: it cannot be read ({error}); train it again") from error


def _use(held: Mapping[str, Any]) -> Use:
    return use(held["name"], **held["options"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights drawn from ``seed``: torch's layers draw from its global generator, which is
    put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("weights", seed))
        yield


def parts_of(recipe: Recipe, parts: Parts) -> tuple[Target, Process, torch.nn.Module, Any]:
    """Target, process, network and objective of a resolved recipe, built."""
    target, process = parts.target(recipe.target), parts.process(recipe.process)
    event = process.event(target.event)
    network = parts.registry.get("network", recipe.network.name)
    objective = parts.registry.get("objective", recipe.objective.name)
    with seeded(recipe.seed):
        net = network(event, **dict(recipe.network.options))
        loss = objective(process, **dict(recipe.objective.options))
    return target, process, net, loss

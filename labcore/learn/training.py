"""The training loop: every step is a function of (recipe, step), so an interruption costs nothing.

Batches, times and noise of step k come from a generator seeded by (seed, k); the learning rate is
a function of k. What is kept between steps is the weights, their average, the optimiser's moments
and the objective's buffers: a checkpoint of these continues to the same weights, bit by bit, on
the same machine and number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from labcore.errors import StoreError, TrainingError
from labcore.learn.checkpoints import (
    Tensors,
    Trained,
    finish,
    is_finished,
    load_trained,
    model_of,
    read_tensors,
    trained,
    write_tensors,
)
from labcore.learn.recipe import Recipe, parts_of
from labcore.models import Model
from labcore.parts import Parts
from labcore.processes import Process
from labcore.seeds import generator
from labcore.targets import Target

STATE = "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where training stands: steps done, the last loss, steps a second, and the validation loss
    where it was just measured."""

    step: int
    steps: int
    loss: float
    rate: float
    validation: float | None = None


def train(
    recipe: Recipe,
    parts: Parts,
    folder: str | Path,
    *,
    report: Callable[[Progress], None] | None = None,
    every: float = 10.0,
    device: str | torch.device = "cpu",
) -> Trained:
    """The score that ``recipe`` makes, from ``folder`` where it has been made before.

    A checkpoint is written every ``every`` seconds and when training is interrupted; the next
    call continues from it. Raises TrainingError for a loss that is NaN or Inf, StoreError where
    the folder is damaged or cannot be written, and what building the parts raises.
    """
    recipe = recipe.resolve(parts.registry)
    home = Path(folder) / recipe.key
    if is_finished(home):
        return load_trained(home, parts)
    with locked(home):
        if is_finished(home):  # by the process that held the lock before us
            return load_trained(home, parts)
        session = Session.begin(recipe, parts, torch.device(device))
        if (home / STATE).exists():
            session.restore(*read_tensors(home / STATE))
        _drive(session, home, report, every)
        facts = session.facts()
        finish(home, recipe, session.weights(), facts)
        (home / STATE).unlink(missing_ok=True)
    net = session.kept()
    return trained(net, session.process, recipe, session.event, session.data_std, facts)


def _drive(
    session: Session, home: Path, report: Callable[[Progress], None] | None, every: float
) -> None:
    """Steps to the end, with checkpoints; the state is saved on any way out but a bad loss."""
    steps, begun, first = session.recipe.steps, time.perf_counter(), session.step
    saved, spent = time.perf_counter(), session.seconds
    look = max(1, steps // 20)
    try:
        while session.step < steps:
            loss = session.advance(home)
            validation = None
            if session.step % look == 0 or session.step == steps:
                validation = session.validate()
                session.curve.append((session.step, loss, validation))
            now = time.perf_counter()
            session.seconds = spent + now - begun
            if report:
                rate = (session.step - first) / max(now - begun, 1e-9)
                report(Progress(session.step, steps, loss, rate, validation))
            if now - saved > every and session.step < steps:
                session.save(home / STATE)
                saved = time.perf_counter()
    except TrainingError:
        raise
    except BaseException:
        session.save(home / STATE)
        raise


@dataclass(eq=False)
class Session:
    """A training that is under way: all that changes from step to step."""

    recipe: Recipe
    process: Process
    net: torch.nn.Module
    loss: Any
    draw: Callable[[int, Generator], Tensor]
    held_out: Tensor
    event: tuple[int, ...]
    data_std: float
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    device: torch.device
    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, recipe: Recipe, parts: Parts, device: torch.device) -> Session:
        """Step 0: initial weights, measured scale of the data."""
        target, process, net, loss = parts_of(recipe, parts)
        net.to(device)
        draw, held_out = _data(recipe, target)
        sample = draw(4096, generator("data_std", recipe.seed))
        data_std = recipe.data_std or float(sample.std())
        parameters = [*net.parameters(), *_module(loss).parameters()]
        optimiser = torch.optim.Adam(parameters, lr=recipe.lr, fused=True)
        average = None
        if recipe.ema:
            average = AveragedModel(net, multi_avg_fn=warmed(recipe.ema))
        event = process.event(target.event)
        return cls(
            recipe, process, net, loss, draw, held_out, event, data_std, optimiser, average, device
        )

    def model(self, net: torch.nn.Module) -> Model:
        """A network as the score that the objective trains."""
        return model_of(net, self.process, self.recipe, self.data_std)

    def __post_init__(self) -> None:
        self._model = self.model(self.net)

    def advance(self, home: Path) -> float:
        """One step of Adam; its loss."""
        recipe = self.recipe
        g = generator("batch", recipe.seed, self.step)
        x0 = self.draw(recipe.batch, g).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        self.net.train()
        with self._autocast():
            loss = self.loss(self._model, x0, g).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"training: the loss is {value} at step {self.step}; the last good state is kept "
                f"in {home}: lower lr (now {recipe.lr:g}), clip gradients, or use a larger t_eps"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip, foreach=True)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.net)
        self.step += 1
        return value

    def _autocast(self) -> Any:
        mixed = self.recipe.precision == "bfloat16" and self.device.type != "cpu"
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    def validate(self) -> float:
        """The objective of the averaged weights on data never trained on, on the same noise."""
        net = self.kept().eval()
        loss, g = self.loss, generator("validation", self.recipe.seed)
        training = _module(loss).training
        _module(loss).eval()
        value = float(loss(self.model(net), self.held_out.to(self.device), g).mean().detach())
        _module(loss).train(training)
        return value

    def kept(self) -> torch.nn.Module:
        """The network that training would end with now."""
        return self.net if self.average is None else self.average.module

    def weights(self) -> Tensors:
        """Its weights, by name."""
        return dict(self.kept().state_dict())

    def facts(self) -> dict[str, Any]:
        """What is told beside the weights."""
        return {
            "event": list(self.event),
            "data_std": self.data_std,
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
        }

    def save(self, path: Path) -> None:
        """A checkpoint, unless the weights have gone bad since the last one."""
        modules = {"net": self.net, "loss": _module(self.loss)}
        if self.average is not None:
            modules["average"] = self.average
        tensors = {
            f"{name}.{key}": value.clone()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{key}": value for key, value in moments.items()}
        if all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            write_tensors(path, tensors, {**self.facts(), "recipe": self.recipe.plain})

    def restore(self, tensors: Tensors, facts: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same recipe."""

        def of(name: str) -> Tensors:
            start = f"{name}."
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        try:
            self.net.load_state_dict(of("net"))
            _module(self.loss).load_state_dict(of("loss"))
            if self.average is not None:
                self.average.load_state_dict(of("average"))
            moments: dict[int, Tensors] = {}
            for key, value in of("adam").items():
                i, _, name = key.partition(".")
                moments.setdefault(int(i), {})[name] = value
            held = self.optimiser.state_dict()
            self.optimiser.load_state_dict({**held, "state": moments})
            self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
            self.curve = [(int(k), float(a), float(b)) for k, a, b in facts["curve"]]
        except (RuntimeError, KeyError, ValueError) as error:
            raise StoreError(
                f"training: the checkpoint does not fit {self.recipe} ({error}); delete its "
                "folder and train again"
            ) from error


def warmed(decay: float) -> Callable[[Any, Any, Any], None]:
    """The moving average whose decay is (1 + k)/(10 + k) until that exceeds ``decay``: initial
    weights are forgotten however few the steps."""

    def update(averaged: Any, current: Any, k: Any) -> None:
        now = min(decay, (1 + float(k)) / (10 + float(k)))
        get_ema_multi_avg_fn(now)(averaged, current, k)

    return update


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear over the warm-up, then a cosine to 0 at the last step, or constant."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    if recipe.decay == "constant":
        return recipe.lr
    share = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.lr * (1 + math.cos(math.pi * share)) / 2


def _data(recipe: Recipe, target: Target) -> tuple[Callable[[int, Generator], Tensor], Tensor]:
    """(n, generator) -> training data, and what is held out for validation."""
    g = generator("held out", recipe.seed)
    if target.data is None or not recipe.holdout:
        return target.sample, target.sample(1024, g)
    order = torch.randperm(len(target.data), generator=g)
    some = max(1, round(recipe.holdout * len(order)))
    if some == len(order):
        raise TrainingError(
            f"training: holdout={recipe.holdout} of {len(order)} samples leaves none to train on"
        )
    data = target.data.float()
    return partial(_rows, data[order[some:]]), data[order[:some]]


def _rows(data: Tensor, n: int, generator: Generator) -> Tensor:
    return data[torch.randint(len(data), (n,), generator=generator)]


def _module(loss: Any) -> torch.nn.Module:
    """The parameters and buffers of an objective; none where it is a plain function."""
    return loss if isinstance(loss, torch.nn.Module) else torch.nn.Module()


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """The folder, for this process alone; others that train the same recipe wait."""
    import fcntl

    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StoreError(f"training: {home} cannot be used ({error}); give a folder") from error

"""One training under way: every step is a function of (recipe, step), so it can stop anywhere.

Batches, times and noise of step k come from a generator seeded by (seed, k); the learning rate is
a function of k. What is kept between steps is the weights, their average, the optimiser's moments
and the objective's parameters and buffers: a checkpoint of these continues to the same weights,
bit by bit, on the same machine and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from labcore.errors import InvalidOption, StoreError, TrainingError
from labcore.learn.checkpoints import Tensors, finish, model_of, read_tensors, write_tensors
from labcore.learn.devices import Devices
from labcore.learn.recipe import Recipe, parts_of
from labcore.models import Model
from labcore.parts import Parts
from labcore.seeds import derive, generator
from labcore.study import digest
from labcore.targets import Target
from labcore.text import one_line

STATE = "state.safetensors"
VALIDATED = 1024
"""Most samples that the validation loss is measured on."""

Draw = Callable[[int, Generator], Tensor]


@dataclass(eq=False)
class Session:
    """All that changes from step to step, and where it is kept."""

    recipe: Recipe
    home: Path
    model: Model
    net: torch.nn.Module
    loss: Any
    draw: Draw
    held_out: Tensor
    event: tuple[int, ...]
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    devices: Devices
    called: torch.nn.Module
    step: int = 0
    saved: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    def advance(self) -> float:
        """One step of Adam; its loss. TrainingError where that is NaN or Inf."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        parts = range(self.devices.rank, recipe.shards, self.devices.world)
        losses = [self._backward(part, part == parts[-1]) for part in parts]
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip, foreach=True)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.net)
        value = self._number(self.devices.mean(torch.stack(losses).mean()), "loss")
        self.step += 1
        return value

    def _backward(self, part: int, last: bool) -> Tensor:
        """Adds one part of the batch to the gradient; its loss."""
        recipe, devices = self.recipe, self.devices
        g = generator("batch", recipe.seed, self.step, part)
        torch.manual_seed(derive("layers", recipe.seed, self.step, part))  # of dropout
        x0 = self.draw(recipe.batch // recipe.shards, g).to(devices.device, torch.float32)
        loss: Tensor = self.loss(self.model, x0, g).mean()
        devices.backward(loss * (devices.world / recipe.shards), self.called, last)
        return loss.detach()

    def _number(self, loss: Any, what: str) -> float:
        value = float(loss)
        if math.isfinite(value):
            return value
        recipe = self.recipe
        raise TrainingError(
            f"training: the {what} is {value} at step {self.step}; lower lr (now {recipe.lr:g}), "
            f"clip gradients (now {recipe.clip:g}) or use a larger t_eps. The last good "
            f"checkpoint, of step {self.saved}, is kept in {self.home}"
        )

    def validate(self, loss: float) -> float:
        """The objective of the averaged weights on data never trained on, on the same noise."""
        net, objective = self.kept(), _module(self.loss)
        modes = net.training, objective.training
        net.eval()
        objective.eval()
        g = generator("validation", self.recipe.seed)
        model = replace(self.model, net=net)
        value = self._number(self.loss(model, self.held_out, g).mean().detach(), "validation loss")
        net.train(modes[0])
        objective.train(modes[1])
        self.curve.append((self.step, loss, value))
        return value

    def kept(self) -> torch.nn.Module:
        """The network that training would end with now."""
        return self.net if self.average is None else self.average.module

    def facts(self) -> dict[str, Any]:
        """What is told beside the weights."""
        return {
            "recipe": self.recipe.plain,
            "event": list(self.event),
            "data_std": self.model.data_std,
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "torch": torch.__version__,
        }

    def finish(self) -> None:
        """The weights that training ended with, in place of the checkpoint."""
        if self.devices.rank:
            return
        finish(self.home, dict(self.kept().state_dict()), self.facts())
        (self.home / STATE).unlink(missing_ok=True)

    def save(self) -> None:
        """A checkpoint, unless the weights have gone bad since the last one."""
        if self.devices.rank:
            return
        weights = [*self.net.parameters(), *_module(self.loss).parameters()]
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            return
        tensors = {
            f"{name}.{key}": value
            for name, module in self._modules().items()
            for key, value in module.state_dict().items()
        }
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{key}": value for key, value in moments.items()}
        for name, value in tensors.items():
            if not torch.is_tensor(value):
                raise TrainingError(
                    f"training: {name} of {self.recipe} is no tensor; keep what changes in "
                    "buffers, or return a tensor from get_extra_state"
                )
        write_tensors(self.home / STATE, tensors, self.facts())
        self.saved = self.step

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules = {"net": self.net, "loss": _module(self.loss)}
        return modules if self.average is None else {**modules, "average": self.average}

    def restore(self) -> None:
        """Continue from the checkpoint; StoreError where it is not one of this recipe."""
        tensors, facts, _ = read_tensors(self.home / STATE)
        if digest(facts.get("recipe")) != digest(self.recipe.plain):
            raise StoreError(
                f"training: {self.home / STATE} is of another recipe than {self.recipe}; delete "
                "it and train again"
            )
        held: dict[str, Tensors] = {}
        for key, value in tensors.items():
            module, _, name = key.partition(".")
            held.setdefault(module, {})[name] = value
        moments: dict[int, Tensors] = {}
        try:
            for key, value in held.get("adam", {}).items():
                i, _, name = key.partition(".")
                moments.setdefault(int(i), {})[name] = value
            for name, part in self._modules().items():
                part.load_state_dict(held.get(name, {}))
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
            self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
            self.curve = [(int(k), float(a), float(b)) for k, a, b in facts["curve"]]
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"training: {self.home / STATE} does not fit {self.recipe} "
                f"({one_line(str(error), 160)}); the code has changed since: delete it and train "
                "again"
            ) from error
        self.saved = self.step


def begin(recipe: Recipe, parts: Parts, home: Path, devices: Devices) -> Session:
    """Step 0 of a resolved recipe: initial weights, measured scale of the data."""
    target, process, net, loss = parts_of(recipe, parts)
    draw, held_out = _data(recipe, target)
    data_std = recipe.data_std
    if not data_std:
        data_std = float(draw(4096, generator("data_std", recipe.seed)).double().std())
    if not (math.isfinite(data_std) and data_std > 0):
        raise TrainingError(
            f"training: the standard deviation of {recipe.target} is {data_std}; give data_std="
        )
    _check_shares(recipe, loss, devices)
    net.to(devices.device)
    parameters = [*net.parameters(), *_module(loss).to(devices.device).parameters()]
    if not parameters:
        raise TrainingError(f"training: {recipe.network} has no parameters to train")
    optimiser = torch.optim.Adam(parameters, lr=recipe.lr, fused=True)
    average = AveragedModel(net, multi_avg_fn=warmed(recipe.ema)) if recipe.ema else None
    called = devices.shared(net, optimiser)
    mixed = partial(_mixed, called, devices.device.type)
    return Session(
        recipe,
        home,
        model_of(called if recipe.precision == "float32" else mixed, process, recipe, data_std),
        net,
        loss,
        draw,
        held_out.to(devices.device, torch.float32),
        process.event(target.event),
        optimiser,
        average,
        devices,
        called,
    )


def _check_shares(recipe: Recipe, loss: Any, devices: Devices) -> None:
    """Whether the devices can share a batch out; InvalidOption."""
    if recipe.shards % devices.world:
        raise InvalidOption(
            f"training: {devices.world} devices cannot share out the shards={recipe.shards} parts "
            f"of a batch; give shards={devices.world} or a multiple, on which the weights depend"
        )
    if devices.world > 1 and isinstance(loss, torch.nn.Module):
        raise InvalidOption(
            f"training: {recipe.objective} keeps a state of its own, which several devices would "
            "not share; train it on one device"
        )


def _mixed(net: torch.nn.Module, device: str, x: Tensor, c: Tensor) -> Tensor:
    """The network in bfloat16 where torch thinks that safe; the operators stay as they are."""
    with torch.autocast(device, torch.bfloat16):
        F: Tensor = net(x, c)
    return F.to(x)


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


def _data(recipe: Recipe, target: Target) -> tuple[Draw, Tensor]:
    """(n, generator) -> training data, and what is held out for validation."""
    g = generator("held out", recipe.seed)
    if target.data is None or not recipe.holdout:
        return target.sample, target.sample(VALIDATED, g)
    order = torch.randperm(len(target.data), generator=g)
    some = max(1, round(recipe.holdout * len(order)))
    if some == len(order):
        raise TrainingError(
            f"training: holdout={recipe.holdout} of {len(order)} samples leaves none to train on"
        )
    data = target.data.float()
    return partial(_rows, data[order[some:]]), data[order[: min(some, VALIDATED)]]


def _rows(data: Tensor, n: int, generator: Generator) -> Tensor:
    return data[torch.randint(len(data), (n,), generator=generator)]


def _module(loss: Any) -> torch.nn.Module:
    """The parameters and buffers of an objective; none where it is a plain function."""
    return loss if isinstance(loss, torch.nn.Module) else torch.nn.Module()

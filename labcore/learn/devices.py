"""Who trains: this process alone, or several through Lightning Fabric, each on its own device.

A batch has ``shards`` parts with random numbers of their own. Process r of W takes the parts r,
r + W, .. and the mean of the gradients over processes is that of one process that takes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labcore.errors import InvalidOption, Unavailable


@dataclass(frozen=True)
class Alone:
    """One process on one device."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def shared(self, net: torch.nn.Module, optimiser: Any) -> torch.nn.Module:
        """The network to call in training."""
        return net

    def backward(self, loss: Tensor, net: Any, last: bool) -> None:
        """Adds to the gradient; at the ``last`` part of a step the processes share theirs."""
        loss.backward()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether one process at least says so."""
        return flag

    def wait(self) -> None:
        """Until every process is here."""


@dataclass(frozen=True)
class Together:
    """The processes of a launched ``lightning_fabric.Fabric``."""

    fabric: Any

    @property
    def device(self) -> torch.device:
        device: torch.device = self.fabric.device
        return device

    @property
    def rank(self) -> int:
        return int(self.fabric.global_rank)

    @property
    def world(self) -> int:
        return int(self.fabric.world_size)

    def shared(self, net: torch.nn.Module, optimiser: Any) -> torch.nn.Module:
        wrapped, _ = self.fabric.setup(net, optimiser)
        module: torch.nn.Module = wrapped
        return module

    def backward(self, loss: Tensor, net: Any, last: bool) -> None:
        with self.fabric.no_backward_sync(net, enabled=not last):
            self.fabric.backward(loss)

    def mean(self, value: Tensor) -> Tensor:
        mean: Tensor = self.fabric.all_reduce(value, reduce_op="mean")
        return mean

    def any(self, flag: bool) -> bool:
        return float(self.mean(torch.tensor(float(flag), device=self.device))) > 0

    def wait(self) -> None:
        self.fabric.barrier()


Devices = Alone | Together


def launched(devices: int, strategy: str, accelerator: str) -> Together:
    """The processes that ``labcore train --devices N`` asks for; this script is run by each."""
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise Unavailable(
            "training: several devices need Lightning Fabric; pip install labcore[fabric]"
        ) from error
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidOption(
            f"training: strategy '{strategy}' on {devices} devices of '{accelerator}': {error}; "
            "try --strategy ddp"
        ) from error
    fabric.launch()
    return Together(fabric)


@contextmanager
def first(devices: Devices, enter: Callable[[], Any]) -> Iterator[None]:
    """``with enter()`` in the first process; the others wait until it has entered, and it leaves
    when all are done."""
    if devices.rank:
        devices.wait()
        yield
        devices.wait()
        return
    with enter():
        devices.wait()
        yield
        devices.wait()

"""Weights on disk: safetensors beside a JSON recipe, checked by hash; never a pickle.

    <folder>/<key>/state.safetensors     where training stands: weights, average, optimiser
    <folder>/<key>/weights.safetensors   what training ended with, and the recipe
    <folder>/<key>/recipe.json           the recipe, to be read; written last of all

Each file is written beside its name and then moved there, so that what is found is whole; the hash
in it covers every number and every fact.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labcore.errors import InvalidOption, InvalidProcess, StoreError
from labcore.kernels import exact_kernel, perturbation_kernel
from labcore.learn.recipe import Recipe, read_recipe, seeded
from labcore.linop import Event
from labcore.models import Model
from labcore.parts import Parts
from labcore.processes import Process
from labcore.text import one_line

FORMAT = 1
WEIGHTS, RECIPE = "weights.safetensors", "recipe.json"
Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """A learned score with what it came from: call it, or ``model``, as any score."""

    model: Model
    net: torch.nn.Module
    recipe: Recipe
    event: Event
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t)


def write_whole(path: Path, data: bytes) -> None:
    """``data`` under ``path``, whole or not at all; StoreError where it cannot be."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise StoreError(
            f"training: {path} cannot be written ({error.strerror}); free space, mind the "
            "folder's permissions, or name another folder"
        ) from error


def read_whole(path: Path) -> bytes:
    """The bytes of a file that is no link; StoreError where there is none."""
    try:
        if path.is_symlink():
            raise StoreError(f"training: {path} is a link; put the file itself there")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"training: {path} cannot be read ({error.strerror}); give the folder of a trained "
            f"score, which has {RECIPE} and {WEIGHTS}"
        ) from error


def write_tensors(path: Path, tensors: Tensors, facts: Mapping[str, Any]) -> str:
    """Tensors and JSON facts in one file; the hash of both."""
    from safetensors.torch import save

    held = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
    held = {name: value.contiguous() for name, value in held.items()}
    sha256 = _sha256(held, facts)
    told = json.dumps({"format": FORMAT, "sha256": sha256, "facts": dict(facts)})
    write_whole(path, save(held, metadata={"labcore": told}))
    return sha256


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any], str]:
    """What ``write_tensors`` wrote, and its hash; StoreError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_whole(path)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        told = json.loads(header["__metadata__"]["labcore"])
        facts, sha256, known = dict(told["facts"]), str(told["sha256"]), told["format"]
        damaged = sha256 != _sha256(tensors, facts)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"training: {path} is damaged or another program's ({one_line(str(error), 80)}); "
            "delete it and train again"
        ) from error
    if known != FORMAT:
        raise StoreError(
            f"training: {path} is of format {known}, this labcore knows {FORMAT}; train again"
        )
    if damaged:
        raise StoreError(
            f"training: {path} is not what was written (its hash differs); delete it and train "
            "again, or restore a copy"
        )
    return tensors, facts, sha256


def _sha256(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    summed = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        summed.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        summed.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


def finish(folder: Path, weights: Tensors, facts: Mapping[str, Any]) -> None:
    """The weights with their facts, and then those facts to be read, which say all is there."""
    sha256 = write_tensors(folder / WEIGHTS, weights, facts)
    told = {"format": FORMAT, "sha256": sha256, **facts}
    write_whole(folder / RECIPE, json.dumps(told, indent=1, sort_keys=True).encode())


def is_finished(folder: Path) -> bool:
    """Whether training there came to its end."""
    return os.path.lexists(folder / RECIPE)


def load_trained(folder: str | Path, parts: Parts) -> Trained:
    """The trained score in ``folder``, on this machine, whatever machine wrote it.

    Raises StoreError for damaged or foreign files; UnknownName where a plugin is not installed.
    """
    folder = Path(folder)
    recipe, event, facts = _read_facts(folder)
    weights, inside, sha256 = read_tensors(folder / WEIGHTS)
    if sha256 != facts.get("sha256") or any(facts.get(k) != v for k, v in inside.items()):
        raise StoreError(
            f"training: {folder / RECIPE} and {WEIGHTS} are not of one training; restore both "
            "from a copy, or delete the folder and train again"
        )
    process = parts.process(recipe.process)
    network = recipe.network.resolve("network", parts.registry)
    with seeded(recipe.seed):
        net = parts.registry.get("network", network.name)(event, **dict(network.options))
    try:
        net.load_state_dict(weights)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"training: the weights in {folder} do not fit {recipe.network} "
            f"({one_line(str(error), 160)}); the network's code has changed since, train again"
        ) from error
    net.eval().requires_grad_(False)
    model = model_of(net, process, recipe, float(facts["data_std"]))
    return Trained(model, net, recipe, event, facts)


def _read_facts(folder: Path) -> tuple[Recipe, Event, dict[str, Any]]:
    data = read_whole(folder / RECIPE)
    try:
        facts = dict(json.loads(data))
        recipe = read_recipe(facts["recipe"])
        event = tuple(int(n) for n in facts["event"])
        float(facts["data_std"])
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOption) as error:
        raise StoreError(
            f"training: {folder / RECIPE} holds no recipe that can be read "
            f"({one_line(str(error), 160)}); restore it from a copy, or train again"
        ) from error
    return recipe, event, facts


def model_of(
    net: Callable[[Tensor, Tensor], Tensor], process: Process, recipe: Recipe, data_std: float
) -> Model:
    """The network read as the recipe says, with a kernel for times that differ by sample."""
    wide = process.structure == "dense" and recipe.reading == "eps"  # which inverts no operator
    try:
        kernel = perturbation_kernel(process, dtype=torch.float32 if wide else torch.float64)
    except InvalidProcess:  # one with a kink in t, which no table follows
        kernel = exact_kernel(process)
    reading: Any = recipe.reading
    time: Any = recipe.time
    return Model(net, process, reading, data_std, time, kernel)

"""Weights on disk: safetensors beside a JSON recipe, checked by hash; never a pickle.

    <folder>/<key>/state.safetensors     where training stands: weights, average, optimiser
    <folder>/<key>/weights.safetensors   what training ended with
    <folder>/<key>/recipe.json           how, with the hash of the weights; written last of all

Each file is written beside its name and then moved there, so that what is found is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labcore.errors import StoreError
from labcore.kernels import perturbation_kernel
from labcore.learn.recipe import Recipe, read_recipe, seeded
from labcore.linop import Event
from labcore.models import Model
from labcore.parts import Parts
from labcore.processes import Process

FORMAT = 1
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
    """``data`` under ``path``, whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(f"training: {path} cannot be written ({error}); free space") from error


def write_tensors(path: Path, tensors: Tensors, facts: Mapping[str, Any]) -> str:
    """Tensors and JSON facts in one file; its sha256."""
    from safetensors.torch import save

    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(held, metadata={"labcore": json.dumps({"format": FORMAT, **facts})})
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, sha256: str = "") -> tuple[Tensors, dict[str, Any]]:
    """What ``write_tensors`` wrote; StoreError where it is damaged or another file."""
    from safetensors import SafetensorError, safe_open

    try:
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"training: {path} is not what was written (its hash differs)")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            facts = json.loads(metadata["labcore"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(
            f"training: {path} cannot be read ({error}); delete it and train again"
        ) from error
    if facts.pop("format", None) != FORMAT:
        raise StoreError(f"training: {path} is of another format; train again")
    return tensors, facts


def finish(folder: Path, recipe: Recipe, weights: Tensors, facts: Mapping[str, Any]) -> None:
    """The weights, and then the recipe that says they are whole."""
    sha256 = write_tensors(folder / "weights.safetensors", weights, {})
    told = {"format": FORMAT, "recipe": recipe.plain, "sha256": sha256, **facts}
    write_whole(folder / "recipe.json", json.dumps(told, indent=1, sort_keys=True).encode())


def is_finished(folder: Path) -> bool:
    """Whether training there came to its end."""
    return (folder / "recipe.json").exists()


def load_trained(folder: str | Path, parts: Parts) -> Trained:
    """The trained score in ``folder``, on this machine, whatever machine wrote it.

    Raises StoreError for damaged or foreign files; UnknownName where a plugin is not installed.
    """
    folder = Path(folder)
    try:
        told = json.loads((folder / "recipe.json").read_text())
        recipe = read_recipe(json.dumps(told["recipe"]))
        event = tuple(int(n) for n in told["event"])
        data_std, sha256 = float(told["data_std"]), str(told["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"training: {folder} holds no trained score that can be read ({error}); give the "
            "folder that has recipe.json and weights.safetensors"
        ) from error
    weights, _ = read_tensors(folder / "weights.safetensors", sha256)
    process = parts.process(recipe.process)
    with seeded(recipe.seed):
        network = parts.registry.get("network", recipe.network.name)
        net = network(event, **dict(recipe.network.options))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise StoreError(
            f"training: the weights in {folder} do not fit {recipe.network} ({error}); the "
            "network's code has changed since, train again"
        ) from error
    return trained(net, process, recipe, event, data_std, told)


def trained(
    net: torch.nn.Module,
    process: Process,
    recipe: Recipe,
    event: Event,
    data_std: float,
    facts: Mapping[str, Any],
) -> Trained:
    """The network as a score that is no longer trained."""
    net.eval().requires_grad_(False)
    model = model_of(net, process, recipe, data_std)
    return Trained(model, net, recipe, event, facts)


def model_of(net: Any, process: Process, recipe: Recipe, data_std: float) -> Model:
    """The network read as the recipe says, with the kernel table for times by sample."""
    kernel = perturbation_kernel(process)
    return Model(net, process, recipe.reading, data_std, recipe.time, kernel)  # type: ignore[arg-type]

"""Process-wide state that a plugin must leave as it found it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def _set_device(device: torch.device) -> None:
    # Setting "cpu" installs a mode that taxes every torch call; None takes it away.
    torch.set_default_device(None if device.type == "cpu" else device)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted before we came
        return ""


def _set_folder(path: str) -> None:
    if path:
        os.chdir(path)


_FACETS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, _set_device),
    "torch's thread count": (torch.get_num_threads, torch.set_num_threads),
    "the gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's global generator": (torch.get_rng_state, torch.set_rng_state),
    "numpy's global generator": (np.random.get_state, np.random.set_state),
    "Python's global generator": (random.getstate, random.setstate),
    "the working directory": (_folder, _set_folder),
}


_UNTOLD = {"Python's global generator"}
"""Libraries such as rich draw from it as they are imported."""


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


OF_THREADS = ("Python's global generator",)
"""What a worker's other threads use as well: its network code draws from Python's generator."""


@contextmanager
def undisturbed(but: Collection[str] = ()) -> Iterator[list[str]]:
    """Put process-wide state back on leaving; the list then names what had been changed.

    Watched, ``but`` for those named: torch's default dtype and device, thread count and gradient
    mode, the global generators of torch (CPU), numpy and Python, and the working directory.
    """
    watched = {name: facet for name, facet in _FACETS.items() if name not in but}
    before = {name: get() for name, (get, _) in watched.items()}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, (get, put) in watched.items():
            if not _same(before[name], get()):
                put(before[name])
                changed += [name] if name not in _UNTOLD else []

"""Tiny trainings for the tests, and a script: python small_trainings.py KILLS FOLDER.

The script trains each recipe without a break, and again with kill -9 at random moments until it
is done, and prints where the kills hit and whether all weights came out equal.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import labcore
from labcore import Parts, Recipe, load_registry, read_use
from labcore.learn.checkpoints import read_tensors

SMALL: dict[str, dict[str, Any]] = {
    "dsm": {},
    "nce": {"objective": "nce", "reading": "energy", "network": "energy(backbone='mlp(width=8)')"},
    "cd": {
        "objective": "cd(k=2, persistent=True)",
        "reading": "energy",
        "network": "energy(backbone='mlp(width=8)')",
    },
    "cld": {"process": "cld", "reading": "v", "shards": 2, "ema": 0.0},
}
"""Changes of the tiny recipe, by name: objectives with a state of their own are among them."""


def small(**changes: Any) -> Recipe:
    """A recipe that trains in a tenth of a second."""
    given = {
        "target": "moons",
        "process": "vp",
        "network": "mlp(width=16, depth=1)",
        "objective": "dsm",
        "steps": 40,
        "batch": 32,
        "warmup": 5,
        **changes,
    }
    uses = ("target", "process", "network", "objective")
    return Recipe(**{k: read_use(v) if k in uses else v for k, v in given.items()})


def train(recipe: Recipe, folder: Path, **given: Any) -> labcore.Trained:
    """The score, with the installed plugins."""
    return labcore.train(recipe, Parts(load_registry()), folder, **given)


def equal(one: labcore.Trained, other: labcore.Trained) -> bool:
    """Whether all weights are the same bits."""
    a, b = one.net.state_dict(), other.net.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def killed(recipe: Recipe, folder: Path, kills: int, rng: random.Random) -> list[int]:
    """Train in children that are killed at random moments, ``kills`` times at most; the step of
    the checkpoint that each kill left."""
    steps: list[int] = []
    while len(steps) < kills:
        child = os.fork()
        if child == 0:
            train(recipe, folder, every=0.005)
            os._exit(0)
        time.sleep(rng.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        steps.append(checkpointed(folder))
    return steps


def checkpointed(folder: Path) -> int:
    """The step of the one checkpoint below ``folder``, 0 where there is none yet."""
    found = [read_tensors(path)[1]["step"] for path in folder.glob("*/state.safetensors")]
    return int(sum(found))


def main(kills: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rng, round_ = random.Random(0), 0
    steps: list[int] = []
    wrong: list[str] = []
    whole = {name: small(steps=150, **changes) for name, changes in SMALL.items()}
    wanted = {name: train(recipe, folder / "whole") for name, recipe in whole.items()}
    while len(steps) < kills:
        for name, recipe in whole.items():
            broken = folder / f"killed {round_}"
            steps += killed(recipe, broken, -(-kills // len(whole)), rng)
            if not equal(train(recipe, broken), wanted[name]):
                wrong.append(name)
        round_ += 1
    print(f"{len(steps)} kills, at checkpoints of steps {steps}")
    print(f"{len(wrong)} of {round_ * len(whole)} trainings differ {wrong}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

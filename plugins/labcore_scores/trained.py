"""Learned scores in a study: trained once by their recipe, kept beside the store, shared."""

from __future__ import annotations

import inspect
import time as clock
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import labcore
from labcore import Parts, Recipe, ScoreWith, Trained, Use

Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Size = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

TOLD = 5.0
"""Seconds between two words about how a training goes."""


def of_training(
    *,
    objective: str = "dsm",
    time: Literal["log_snr", "t"] = "log_snr",
    data_std: Size = 0.0,
    steps: Whole = 2000,
    batch: Whole = 512,
    lr: Positive = 1e-3,
    warmup: Annotated[int, Field(ge=0)] = 100,
    decay: Literal["cosine", "constant"] = "cosine",
    clip: Size = 1.0,
    ema: Share = 0.999,
    holdout: Share = 0.1,
    seed: Annotated[int, Field(ge=0)] = 0,
    precision: Literal["float32", "bfloat16"] = "float32",
    shards: Whole = 1,
) -> None:
    """The options that every trained score has, as labcore.Recipe explains them."""


def trains(fn: Callable[..., ScoreWith]) -> Callable[..., ScoreWith]:
    """``fn(parts, uses, *, its own options, **options)`` with those of ``of_training`` named."""
    own = [p for p in inspect.signature(fn).parameters.values() if p.kind is not p.VAR_KEYWORD]
    shared = inspect.signature(of_training).parameters.values()

    @wraps(fn)
    def named(*args: Any, **options: Any) -> ScoreWith:
        return fn(*args, **options)

    named.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    named.__annotations__ = {**fn.__annotations__, **of_training.__annotations__}
    return named


@labcore.score(from_uses=True, cite="Song et al. (2021) arXiv:2011.13456")
@trains
def trained(
    parts: Parts,
    uses: tuple[Use, Use],
    *,
    network: str = "mlp",
    reading: Literal["eps", "score", "x0", "v", "edm"] = "eps",
    **options: Any,
) -> ScoreWith:
    """A network trained on the target under the process, by a recipe.

    ``network`` and ``objective`` are names, or names with options: "mlp(width=256, depth=4)".
    ``reading`` is what the network's output means, ``time`` the level it is told. Adam's ``lr`` is
    warmed up over ``warmup`` steps; gradients are clipped to ``clip``, and the weights kept are
    their moving average ``ema``. A study trains before its first cell, keeps the weights in a
    folder beside its store and finds them there, as ``labcore train`` does with --folder.
    """
    return ScoreWith(_made(parts, uses, network=network, reading=reading, **options).model)


@labcore.score(from_uses=True, gives=("log_p_t",), cite="Salimans & Ho (2021)")
@trains
def trained_energy(
    parts: Parts, uses: tuple[Use, Use], *, network: str = "energy", **options: Any
) -> ScoreWith:
    """An energy network trained likewise: s = -grad E, and log p_t = -E + a constant of t."""
    model = _made(parts, uses, network=network, reading="energy", **options).model
    return ScoreWith(model, model.log_prob)


@labcore.score(from_uses=True)
def from_folder(parts: Parts, uses: tuple[Use, Use], *, path: str) -> ScoreWith:
    """A trained score that another run or machine left in the folder ``path``."""
    made = labcore.load_trained(Path(path), parts)
    process = uses[0].resolve("process", parts.registry)
    if made.recipe.process.resolve("process", parts.registry) != process:
        raise labcore.InvalidOption(
            f"score 'from_folder': {path} was trained under {made.recipe.process}, the study has "
            f"{process}; use the process of the recipe"
        )
    energy = made.model.reading == "energy"
    return ScoreWith(made.model, made.model.log_prob if energy else None)


def _made(
    parts: Parts, uses: tuple[Use, Use], *, network: str, objective: str, **options: Any
) -> Trained:
    process, target = uses
    read = labcore.read_use
    recipe = Recipe(target, process, read(network), read(objective), **options)
    last = clock.monotonic()

    def report(progress: Any) -> None:
        nonlocal last
        if progress.step == progress.steps or clock.monotonic() - last > TOLD:
            last = clock.monotonic()
            parts.tell(f"training {recipe}: {progress}")

    return labcore.train(recipe, parts, parts.folder, report=report)

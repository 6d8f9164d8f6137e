"""Learned scores in a study: trained once by their recipe, kept beside the store, shared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import labcore
from labcore import Parts, Recipe, ScoreWith, Use

Whole = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


@labcore.score(from_uses=True, cite="Song et al. (2021) arXiv:2011.13456")
def trained(
    parts: Parts,
    uses: tuple[Use, Use],
    *,
    network: str = "mlp",
    objective: str = "dsm",
    reading: Literal["eps", "score", "x0", "v", "edm"] = "eps",
    time: Literal["log_snr", "t"] = "log_snr",
    data_std: Annotated[float, Field(ge=0)] = 0.0,
    steps: Whole = 2000,
    batch: Whole = 512,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    warmup: Annotated[int, Field(ge=0)] = 100,
    decay: Literal["cosine", "constant"] = "cosine",
    clip: Annotated[float, Field(ge=0)] = 1.0,
    ema: Share = 0.999,
    holdout: Share = 0.1,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> ScoreWith:
    """A network trained on the target under the process, by a recipe: see labcore.Recipe.

    ``network`` and ``objective`` are names, or names with options: "mlp(width=256, depth=4)".
    """
    process, target = uses
    recipe = Recipe(
        target,
        process,
        labcore.read_use(network),
        labcore.read_use(objective),
        reading=reading,
        time=time,
        data_std=data_std,
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        decay=decay,
        clip=clip,
        ema=ema,
        holdout=holdout,
        seed=seed,
    )
    return ScoreWith(_made(recipe, parts).model)


@labcore.score(from_uses=True, gives=("log_p_t",), cite="Salimans & Ho (2021)")
def trained_energy(
    parts: Parts,
    uses: tuple[Use, Use],
    *,
    network: str = "energy",
    objective: str = "dsm",
    time: Literal["log_snr", "t"] = "log_snr",
    data_std: Annotated[float, Field(ge=0)] = 0.0,
    steps: Whole = 2000,
    batch: Whole = 512,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    warmup: Annotated[int, Field(ge=0)] = 100,
    decay: Literal["cosine", "constant"] = "cosine",
    clip: Annotated[float, Field(ge=0)] = 1.0,
    ema: Share = 0.999,
    holdout: Share = 0.1,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> ScoreWith:
    """An energy network trained likewise: s = -grad E, and log p_t = -E + a constant of t."""
    process, target = uses
    recipe = Recipe(
        target,
        process,
        labcore.read_use(network),
        labcore.read_use(objective),
        reading="energy",
        time=time,
        data_std=data_std,
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        decay=decay,
        clip=clip,
        ema=ema,
        holdout=holdout,
        seed=seed,
    )
    model = _made(recipe, parts).model
    return ScoreWith(model, model.log_prob)


@labcore.score(from_uses=True)
def from_folder(parts: Parts, uses: tuple[Use, Use], *, path: str) -> ScoreWith:
    """A trained score that another run or machine left in the folder ``path``."""
    made = labcore.load_trained(Path(path), parts)
    process = uses[0]
    if made.recipe.process != process:
        raise labcore.InvalidOption(
            f"score 'from_folder': {path} was trained under {made.recipe.process}, the study has "
            f"{process}; use the process of the recipe"
        )
    energy = made.model.reading == "energy"
    return ScoreWith(made.model, made.model.log_prob if energy else None)


def _made(recipe: Recipe, parts: Parts) -> labcore.Trained:
    def report(progress: object) -> None:
        validation = getattr(progress, "validation", None)
        if validation is not None:
            parts.tell(f"training {recipe.network}: {progress}")

    return labcore.train(recipe, parts, parts.folder, report=report)

"""Classifier-free guidance on a mixture, where a condition is a set of its components.

    s = (1 + w) grad log p_t(x | label) - w grad log p_t(x)

Both scores are exact. The field of w > 0 is not the score of any diffused law, so a guided sample
has no exact reference: it shows how far guidance sharpens, not how well a sampler does.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import Conditional, InvalidOption, Mixture, Process, Score, Target, from_mixture
from labcore_scores.exact import exact

Label = tuple[int, ...]


def given(law: Mixture, label: Label) -> Mixture:
    """The mixture of the components ``label`` alone, with their weights scaled to sum to 1."""
    K = len(law.weights)
    wrong = [k for k in label if not 0 <= k < K]
    if wrong or not label or len(set(label)) < len(label):
        raise InvalidOption(
            f"score 'guided': label={list(label)} names no set of components; the mixture has "
            f"{K}, list some of 0 to {K - 1} once each"
        )
    index = torch.tensor(label)
    w = law.weights[index]
    return Mixture(w / w.sum(), law.means[index], law.covs[index])


def conditional(process: Process, target: Target) -> Conditional:
    """(x, t, label or None) -> exact score of p_t( . | component in label)."""

    @cache
    def of(label: Label | None) -> Score:
        if target.mixture is None:
            raise InvalidOption(
                "score 'guided': the target is not a Gaussian mixture, so it has no components to "
                "choose among; use a mixture target"
            )
        law = target.mixture if label is None else given(target.mixture, label)
        score: Score = exact(process, from_mixture(law, target.event))
        return score

    def score(x: Tensor, t: Tensor, label: Label | None) -> Tensor:
        return of(label)(x, t)

    return score


@labcore.score(needs=("mixture",), cost=2, cite="Ho & Salimans (2022) arXiv:2207.12598, eq. 6")
def guided(
    process: Process,
    target: Target,
    *,
    label: Annotated[Label, Field(min_length=1)] = (0,),
    weight: float = 1.0,
) -> Score:
    """Classifier-free guidance towards the components ``label``: a call counts for two.

    weight 0 is the exact score of the chosen components, -1 that of the whole mixture.
    """
    score = conditional(process, target)
    score(torch.zeros(0, *process.event(target.event)), torch.tensor(process.T), label)
    return labcore.guided(score, label, weight)

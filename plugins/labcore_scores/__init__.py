"""Scores that need no training: exact ones, and exact ones with an error of a stated kind."""

import labcore
from labcore_scores.empirical import empirical
from labcore_scores.exact import exact
from labcore_scores.guided import guided
from labcore_scores.perturbed import perturbed
from labcore_scores.trained import from_folder, trained, trained_energy


@labcore.hookimpl
def register_scores() -> list[labcore.Entry]:
    return [exact, empirical, perturbed, guided, trained, trained_energy, from_folder]

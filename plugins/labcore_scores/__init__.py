"""Scores that need no training: exact ones, and exact ones with an error of a stated kind."""

import labcore
from labcore_scores.empirical import empirical
from labcore_scores.exact import exact
from labcore_scores.foreign import from_diffusers, from_scheduler, from_state_dict
from labcore_scores.guided import guided
from labcore_scores.perturbed import perturbed
from labcore_scores.trained import from_folder, trained, trained_energy


@labcore.hookimpl
def register_scores() -> list[labcore.Entry]:
    learned = [trained, trained_energy, from_folder, from_diffusers, from_state_dict]
    return [exact, empirical, perturbed, guided, *learned]


@labcore.hookimpl
def register_processes() -> list[labcore.Entry]:
    return [from_scheduler]

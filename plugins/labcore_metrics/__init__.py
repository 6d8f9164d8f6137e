"""Metrics: how far the samples of an outcome are from exact ones.

A distance means something only beside its floor, the same metric between two exact sets of the
same size. ``energy`` and ``mmd`` are unbiased, so their floor is centred at zero; the others are
biased upwards, and their floor is what a perfect sampler scores. Each entry's ``sees`` says which
shift it can tell from its floor at which n and d. ``fisher``, ``score_losses``,
``tweedie_calibration`` and ``energy_fit`` judge the score instead of the samples, and have no
floor.
"""

import labcore
from labcore_metrics.assignment import w2
from labcore_metrics.classifier import c2st
from labcore_metrics.denoised import score_losses, tweedie_calibration
from labcore_metrics.energies import energy_fit
from labcore_metrics.energy_distance import energy
from labcore_metrics.fisher import fisher
from labcore_metrics.gaussian import frechet, moments
from labcore_metrics.kernel import mmd
from labcore_metrics.likelihood import mode_weights, nll
from labcore_metrics.neighbours import prdc
from labcore_metrics.sliced import sliced_w2


@labcore.hookimpl
def register_metrics() -> list[labcore.Entry]:
    of_samples = [c2st, energy, frechet, mmd, mode_weights, moments, nll, prdc, sliced_w2, w2]
    return [*of_samples, energy_fit, fisher, score_losses, tweedie_calibration]

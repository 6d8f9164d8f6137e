"""Data laws: Gaussian mixtures, 2-D toys, scikit-learn's digits, and files of the user's own."""

import labcore
from labcore_targets.digits import digits, digits_mixture
from labcore_targets.files import file
from labcore_targets.labels import label_entropy
from labcore_targets.mixtures import gaussian, gmm_grid, gmm_ring, mixture
from labcore_targets.toys import checkerboard, moons, pinwheel, rings, swiss_roll


@labcore.hookimpl
def register_targets() -> list[labcore.Entry]:
    return [
        gaussian,
        mixture,
        gmm_ring,
        gmm_grid,
        rings,
        moons,
        swiss_roll,
        pinwheel,
        checkerboard,
        digits,
        digits_mixture,
        file,
    ]


@labcore.hookimpl
def register_metrics() -> list[labcore.Entry]:
    return [label_entropy]

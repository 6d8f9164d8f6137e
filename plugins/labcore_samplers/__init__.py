"""The lab's own samplers: generators over the grid, coefficients computed before the loop.

Every one is written over operators, so it runs unchanged on scalar, per-coordinate, dense and
block processes. Symbols: t now, s next (s < t), h = s - t < 0, g = score(x_t, t), z ~ N(0, I).
"""

import labcore
from labcore_samplers.ancestral import ancestral
from labcore_samplers.corrector import predictor_corrector
from labcore_samplers.ddim import ddim
from labcore_samplers.euler import euler, euler_maruyama
from labcore_samplers.heun import heun
from labcore_samplers.hmc import hmc
from labcore_samplers.langevin import annealed_langevin, langevin
from labcore_samplers.metropolis import mala, metropolis
from labcore_samplers.oracle import oracle

MCMC = [langevin, annealed_langevin, mala, metropolis, hmc, predictor_corrector]


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    return [euler, euler_maruyama, heun, ancestral, ddim, oracle, *MCMC]

"""The lab's own samplers: generators over the grid, coefficients computed before the loop.

Every one is written over operators, so it runs unchanged on scalar, per-coordinate, dense and
block processes. Symbols: t now, s next (s < t), h = s - t < 0, g = score(x_t, t), z ~ N(0, I).
"""

import labcore
from labcore_samplers.adaptive_sde import gotta_go_fast
from labcore_samplers.ancestral import ancestral
from labcore_samplers.corrector import predictor_corrector, predictor_metropolis
from labcore_samplers.ddim import ddim
from labcore_samplers.edm import dpm_2, edm_churn, edm_heun
from labcore_samplers.embedded import adaptive_rk23, adaptive_rk45
from labcore_samplers.euler import euler, euler_maruyama
from labcore_samplers.exponential_methods import EXPONENTIAL
from labcore_samplers.exponential_unipc import UNIPC
from labcore_samplers.heun import heun
from labcore_samplers.hmc import annealed_hmc, hmc
from labcore_samplers.langevin import annealed_langevin, langevin
from labcore_samplers.metropolis import annealed_mala, mala, metropolis
from labcore_samplers.multistep import lms, lms2, lms3, lms4
from labcore_samplers.oracle import oracle
from labcore_samplers.pndm import ipndm, plms, pndm
from labcore_samplers.restart import restart
from labcore_samplers.runge_kutta import midpoint, ralston, ralston3, rk4
from labcore_samplers.sde import reverse_sde, sra1, sra2, sra3, stochastic_heun
from labcore_samplers.splitting import sscs, sscs_midpoint

MCMC = [
    *(langevin, mala, metropolis, hmc),
    *(annealed_langevin, annealed_mala, annealed_hmc),
    *(predictor_corrector, predictor_metropolis),
]
FLOW = [midpoint, ralston, ralston3, rk4, edm_heun, dpm_2, adaptive_rk23, adaptive_rk45]
MULTISTEP = [lms, lms2, lms3, lms4, ipndm, plms, pndm]
SDE = [
    *(reverse_sde, stochastic_heun, sra1, sra2, sra3, sscs, sscs_midpoint),
    *(edm_churn, restart, gotta_go_fast),
]


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    return [
        *EXPONENTIAL,
        *UNIPC,
        *FLOW,
        *MULTISTEP,
        *SDE,
        euler,
        euler_maruyama,
        heun,
        ancestral,
        ddim,
        oracle,
        *MCMC,
    ]

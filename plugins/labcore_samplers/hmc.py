"""Hamiltonian Monte Carlo on p_t, in the coordinates that P = L L^T whitens.

With x = L q and momentum p ~ N(0, I), leapfrog steps of length h conserve -log p(x) + |p|^2/2 up
to O(h^2), preserve volume and are reversible, so the end is a Metropolis proposal:

    p <- p + h/2 L^T g,    x <- x + h L p,    p <- p + h/2 L^T g'

One leapfrog step of length sqrt(2e) is MALA with step e.
"""

from functools import partial
from typing import Any

from torch import Tensor

import labcore
from labcore import CountedScore, Noise, Process
from labcore_samplers.chains import (
    Chain,
    Count,
    NotNegative,
    Size,
    carried,
    descend,
    stay,
)
from labcore_samplers.langevin import preconditioner
from labcore_samplers.metropolis import Point, Proposal, energy, metropolised, with_score


def shots(
    process: Process, us: Tensor, x: Tensor, step: float, leapfrog: int, data_std: float
) -> list[Proposal]:
    """Ends of trajectories at each of the times us."""
    L = preconditioner(process, us, data_std).chol
    move, push = (step * L).per_step(x), (step * L.T).per_step(x)
    return [partial(_shoot, leapfrog, *each) for each in zip(us, move, push, strict=True)]


def _shoot(
    leapfrog: int,
    u: Tensor,
    move: Any,
    push: Any,
    score: CountedScore,
    now: Point,
    z: Tensor,
) -> tuple[Point, Tensor]:
    y, g = now
    p = z + 0.5 * (push @ g)
    for i in range(leapfrog):
        y = y + move @ p
        g = score(y, u)
        p = p + (0.5 if i == leapfrog - 1 else 1.0) * (push @ g)
    return (y, g), energy(z) - energy(p)


@labcore.sampler(
    order=None,
    evals=6,
    evals_of=lambda inner, leapfrog, **_: inner * (leapfrog + 1),
    extra=2,
    stochastic=True,
    needs=("log_p_t",),
    cite="Duane et al. (1987); Neal (2011) arXiv:1206.1901, Fig. 2",
)
def hmc(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.3,
    leapfrog: Count = 5,
    inner: Count = 1,
    data_std: NotNegative = 1.0,
) -> Chain:
    """Hamiltonian Monte Carlo on p at t_eps: ``leapfrog`` steps of length ``step`` a proposal.

    A score a leapfrog step and a log-density a proposal. Trajectories of a fixed length can be
    periodic on a Gaussian: keep step x leapfrog off multiples of pi times its standard deviation.
    """
    last = ts[-1:]
    proposals = shots(process, last, x, step, leapfrog, data_std)
    (kernel,) = metropolised(last, with_score, proposals)
    return stay(kernel, score, x, ts, noise, inner)


@labcore.sampler(
    order=None,
    evals=6,
    evals_of=lambda inner, leapfrog, **_: inner * (leapfrog + 1) + 2,
    stochastic=True,
    needs=("log_p_t",),
    cite="Song & Ermon (2019) arXiv:1907.05600, Algorithm 1; Neal (2011) arXiv:1206.1901",
)
def annealed_hmc(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.5,
    leapfrog: Count = 3,
    inner: Count = 1,
    data_std: NotNegative = 0.0,
) -> Chain:
    """Annealed HMC: ``inner`` trajectories on p_s at each time s of the grid, noisiest first.

    Levels as in ``annealed_langevin``; a score and a log-density come before the first trajectory
    at each of them.
    """
    us = ts[1:]
    proposals = shots(process, us, x, step, leapfrog, data_std)
    kernels = metropolised(us, with_score, proposals)
    return descend(carried(process, ts, x), kernels, score, x, ts, noise, inner)

"""Hamiltonian Monte Carlo on p_t at t = t_eps, in the coordinates that P = L L^T whitens.

With x = L q and momentum p ~ N(0, I), leapfrog steps of length h conserve -log p(x) + |p|^2/2 up
to O(h^2), preserve volume and are reversible, so the end is a Metropolis proposal:

    p <- p + h/2 L^T g,    x <- x + h L p,    p <- p + h/2 L^T g'

One leapfrog step of length sqrt(2e) is MALA with step e.
"""

from torch import Tensor

import labcore
from labcore import CountedScore, Noise, Process
from labcore_samplers.langevin import Count, NotNegative, Size, preconditioner
from labcore_samplers.metropolis import Chain, Point, energy, metropolised


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
    L = preconditioner(process, ts[-1:], data_std).chol
    move, push = (step * L).per_step(x)[0], (step * L.T).per_step(x)[0]
    begin = score(x, ts[-1])

    def shoot(now: Point, z: Tensor) -> tuple[Point, Tensor]:
        y, g = now
        p = z + 0.5 * (push @ g)
        for i in range(leapfrog):
            y = y + move @ p
            g = score(y, ts[-1])
            p = p + (0.5 if i == leapfrog - 1 else 1.0) * (push @ g)
        return (y, g), energy(z) - energy(p)

    return metropolised(shoot, score, (x, begin), ts, noise, inner)

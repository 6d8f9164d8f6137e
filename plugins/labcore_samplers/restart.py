"""Restart: the probability flow, with K returns from a low noise level to a higher one.

At t_min, for k = 1 .. K: x <- Phi(t_max, t_min) x + chol(Sigma(t_max|t_min)) z_k, and the flow is
integrated from t_max down to t_min again. The noise contracts the errors made above.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

import labcore
from labcore import Noise, Process, Score
from labcore_samplers.edm import level, steps, trapezoid

CITE = "Xu et al. (2023) arXiv:2306.14878, Algorithm 1"


@labcore.sampler(order=2, stochastic=True, cite=CITE)
def restart(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    K: Annotated[int, Ge(0)] = 4,
    S_min: Annotated[float, Gt(0)] = 0.05,
    S_max: Annotated[float, Gt(0)] = 0.3,
) -> Iterator[Tensor]:
    """Restart on edm_heun: K times from the level S_min up to S_max and back, on the grid's times.

    Levels are in units of sigma/alpha; each stands for the grid time nearest to it in log level:
    no grid is hidden here, where the paper has one of its own between them. Each return costs two
    evaluations a step of the interval. Without two times to go between, it is edm_heun.

    No strong order: a return's noise is the normalised increment over one step of the grid, which
    another grid has not, so that paths have no limit. The cost hangs on the grid, which says how
    many steps lie between the levels, so budgets are given by steps=.
    """
    logs = level(process, ts).log()
    high, low = (int((logs - torch.tensor(S).log()).abs().argmin()) for S in (S_max, S_min))
    plan = steps(process, ts[:-1], ts[1:], x)
    times = list(ts)

    def flow(x: Tensor, a: int, b: int) -> Iterator[Tensor]:
        for i in range(a, b):
            x = trapezoid(plan[i], score, x, times[i], times[i + 1])
            yield x

    for i in range(len(plan)):
        (x,) = flow(x, i, i + 1)
        if i + 1 == low > high:
            Phi, Q = process.transition(ts[high], ts[low])
            Phi, L = Phi.to(x), Q.chol.to(x)
            for k in range(K):
                z = noise(times[i], times[i + 1], stream=f"restart {k}")
                *_, x = flow(L.accumulate(Phi @ x, z), high, low)
        yield x

"""Heun's method on the probability-flow ODE v(t, x) = A x - G G^T s(x,t) / 2.

x'  = x_t + h v(t, x_t)
x_s = x_t + h/2 [v(t, x_t) + v(s, x')] = (x_t + x')/2 + h/2 v(s, x')
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

import labcore
from labcore import Noise, Process, Scalar, Score


@labcore.sampler(
    order=2,
    evals=2,
    stochastic=False,
    cite="Heun (1900); Karras et al. (2022) arXiv:2206.00364, Algorithm 1 in the process's own t",
)
def heun(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Heun (explicit trapezoid): Euler's step, then the average of the slopes at its two ends.

    The last step is a full one at t_eps > 0: no switch to Euler, always two evaluations.
    """
    t, s = ts[:-1], ts[1:]
    h = s - t
    one = Scalar(torch.ones_like(h))
    P1 = (one + process.A(t) * h).per_step(x)
    Q1 = (process.GG(t) * (-h / 2)).terms(x)
    P2 = (0.5 * (one + process.A(s) * h)).terms(x)
    Q2 = (process.GG(s) * (-h / 4)).terms(x)
    (half,) = Scalar(torch.full_like(h[:1], 0.5)).per_step(x)
    for (t, s), p1, q1, p2, q2 in zip(pairwise(ts.unbind()), P1, Q1, P2, Q2, strict=True):
        g = score(x, t)
        ahead = q1.accumulate(p1 @ x, g)
        g = score(ahead, s)
        x = q2.accumulate(p2.accumulate(half @ x, ahead), g)
        yield x

"""Euler's step on the reverse dynamics dX = [A X - (1+lam^2)/2 G G^T s] dt + lam G dWbar.

x_s = x_t + h [A x_t - (1+lam^2)/2 G G^T g] + lam sqrt(-h) G z
"""

from collections.abc import Iterator

import torch
from torch import Tensor

import labcore
from labcore import Noise, Process, Scalar, Score
from labcore_samplers.affine import affine_steps
from labcore_samplers.rates import rate_of
from labcore_samplers.sde import euler_steps


@labcore.sampler(
    order=1,
    strong=1,
    evals=1,
    stochastic=True,
    cite="Maruyama (1955); Anderson (1982); Song et al. (2021) arXiv:2011.13456, eq. 6",
)
def euler_maruyama(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, lam: float = 1.0
) -> Iterator[Tensor]:
    """Euler-Maruyama on the reverse SDE with noise rate ``lam``.

    The noise is additive, so the strong order is 1 (Kloeden & Platen 1992, section 10.2).
    lam=1 is Anderson's reverse SDE, lam=0 the probability-flow ODE (then no noise is drawn);
    reverse_sde takes a rate that changes with t.
    """
    return euler_steps(process, score, x, ts, noise, rate_of(lam))


@labcore.sampler(order=1, evals=1, stochastic=False, cite="Euler (1768); Song et al. (2021)")
def euler(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Euler on the probability-flow ODE: x_s = x_t + h [A x_t - G G^T g / 2]."""
    t = ts[:-1]
    h = ts[1:] - t
    P = Scalar(torch.ones_like(h)) + process.A(t) * h
    return affine_steps(score, x, ts, P, process.GG(t) * (h / -2))

"""Ancestral sampling: one Gaussian conditioning a step, for any linear process.

X_s | X_t, x0 is N( Phi(s,0) x0 + K (x_t - Phi(t,0) x0), C ) with K and C of Process.posterior.
Put Tweedie's x0 = Phi(t,0)^-1 (x_t + Sigma(t) g) in its place and the terms in Sigma(t) cancel:

    x_s = Phi(t,s)^-1 [ x_t + Sigma(t|s) g ] + chol(C) z
"""

from collections.abc import Iterator

import torch
from torch import Tensor

import labcore
from labcore import LinOp, Noise, Process, Scalar, Score
from labcore_samplers.kicked import kicked_steps


@labcore.sampler(
    order=1,
    strong=1,
    evals=1,
    stochastic=True,
    cite="Ho et al. (2020) arXiv:2006.11239, eq. 7, in operator form",
)
def ancestral(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """DDPM's step with the posterior variance (beta-tilde), for operators.

    Of strong order 1, as Euler-Maruyama is. On narrow modes a few paths that end in another one
    decide the root mean square below some 4096 steps, and a slope there says little.
    """
    return kicked_steps(score, x, ts, noise, *factors(process, ts))


def factors(process: Process, ts: Tensor) -> tuple[LinOp, LinOp, LinOp]:
    """What multiplies x_t, the score and z."""
    t, s = ts[:-1], ts[1:]
    Phi, Q = process.transition(t, s)
    L, G = posterior_roots(process, s, Phi, Q)
    back = Phi.inv
    return back, back @ Q, L @ G.chol


def posterior_roots(process: Process, s: Tensor, Phi: LinOp, Q: LinOp) -> tuple[LinOp, LinOp]:
    """L and G with Sigma(s) = L L^T and C = L G L^T: G = (1 + M^T Q^-1 M)^-1, M = Phi L.

    Phi and Q are those of the transition from s.
    """
    L = process.Sigma(s).chol
    M = Phi @ L
    return L, (Scalar(torch.ones_like(s)) + M.T @ Q.inv @ M).inv

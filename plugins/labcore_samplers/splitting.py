"""Symmetric splitting of the reverse SDE around the process' stationary law N(0, S).

In u = -t, written around S (A S + S A^T = -G G^T, constant in t):

    dX = S A^T S^-1 X du + G dB      (linear)        +   G G^T [ s(X,t) + S^-1 X ] du    (score)

The linear part is the process itself seen backward at equilibrium, so its step from t to s is
the Gaussian X_s | X_t with K = S Phi(t,s)^T S^-1 and C = S - K Phi(t,s) S, for any constant S; the
score part moves the velocity alone, where noise enters.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

import labcore
from labcore import InvalidProcess, LinOp, Mat, Noise, Process, Scalar, Score


def stationary(process: Process, t: Tensor) -> LinOp:
    """S with A S + S A^T + G G^T = 0, for m x m blocks."""
    A, GG = process.A(t), process.GG(t)
    a, g = (op.lift(process.Sigma(t)).param.reshape(-1, *op.param.shape[-2:])[0] for op in (A, GG))
    one = torch.eye(len(a), dtype=a.dtype)
    both = torch.kron(a, one) + torch.kron(one, a)
    S = torch.linalg.solve(both, -g.reshape(-1)).reshape(a.shape)
    return Mat((S + S.T)[None] / 2)


def backward(process: Process, S: LinOp, t: Tensor, s: Tensor) -> tuple[LinOp, LinOp]:
    """K and chol(C) of X_s | X_t at equilibrium; C without subtraction, as Process.posterior."""
    Phi, Q = process.transition(t, s)
    L = S.chol
    M = Phi @ L
    C = L @ (Scalar(torch.ones_like(t)) + M.T @ Q.inv @ M).inv @ L.T
    return S @ Phi.T @ S.inv, (0.5 * (C + C.T)).chol


@labcore.sampler(
    order=1,
    evals=1,
    stochastic=True,
    needs=("channel",),
    cite="Dockhorn, Vahdat, Kreis (2022) arXiv:2112.07068, section 3.3 and appendix D",
)
def sscs(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """SSCS for CLD: half a step of the linear part, Euler's step of the score, the other half.

    The score is asked in the middle, m = (t + s)/2. Order 1, by Euler's step of the score part,
    with a small constant: the linear part and the noise are exact.
    """
    t, s = ts[:-1], ts[1:]
    m = (t + s) / 2
    S = stationary(process, ts[0])
    if not torch.allclose(S.param, stationary(process, ts[-1]).param, rtol=1e-8):
        raise InvalidProcess("sscs: the stationary covariance changes with t; use a CLD process")
    K1, C1 = backward(process, S, t, m)
    K2, C2 = backward(process, S, m, s)
    push = process.GG(m) * (t - s)
    parts = (K1, C1, push @ S.inv, push, K2, C2)
    plan = zip(m, *(op.per_step(x) for op in parts), strict=True)
    for (t, s), (m, k1, c1, pull, drag, k2, c2) in zip(pairwise(ts), plan, strict=True):
        x = c1.accumulate(k1 @ x, noise(t, s))
        g = score(x, m)
        x = drag.accumulate(pull.accumulate(x.clone(), x), g)
        x = c2.accumulate(k2 @ x, noise(t, s, stream="second half"))
        yield x

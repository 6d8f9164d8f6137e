"""Symmetric splitting of the reverse SDE around the process' stationary law N(0, S).

In u = -t, written around S (A S + S A^T = -G G^T, constant in t):

    dX = S A^T S^-1 X du + G dB      (linear)        +   G G^T [ s(X,t) + S^-1 X ] du    (score)

The linear part is the process itself seen backward at equilibrium, so its step from t to s is
the Gaussian X_s | X_t with K = S Phi(t,s)^T S^-1 and C = S - K Phi(t,s) S, for any constant S; the
score part moves the velocity alone, where noise enters.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

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


Push = Callable[[Score, Tensor, Tensor, Any, Any], Tensor]
"""(score, m, x, h G G^T S^-1, h G G^T) -> x after the score part over a step h, time held at m."""


def euler(score: Score, m: Tensor, x: Tensor, pull: Any, drag: Any) -> Tensor:
    """x + h f(x) for f(x) = G G^T [s(x, m) + S^-1 x]."""
    out: Tensor = drag.accumulate(pull.accumulate(x.clone(), x), score(x, m))
    return out


def midpoint(score: Score, m: Tensor, x: Tensor, pull: Any, drag: Any) -> Tensor:
    """x + h f(x + h f(x) / 2)."""
    half = 0.5 * (x + euler(score, m, x, pull, drag))
    out: Tensor = drag.accumulate(pull.accumulate(x.clone(), half), score(half, m))
    return out


def split_steps(
    push: Push, process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Half a step of the linear part, the score part at m = (t + s)/2, the other half."""
    t, s = ts[:-1], ts[1:]
    m = (t + s) / 2
    S = stationary(process, ts[0])
    if not torch.allclose(S.param, stationary(process, ts[-1]).param, rtol=1e-8):
        raise InvalidProcess("sscs: the stationary covariance changes with t; use a CLD process")
    K1, C1 = backward(process, S, t, m)
    K2, C2 = backward(process, S, m, s)
    weight = process.GG(m) * (t - s)
    parts = (K1, C1, weight @ S.inv, weight, K2, C2)
    plan = zip(m, *(op.per_step(x) for op in parts), strict=True)
    for (t, s), (m, k1, c1, pull, drag, k2, c2) in zip(pairwise(ts), plan, strict=True):
        x = c1.accumulate(k1 @ x, noise(t, s))
        x = push(score, m, x, pull, drag)
        x = c2.accumulate(k2 @ x, noise(t, s, stream="second half"))
        yield x


DOCKHORN = "Dockhorn, Vahdat, Kreis (2022) arXiv:2112.07068, section 3.3 and appendix D"


@labcore.sampler(order=1, evals=1, stochastic=True, needs=("channel",), cite=DOCKHORN)
def sscs(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """SSCS for CLD: half a step of the linear part, Euler's step of the score, the other half.

    The score is asked in the middle, m = (t + s)/2. Order 1, by Euler's step of the score part
    alone: the splitting is symmetric and holding the time at m is too, both of order 2, and the
    linear part and the noise are exact. ``sscs_midpoint`` is of order 2.
    """
    return split_steps(euler, process, score, x, ts, noise)


@labcore.sampler(
    order=2,
    evals=2,
    stochastic=True,
    needs=("channel",),
    cite=f"{DOCKHORN}; Strang (1968) SIAM J. Numer. Anal. 5",
)
def sscs_midpoint(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """SSCS with the midpoint rule for the score part, which leaves Strang's splitting: order 2.

    Published SSCS takes Euler's step there, whose error of order 1 is the only one of that order.
    """
    return split_steps(midpoint, process, score, x, ts, noise)

"""Scores: (x, t) -> grad log p_t(x), and what follows from one score under a linear process.

x is (B, *event); t is a float64 tensor, 0-d where the batch shares one time (a network then embeds
it once), else (B,). Every network output is one of five things, each an affine function of the
others given x, Phi = Phi(t,0), Sigma = Sigma(t) and L L^T = Sigma:

    score s;  eps = -L^T s;  x0 = Phi^-1 (x + Sigma s);  v = Phi eps - L x0;  energy E, s = -grad E
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labcore.errors import ScoreError
from labcore.linop import LinOp
from labcore.processes import Process, as_time

Score = Callable[[Tensor, Tensor], Tensor]
Field = Callable[[Tensor, Tensor], Tensor]


def velocity(process: Process, score: Score) -> Field:
    """The probability-flow field v(t, x) = A x - G G^T s(x,t) / 2. (Song et al. 2021, eq. 13)"""
    return reverse_drift(process, score, lam=0.0)


def reverse_drift(process: Process, score: Score, lam: float = 1.0) -> Field:
    """Drift (t, x) -> A x - (1 + lam^2)/2 G G^T s of the reverse SDE with rate lam, forward time.

    dX = drift dt + lam G dWbar, run from T to 0: lam=1 is Anderson (1982), lam=0 the PF-ODE.
    """

    def drift(t: Tensor, x: Tensor) -> Tensor:
        t = as_time(t)
        pull = (-(1 + lam**2) / 2) * process.GG(t)
        return pull.accumulate(process.A(t) @ x, score(x, t))

    return drift


def _kernel(process: Process, t: Tensor) -> tuple[LinOp, LinOp, LinOp]:
    t = as_time(t)
    Sigma = process.Sigma(t)
    return process.Phi(t, torch.zeros_like(t)), Sigma, Sigma.chol


def eps_from_score(process: Process, score: Score) -> Score:
    """eps(x,t) = -L^T s(x,t)."""
    return lambda x, t: -(_kernel(process, t)[2].T @ score(x, t))


def score_from_eps(process: Process, eps: Score) -> Score:
    """s(x,t) = -L^-T eps(x,t)."""
    return lambda x, t: -(_kernel(process, t)[2].inv.T @ eps(x, t))


def x0_from_score(process: Process, score: Score) -> Score:
    """x0(x,t) = Phi^-1 (x + Sigma s(x,t)), the clean state."""
    return lambda x, t: process.tweedie(x, t, score(x, t))


def score_from_x0(process: Process, x0: Score) -> Score:
    """s(x,t) = Sigma^-1 (Phi x0(x,t) - x), for x0 a clean state."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        Phi, Sigma, _ = _kernel(process, t)
        return Sigma.inv @ (Phi @ x0(x, t) - x)

    return score


def v_from_score(process: Process, score: Score) -> Score:
    """v(x,t) = Phi eps - L x0. (Salimans & Ho 2022, in operator form)"""

    def v(x: Tensor, t: Tensor) -> Tensor:
        Phi, _, L = _kernel(process, t)
        s = score(x, t)
        return -(Phi @ (L.T @ s)) - L @ process.tweedie(x, t, s)

    return v


def score_from_v(process: Process, v: Score) -> Score:
    """s = -L^-T eps with eps = (Phi + L Phi^-1 L)^-1 (v + L Phi^-1 x)."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        Phi, _, L = _kernel(process, t)
        back = L @ Phi.inv
        eps = (Phi + back @ L).inv @ (v(x, t) + back @ x)
        return -(L.inv.T @ eps)

    return score


def score_from_energy(energy: Score) -> Score:
    """s(x,t) = -grad_x E(x,t), for an energy that returns one number a sample, (B,)."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            y = x.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(energy(y, t).sum(), y)
        return -gradient

    return score


Reverse = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x_t, t, s, z, u) -> x_s, drawn from X_s | X_t = x_t by z ~ N(0, I), (B, *event), and u (B,)
uniform on (0, 1)."""


@dataclass(frozen=True)
class ScoreWith:
    """A score that knows more than its value.

    ``log_prob(x, t)`` is log p_t(x) up to a constant, (B,), where it is known: what Metropolis
    samplers need. ``reverse`` is the exact kernel back in time, where that is known. ``cost`` is
    what one call counts for: two for classifier-free guidance.
    """

    score: Score
    log_prob: Score | None = None
    cost: int = 1
    reverse: Reverse | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.score(x, t)


Conditional = Callable[[Tensor, Tensor, Any], Tensor]
"""A score with a condition: (x, t, condition) -> grad log p_t(x | condition); None: of all."""


def guided(score: Conditional, condition: Any, weight: float) -> ScoreWith:
    """Classifier-free guidance, (1 + w) s(x, t, condition) - w s(x, t, None), which costs two.

    w = 0 is the conditional score, w = -1 the unconditional one. (Ho & Salimans 2022, eq. 6)
    """

    def mixed(x: Tensor, t: Tensor) -> Tensor:
        return (1 + weight) * score(x, t, condition) - weight * score(x, t, None)

    return ScoreWith(mixed, cost=2)


@dataclass
class CountedScore:
    """A score that meters itself: ``nfe`` is rows evaluated over rows of the batch, times cost.

    A sampler that evaluates two copies of the batch in one call pays for two, and a call of
    ``log_prob`` pays as one of the score. Shape and dtype are checked at every call; NaN is looked
    for afterwards, by the run, which can replay.
    """

    model: ScoreWith
    rows: int
    nfe: float = 0.0

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) up to a constant, (B,); ScoreError where the score knows none."""
        if self.model.log_prob is None:
            raise ScoreError(
                "score: it knows no log density, which this sampler needs; use one that does, "
                "such as exact on a mixture, or declare needs=('log_p_t',)"
            )
        self.nfe += self.model.cost * x.shape[0] / self.rows
        return self.model.log_prob(x, t)

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """A draw of X_s | X_t = x (see Reverse); ScoreError where the score knows no kernel."""
        if self.model.reverse is None:
            raise ScoreError(
                "score: it knows no exact reverse kernel, which this sampler needs; use exact on "
                "a mixture, or declare needs=('reverse',)"
            )
        self.nfe += self.model.cost * x.shape[0] / self.rows
        return self.model.reverse(x, t, s, z, u)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        shape, model = x.shape, self.model
        self.nfe += model.cost * shape[0] / self.rows
        s = model.score(x, t)
        if s.shape != shape or s.dtype != x.dtype:
            raise ScoreError(
                f"score: it returned {tuple(s.shape)} {s.dtype} for x of {tuple(x.shape)} "
                f"{x.dtype}; it must return grad log p_t(x) in the shape and dtype of x"
            )
        return s


def counted(score: Score, rows: int) -> CountedScore:
    """Meter ``score`` for a batch of ``rows`` samples."""
    return CountedScore(score if isinstance(score, ScoreWith) else ScoreWith(score), rows)

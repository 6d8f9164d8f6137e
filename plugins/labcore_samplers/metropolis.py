"""Metropolis-Hastings on p_t: propose, then accept or stay, exact for any step size.

A proposal y is accepted with probability min(1, p(y) q(x|y) / (p(x) q(y|x))). ``metropolised``
puts that round any proposal, which says log q(x|y) - log q(y|x) itself:

    random walk     y = x + h L z                        0
    Langevin        y = x + e P g + sqrt(2e) L z         |z|^2/2 - |z + sqrt(e/2) L^T (g + g')|^2/2

where P = L L^T (see labcore_samplers.langevin), g and g' are the scores at x and y: no inverse is
needed. The log-density and score of where the chain stands are kept, not computed again.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr

import labcore
from labcore import CountedScore, Noise, Process, ScoreError
from labcore_samplers.chains import (
    Chain,
    Count,
    Draws,
    Kernel,
    NotNegative,
    Size,
    Tell,
    carried,
    descend,
    stay,
)
from labcore_samplers.langevin import preconditioner

Point = tuple[Tensor, ...]
"""x, and what is kept about it: its score where the proposal uses one."""

Begin = Callable[[CountedScore, Tensor, Tensor], Point]
"""(score, x, u) -> the point at which a chain on p_u starts."""

Proposal = Callable[[CountedScore, Point, Tensor], tuple[Point, Tensor]]
"""(score, point, z ~ N(0, I)) -> the point proposed and log q(x|y) - log q(y|x), (B,) float64."""


def metropolised(us: Tensor, begin: Begin, proposals: Iterable[Proposal]) -> list[Kernel]:
    """At each of the times us, the kernel that accepts or refuses what is proposed there."""
    return [partial(_chain, u, begin, p) for u, p in zip(us, proposals, strict=True)]


def _chain(
    u: Tensor,
    begin: Begin,
    propose: Proposal,
    score: CountedScore,
    x: Tensor,
    draws: Draws,
    tell: Tell,
) -> Iterator[Tensor]:
    now, log_p = begin(score, x, u), score.log_prob(x, u).double()
    if not all(bool(part.isfinite().all()) for part in (*now, log_p)):
        raise ScoreError(  # every proposal would be refused, and nobody told
            f"score: it or its log-density is NaN or Inf at t={float(u):.4g} where the chain "
            "starts; end the grid at a larger t_eps or mend the score"
        )
    proposal, accept = draws("proposal"), draws("accept")
    while True:
        new, log_q = propose(score, now, proposal())
        new_log_p = score.log_prob(new[0], u).double()
        log_u = log_ndtr(accept().flatten(1)[:, 0].double())
        yes = log_u < new_log_p - log_p + log_q  # NaN and -inf are refused
        log_p = torch.where(yes, new_log_p, log_p)
        now = tuple(torch.where(_column(yes, a), a, b) for a, b in zip(new, now, strict=True))
        tell("acceptance", yes)
        yield now[0]


def _column(yes: Tensor, like: Tensor) -> Tensor:
    return yes.reshape(-1, *[1] * (like.ndim - 1))


def alone(score: CountedScore, x: Tensor, u: Tensor) -> Point:
    """Nothing is kept beside x."""
    return (x,)


def with_score(score: CountedScore, x: Tensor, u: Tensor) -> Point:
    """x and its score at u."""
    return x, score(x, u)


def energy(z: Tensor) -> Tensor:
    """|z|^2 / 2 of each row, (B,), in float64."""
    return z.flatten(1).double().square().sum(1) / 2


def walks(process: Process, us: Tensor, x: Tensor, step: float, data_std: float) -> list[Proposal]:
    """Steps of a random walk at each of the times us."""
    L = (step * preconditioner(process, us, data_std).chol).per_step(x)
    return [partial(_walk, of) for of in L]


def _walk(L: Any, score: CountedScore, now: Point, z: Tensor) -> tuple[Point, Tensor]:
    return (now[0] + L @ z,), torch.zeros(len(z), dtype=torch.float64, device=z.device)


def drifts(
    process: Process, us: Tensor, x: Tensor, step: float, data_std: float
) -> list[Proposal]:
    """Langevin steps at each of the times us."""
    P = preconditioner(process, us, data_std)
    pull, kick = (step * P).per_step(x), ((2 * step) ** 0.5 * P.chol).per_step(x)
    turn = ((step / 2) ** 0.5 * P.chol.T).per_step(x)
    return [partial(_drift, *each) for each in zip(us, pull, kick, turn, strict=True)]


def _drift(
    u: Tensor, pull: Any, kick: Any, turn: Any, score: CountedScore, now: Point, z: Tensor
) -> tuple[Point, Tensor]:
    y = now[0] + pull @ now[1] + kick @ z
    g = score(y, u)
    return (y, g), energy(z) - energy(z + turn @ (now[1] + g))


@labcore.sampler(
    order=None,
    evals=1,
    evals_of=lambda inner, **_: inner,
    extra=1,
    stochastic=True,
    needs=("log_p_t",),
    cite="Metropolis et al. (1953); Hastings (1970)",
)
def metropolis(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.5,
    inner: Count = 1,
    data_std: NotNegative = 1.0,
) -> Chain:
    """Random-walk Metropolis on p at t_eps: y = x + ``step`` L z, no score at all.

    The step of the best mixing falls like 2.4 / sqrt(d) (Roberts, Gelman & Gilks 1997).
    """
    last = ts[-1:]
    (kernel,) = metropolised(last, alone, walks(process, last, x, step, data_std))
    return stay(kernel, score, x, ts, noise, inner)


@labcore.sampler(
    order=None,
    evals=2,
    evals_of=lambda inner, **_: 2 * inner,
    extra=2,
    stochastic=True,
    needs=("log_p_t",),
    cite="Besag (1994); Roberts & Tweedie (1996)",
)
def mala(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.1,
    inner: Count = 1,
    data_std: NotNegative = 1.0,
) -> Chain:
    """Metropolis-adjusted Langevin on p at t_eps: the step of ``langevin``, accepted or refused.

    A score and a log-density a proposal. Best at an acceptance of 0.57 (Roberts & Rosenthal 1998).
    """
    last = ts[-1:]
    (kernel,) = metropolised(last, with_score, drifts(process, last, x, step, data_std))
    return stay(kernel, score, x, ts, noise, inner)


@labcore.sampler(
    order=None,
    evals=8,
    evals_of=lambda inner, **_: 2 * inner + 2,
    stochastic=True,
    needs=("log_p_t",),
    cite="Song & Ermon (2019) arXiv:1907.05600, Algorithm 1; Besag (1994)",
)
def annealed_mala(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.5,
    inner: Count = 3,
    data_std: NotNegative = 0.0,
) -> Chain:
    """Annealed MALA: ``inner`` accepted or refused Langevin steps on p_s at each time s.

    The levels of ``annealed_langevin`` without its steps' error, so that they may be longer. The
    law of each level is left alone; that the chain follows from level to level is up to the grid.
    A score and a log-density come before the first proposal at each level.
    """
    us = ts[1:]
    kernels = metropolised(us, with_score, drifts(process, us, x, step, data_std))
    return descend(carried(process, ts, x), kernels, score, x, ts, noise, inner)

"""Metropolis-Hastings on p_t at t = t_eps: propose, then accept or stay, exact for any step size.

A proposal y is accepted with probability min(1, p(y) q(x|y) / (p(x) q(y|x))). ``metropolised``
wraps that round any proposal, which says log q(x|y) - log q(y|x) itself:

    random walk     y = x + h L z                        0
    Langevin        y = x + e P g + sqrt(2e) L z         |z|^2/2 - |z + sqrt(e/2) L^T (g + g')|^2/2

where P = L L^T (see labcore_samplers.langevin), g and g' are the scores at x and y: no inverse is
needed. The log-density and score of where the chain stands are kept, not computed again.
"""

from collections.abc import Callable, Generator
from itertools import pairwise

import torch
from torch import Tensor
from torch.special import log_ndtr

import labcore
from labcore import CountedScore, Noise, Process, ScoreError
from labcore_samplers.langevin import Count, NotNegative, Size, preconditioner

Chain = Generator[Tensor, None, dict[str, Tensor]]
"""States at ts[1:], then {"acceptance": share of accepted proposals of each row}."""

Point = tuple[Tensor, ...]
"""x, and what is kept about it: its score where the proposal uses one."""

Proposal = Callable[[Point, Tensor], tuple[Point, Tensor]]
"""(point, z ~ N(0, I)) -> the point proposed and log q(x|y) - log q(y|x), (B,) float64."""


def metropolised(
    propose: Proposal, score: CountedScore, start: Point, ts: Tensor, noise: Noise, inner: int
) -> Chain:
    """``inner`` accepted or refused proposals a step, for the density at ts[-1]."""
    now, log_p = start, score.log_prob(start[0], ts[-1]).double()
    if not all(bool(part.isfinite().all()) for part in (*start, log_p)):
        raise ScoreError(  # every proposal would be refused, and nobody told
            f"score: it or its log-density is NaN or Inf at t={float(ts[-1]):.4g} where the chain "
            "starts; end the grid at a larger t_eps or mend the score"
        )
    accepted = torch.zeros_like(log_p)
    for t, s in pairwise(ts):
        for i in range(inner):
            new, log_q = propose(now, noise(t, s, stream=f"proposal {i}"))
            new_log_p = score.log_prob(new[0], ts[-1]).double()
            log_u = log_ndtr(noise(t, s, stream=f"accept {i}").flatten(1)[:, 0].double())
            yes = log_u < new_log_p - log_p + log_q  # NaN and -inf are refused
            log_p = torch.where(yes, new_log_p, log_p)
            now = tuple(torch.where(_column(yes, a), a, b) for a, b in zip(new, now, strict=True))
            accepted += yes
        yield now[0]
    return {"acceptance": accepted / (inner * (len(ts) - 1))}


def _column(yes: Tensor, like: Tensor) -> Tensor:
    return yes.reshape(-1, *[1] * (like.ndim - 1))


def energy(z: Tensor) -> Tensor:
    """|z|^2 / 2 of each row, (B,), in float64."""
    return z.flatten(1).double().square().sum(1) / 2


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
    L = (step * preconditioner(process, ts[-1:], data_std).chol).per_step(x)[0]

    def walk(now: Point, z: Tensor) -> tuple[Point, Tensor]:
        return (now[0] + L @ z,), torch.zeros(len(z), dtype=torch.float64, device=z.device)

    return metropolised(walk, score, (x,), ts, noise, inner)


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
    P = preconditioner(process, ts[-1:], data_std)
    pull, kick = (step * P).per_step(x)[0], ((2 * step) ** 0.5 * P.chol).per_step(x)[0]
    turn = ((step / 2) ** 0.5 * P.chol.T).per_step(x)[0]

    def drift(now: Point, z: Tensor) -> tuple[Point, Tensor]:
        y = now[0] + pull @ now[1] + kick @ z
        g = score(y, ts[-1])
        return (y, g), energy(z) - energy(z + turn @ (now[1] + g))

    return metropolised(drift, score, (x, score(x, ts[-1])), ts, noise, inner)

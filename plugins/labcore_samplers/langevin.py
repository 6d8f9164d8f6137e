"""Langevin dynamics on the law p_t at a fixed time, and down a ladder of times.

    x <- x + e P g + sqrt(2 e) L z,    P = L L^T = data_std^2 Phi E E^T Phi^T + Sigma(t)

with Phi = Phi(t,0) and E the embedding of the data in the state. P is the covariance of X_t for
data of that standard deviation, so the dimensionless step e means the same at every noise level
and on every process; data_std = 0 leaves Sigma(t), the e_i ~ sigma_i^2 of Song & Ermon (2019).
Nothing corrects the error of a step: the law it settles on is off by O(e).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore import CountedScore, LinOp, Mat, Noise, Process
from labcore_samplers.chains import (
    Chain,
    Count,
    Draw,
    Draws,
    Kernel,
    NotNegative,
    Size,
    Tell,
    carried,
    descend,
    stay,
)

Kick = Callable[[Tensor], Tensor]
"""x -> x + R z with the z of the next move, a new tensor."""


def preconditioner(process: Process, t: Tensor, data_std: float) -> LinOp:
    """P(t) = data_std^2 Phi E E^T Phi^T + Sigma(t), for t (n,)."""
    Sigma = process.Sigma(t)
    if not data_std:
        return Sigma
    Phi = process.Phi(t, torch.zeros_like(t))
    if process.structure != "channel":
        return data_std**2 * (Phi @ Phi.T) + Sigma
    first = torch.eye(process.channels, dtype=torch.float64)[:1]  # one on the data, else zero
    return data_std**2 * (Phi @ Mat((first.mT @ first)[None]) @ Phi.T) + Sigma


def unadjusted(
    process: Process, us: Tensor, x: Tensor, step: float, data_std: float
) -> list[Kernel]:
    """The kernel above at each of the times us."""
    P = preconditioner(process, us, data_std)
    parts = (step * P).terms(x), _kicks((2 * step) ** 0.5 * P.chol, x)
    return [partial(_unadjusted, *each) for each in zip(us, *parts, strict=True)]


def _kicks(R: LinOp, x: Tensor) -> list[Callable[[Draw], Kick]]:
    """x + R z of the moves at each time, from their draws: a number is drawn with them."""
    if R.factors is not None:
        return [partial(_scaled, factor) for factor in R.factors]
    return [partial(_kicked, r) for r in R.per_step(x)]


def _scaled(factor: float, draw: Draw) -> Kick:
    return partial(draw, factor)


def _kicked(r: Any, draw: Draw) -> Kick:
    return lambda x: r.added(x, draw())


def _unadjusted(
    u: Tensor,
    pull: Any,
    kicks: Callable[[Draw], Kick],
    score: CountedScore,
    x: Tensor,
    draws: Draws,
    tell: Tell,
) -> Iterator[Tensor]:
    kick, add = kicks(draws("langevin")), pull.accumulate
    while True:
        x = add(kick(x), score(x, u))
        yield x


@labcore.sampler(
    order=None,
    evals=1,
    evals_of=lambda inner, **_: inner,
    stochastic=True,
    cite="Roberts & Tweedie (1996), unadjusted; Parisi (1981)",
)
def langevin(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.05,
    inner: Count = 1,
    data_std: NotNegative = 1.0,
) -> Chain:
    """Unadjusted Langevin (ULA) on p_t at t = t_eps alone, ``inner`` steps of size e = ``step``.

    The other times of the grid only count steps. It does not cross between separated modes.
    """
    (kernel,) = unadjusted(process, ts[-1:], x, step, data_std)
    return stay(kernel, score, x, ts, noise, inner)


@labcore.sampler(
    order=None,
    evals=5,
    evals_of=lambda inner, **_: inner,
    stochastic=True,
    cite="Song & Ermon (2019) arXiv:1907.05600, Algorithm 1, in operator form",
)
def annealed_langevin(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.1,
    inner: Count = 5,
    data_std: NotNegative = 0.0,
) -> Chain:
    """Annealed Langevin (NCSN): ``inner`` steps on p_s at each time s of the grid, noisiest first.

    The step is e = ``step`` in units of Sigma(s): the paper's alpha_i is 2 e sigma_i^2. Between
    levels x is carried by Phi(s,t), so that processes with the same SNR make the same chain; on VE
    nothing is carried, as in the paper.
    """
    kernels = unadjusted(process, ts[1:], x, step, data_std)
    return descend(carried(process, ts, x), kernels, score, x, ts, noise, inner)

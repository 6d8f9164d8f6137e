"""Langevin dynamics on the law p_t at a fixed time, and down a ladder of times.

    x <- x + e P g + sqrt(2 e) L z,    P = L L^T = data_std^2 Phi E E^T Phi^T + Sigma(t)

with Phi = Phi(t,0) and E the embedding of the data in the state. P is the covariance of X_t for
data of that standard deviation, so the dimensionless step e means the same at every noise level
and on every process; data_std = 0 leaves Sigma(t), the e_i ~ sigma_i^2 of Song & Ermon (2019).
Nothing corrects the error of a step: the law it settles on is off by O(e).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import LinOp, Mat, Noise, Process, Scalar, Score

Size = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def preconditioner(process: Process, t: Tensor, data_std: float) -> LinOp:
    """P(t) = data_std^2 Phi E E^T Phi^T + Sigma(t), for t (n,)."""
    Phi = process.Phi(t, torch.zeros_like(t))
    return data_std**2 * (Phi @ _data(process) @ Phi.T) + process.Sigma(t)


def _data(process: Process) -> LinOp:
    """E E^T: one on the data, zero on added channels."""
    if process.structure != "channel":
        return Scalar(torch.ones(1, dtype=torch.float64))
    first = torch.eye(process.channels, dtype=torch.float64)[:1]
    return Mat((first.mT @ first)[None])


@labcore.sampler(
    order=None,
    evals=1,
    evals_of=lambda inner, **_: inner,
    stochastic=True,
    cite="Roberts & Tweedie (1996), unadjusted; Parisi (1981)",
)
def langevin(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.05,
    inner: Count = 1,
    data_std: NotNegative = 1.0,
) -> Iterator[Tensor]:
    """Unadjusted Langevin (ULA) on p_t at t = t_eps alone, ``inner`` steps of size e = ``step``.

    The other times of the grid only count steps. It does not cross between separated modes.
    """
    P = preconditioner(process, ts[-1:], data_std)
    pull, kick = (step * P).per_step(x)[0], ((2 * step) ** 0.5 * P.chol).per_step(x)[0]
    for t, s in pairwise(ts):
        for i in range(inner):
            x = x + pull @ score(x, ts[-1]) + kick @ noise(t, s, stream=f"langevin {i}")
        yield x


@labcore.sampler(
    order=None,
    evals=5,
    evals_of=lambda inner, **_: inner,
    stochastic=True,
    cite="Song & Ermon (2019) arXiv:1907.05600, Algorithm 1, in operator form",
)
def annealed_langevin(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    step: Size = 0.1,
    inner: Count = 5,
    data_std: NotNegative = 0.0,
) -> Iterator[Tensor]:
    """Annealed Langevin (NCSN): ``inner`` steps on p_s at each time s of the grid, noisiest first.

    The step is e = ``step`` in units of Sigma(s): the paper's alpha_i is 2 e sigma_i^2. Between
    levels x is carried by Phi(s,t), so that processes with the same SNR make the same chain; on VE
    nothing is carried, as in the paper.
    """
    carry = process.Phi(ts[1:], ts[:-1]).per_step(x)
    P = preconditioner(process, ts[1:], data_std)
    pull, kick = (step * P).per_step(x), ((2 * step) ** 0.5 * P.chol).per_step(x)
    for (t, s), c, p, k in zip(pairwise(ts), carry, pull, kick, strict=True):
        x = c @ x
        for i in range(inner):
            x = x + p @ score(x, s) + k @ noise(t, s, stream=f"langevin {i}")
        yield x

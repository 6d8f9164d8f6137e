"""Predictor-corrector: any one-step sampler, then Langevin steps on the law it has arrived at.

A one-step sampler on the two times (t, s) is a predictor. A corrector is a Langevin step on p_s
with Sigma(s) = L L^T as preconditioner, x <- x + e Sigma g + sqrt(2e) L z, whose size is

    snr      e = 2 (r |z| / |L^T g|)^2, for each row on its own (Song et al. 2021, Algorithms 4, 5;
             the paper's code takes the mean of the norms over the batch, which couples its rows)
    fixed    e = 2 r^2, what that is on average where noise dominates

The snr rule makes e depend on z and has no bound where g vanishes, as at a mode: the law it leaves
alone is near p_s in many dimensions, where norms hardly vary, and far from it in the plane.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_samplers.ancestral import ancestral
from labcore_samplers.ddim import ddim
from labcore_samplers.euler import euler, euler_maruyama
from labcore_samplers.heun import heun
from labcore_samplers.langevin import Size

Step = Callable[[Tensor, Tensor, float], Tensor | float]
"""(z, L^T g, r) -> e, a number or one a row (B, 1, ..)."""


def snr(z: Tensor, pull: Tensor, r: float) -> Tensor:
    """e = 2 (r |z| / |L^T g|)^2 of each row; no step where the score vanishes."""
    axes = tuple(range(1, z.ndim))
    z2, g2 = (v.square().sum(axes, keepdim=True) for v in (z, pull))
    return torch.where(g2 > 0, 2 * r**2 * z2 / g2, torch.zeros_like(g2))


def fixed(z: Tensor, pull: Tensor, r: float) -> float:
    """e = 2 r^2."""
    return 2 * r**2


PREDICTORS: Mapping[str, Entry] = {
    e.name: e for e in (ancestral, ddim, euler, euler_maruyama, heun)
}
STEPS: Mapping[str, Step] = {"snr": snr, "fixed": fixed}


@labcore.sampler(
    order=None,
    evals=2,
    evals_of=lambda predictor, inner, **_: PREDICTORS[predictor].traits["evals"] + inner,
    stochastic=True,
    cite="Song et al. (2021) arXiv:2011.13456, Algorithms 1, 4 and 5",
)
def predictor_corrector(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    predictor: Literal["ancestral", "ddim", "euler", "euler_maruyama", "heun"] = "ancestral",
    corrector: Literal["snr", "fixed"] = "snr",
    r: Size = 0.16,
    inner: Annotated[int, Field(ge=0)] = 1,
) -> Iterator[Tensor]:
    """A predictor step from t to s, then ``inner`` Langevin steps on p_s of signal-to-noise ``r``.

    With inner=0 it is the predictor. The corrector's own error, O(r^2), stays at any number of
    steps, so there is no order; ancestral and ddim are those of this plugin with their defaults.
    """
    predict, size = PREDICTORS[predictor], STEPS[corrector]
    L = process.Sigma(ts[1:]).chol
    for (t, s), lower, upper in zip(pairwise(ts), L.per_step(x), L.T.per_step(x), strict=True):
        (x,) = predict(process, score, x, torch.stack([t, s]), noise)
        for i in range(inner):
            z = noise(t, s, stream=f"corrector {i}")
            pull = upper @ score(x, s)
            e = size(z, pull, r)
            x = x + lower @ (e * pull + (2 * e) ** 0.5 * z)
        yield x

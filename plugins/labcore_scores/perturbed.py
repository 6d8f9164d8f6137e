"""An exact score with an error of a stated kind and size.

With L L^T = Sigma(t), an error e(x, t) in units of the noise changes the score by -L^-T e: by
e / sigma(t) for a scalar process. The score itself has root mean square 1 / sigma(t) a coordinate
for samples around one clean point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import pi, prod, sqrt
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import LabError, Process, Score, Target
from labcore_scores.empirical import empirical
from labcore_scores.exact import exact

Error = Callable[[Tensor, Tensor], Tensor]
"""e(x, t), in units of the noise."""

_SWEEP = 3.0  # standard deviation of a phase over the samples, in radians
_SPAN = 4.0  # change of log SNR that turns the phases as much


@labcore.score
def perturbed(
    process: Process,
    target: Target,
    *,
    bias: float = 0.0,
    noise: float = 0.0,
    scale: float = 0.0,
    smoothing: Annotated[float, Field(ge=0)] = 0.0,
    time_shift: Annotated[float, Field(gt=-1)] = 0.0,
    seed: int = 0,
) -> Score:
    """The exact score (of a mixture, else of a data set) with errors; with none, exact itself.

    bias        e = bias in every coordinate, with a random sign each, the same for all x and t
    noise       e = noise f(x, t), f a fixed smooth random field with unit mean square a coordinate
    scale       (1 + scale) s
    smoothing   s of the law blurred further, Sigma -> (1 + smoothing^2) Sigma
    time_shift  s(x, min(t (1 + time_shift), T))

    ``bias`` and ``noise`` are root mean square errors relative to 1/sigma, ``scale`` relative to
    the score. ``seed`` fixes the signs and the field, which is a function, not fresh noise.
    """
    blurred = replace(process, Sigma=lambda t: (1 + smoothing**2) * process.Sigma(t))
    base = _exact(blurred if smoothing else process, target)
    event = process.event(target.event)
    sized = ((bias, _signs(event, seed)), (noise, _field(process, target, seed)))
    added = [(size, error) for size, error in sized if size]

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        s = base(x, (t * (1 + time_shift)).clamp(max=process.T) if time_shift else t)
        if scale:
            s = (1 + scale) * s
        if added:
            e = torch.stack([size * error(x, t).expand_as(x) for size, error in added]).sum(0)
            s = s - process.Sigma(t).chol.inv.T @ e
        return s

    return score


def _exact(process: Process, target: Target) -> Score:
    if target.mixture is None and target.data is None:
        raise LabError(
            "score 'perturbed': the target is neither a mixture nor a data set, so there is no "
            "exact score to perturb; choose a target that gives one"
        )
    return (empirical if target.mixture is None else exact)(process, target)


def _signs(event: tuple[int, ...], seed: int) -> Error:
    """A random sign for each coordinate."""
    coin = torch.rand(1, *event, generator=torch.Generator().manual_seed(seed))
    signs = torch.where(coin < 0.5, -1.0, 1.0)
    return lambda x, t: signs.to(x)


def _field(process: Process, target: Target, seed: int) -> Error:
    """f_i = sqrt(2) cos(w_i . z + nu_i log SNR(t) + b_i), z = x centred and scaled to variance 1.

    Over the samples a phase has a standard deviation of several radians: f has mean square 1.
    """
    event = process.event(target.event)
    D = prod(event)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    W, nu, turn = draw(D, D), _SWEEP / _SPAN * draw(D), 2 * pi * draw(D)
    W = (_SWEEP * W / W.norm(dim=1, keepdim=True)).float()
    mean, variance = _moments(target)
    mean = process.embed(mean.reshape(1, *target.event))

    def field(x: Tensor, t: Tensor) -> Tensor:
        Phi, Sigma = process.Phi(t, torch.zeros_like(t)), process.Sigma(t)
        power = (variance * (Phi @ Phi.T).trace(event) + Sigma.trace(event)) / D
        z = (x - Phi @ mean.to(x).expand_as(x)).flatten(1) * power.rsqrt().to(x)[:, None]
        phase = process.log_snr(t).reshape(-1, 1) * nu + turn
        return sqrt(2) * (phase.to(x) + z @ W.mT.to(x)).cos().reshape(x.shape)

    return field


def _moments(target: Target) -> tuple[Tensor, float]:
    """Mean of the data law over the flattened event, and its mean variance a coordinate."""
    law = target.mixture
    if law is not None:
        return law.mean, float(law.cov.diagonal().mean())
    assert target.data is not None
    data = target.data.double().flatten(1)
    return data.mean(0), float(data.var(0, correction=0).mean())

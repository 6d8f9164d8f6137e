"""What a score is worth on data it has not seen, where the exact one need not be known.

A score denoises: D(x_t) = E[x0 | x_t] by Tweedie, and states how far off that is by its own slope,

    Cov[x0 | x_t] = (dD/dx) Sigma Phi^-T                (second order; Efron 2011)

Derivatives along a direction are central differences of h = 0.05 in units of the noise: any score
will do, a network's or another library's, and p_t is smooth on the scale of its noise. All is in
float64 but what a network does in its own precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

import labcore
from labcore import Process, Score
from labcore_metrics.fisher import (
    Count,
    Times,
    drawn,
    exact_score,
    mean_square,
    nodes,
    parts_of,
)

_STEP = 0.05
Map = Callable[[Tensor], Tensor]


def _inner(a: Tensor, b: Tensor) -> float:
    """E a . b over the rows."""
    return float((a.double() * b.double()).flatten(1).sum(1).mean())


@labcore.metric(
    better="lower",
    minimum=1,
    floor=False,
    cite="Vincent (2011); Song et al. (2019) arXiv:1905.07088",
    sees="differences between scores; its value at the exact score is not zero but for esm",
)
def score_losses(
    outcome: labcore.Outcome, *, times: Times = 16, n: Count = 2000
) -> dict[str, float]:
    """The objectives' values on ``n`` fresh points a time, means over t as in training.

    ``dsm`` E|L^T s + z|^2, ``ssm`` E|eps|^2 - 2 v^T J L v, which is dsm - D in expectation, and
    ``esm`` E|L^T (s - s*)|^2 where the exact score s* of a mixture is known. Of a finite data set
    fresh points may be those that were trained on: the validation curve is of held-out ones.
    """
    process, score = parts_of(score_losses, outcome)
    target, g = outcome.target, outcome.generator("losses")
    ts, weights = nodes(process, times)
    rows: dict[str, list[float]] = {"dsm": [], "ssm": []}
    for t in ts:
        _, x, z = drawn(outcome, process, t, n, g, torch.float64)
        L, noise = process.Sigma(t).chol, _noise(process, score, t)
        v = torch.randn(x.shape, generator=g).to(x)
        with torch.inference_mode():
            eps = noise(x)
            slope = _difference(noise, x, L.to(x) @ v, _STEP)
            rows["dsm"].append(mean_square(eps - z))
            rows["ssm"].append(mean_square(eps) - 2 * _inner(v, slope))
            if target.mixture is not None:
                law = labcore.state_law(process, target.mixture, t, target.event)
                off = eps.double() + L.T @ exact_score(law, x)
                rows.setdefault("esm", []).append(mean_square(off))
    share = weights / weights.sum()
    return {name: float(share @ share.new_tensor(values)) for name, values in rows.items()}


@labcore.metric(
    minimum=2,
    floor=False,
    cite="Efron (2011); Robbins (1956)",
    sees="a score that is too steep or too flat, at which time; blind to an error that is neither",
)
def tweedie_calibration(
    outcome: labcore.Outcome, *, times: Times = 8, n: Count = 2000
) -> dict[str, float]:
    """Whether the score denoises as well as it says: both numbers are one for the exact score.

    ``ratio`` is the variance that the score itself states, tr Cov[x0 | x_t] by Tweedie's second
    formula, over the real E|x0 - D(x_t)|^2: below one it is too sure of itself. ``slope`` is that
    of the regression of x0 on D(x_t). Per time, as ``ratio t=..``, and over all: the mean of the
    ratios over the nodes, and the pooled slope. Times are those of an SNR above e^-4: beyond, D is
    all but the mean, and any error of the score is many times larger in it.
    """
    process, score = parts_of(tweedie_calibration, outcome)
    g = outcome.generator("calibration")
    ts, _ = nodes(process, times, _last_known(process))
    ratios: dict[str, float] = {}
    slopes: dict[str, float] = {}
    joint, spread = 0.0, 0.0
    for t in ts:
        x0, x, _ = drawn(outcome, process, t, n, g, torch.float64)
        with torch.inference_mode():
            denoise = _denoiser(process, score, t)
            D = denoise(x)
            stated = _stated_variance(process, denoise, x, t, g)
            ratios[f"ratio t={float(t):.4g}"] = stated / mean_square(x0 - D)
            centred = D - x0.mean(0)
            along, across = _inner(x0 - x0.mean(0), centred), mean_square(centred)
        joint, spread = joint + along, spread + across
        slopes[f"slope t={float(t):.4g}"] = along / across
    overall = {"ratio": sum(ratios.values()) / times, "slope": joint / spread}
    return overall | ratios | slopes


def _last_known(process: Process) -> float:
    """The last time whose log SNR is above -4."""
    t = torch.logspace(math.log10(process.t_eps), math.log10(process.T), 1000).double()
    return float(t[process.log_snr(t) > -4][-1])


def _noise(process: Process, score: Score, t: Tensor) -> Map:
    """x -> eps = -L^T s."""
    L = process.Sigma(t).chol
    return lambda x: -(L.T.to(x) @ score(x, t))


def _denoiser(process: Process, score: Score, t: Tensor) -> Map:
    """x -> the data part of E[x0 | x_t = x]."""
    return lambda x: process.project(process.tweedie(x, t, score(x, t)))


def _stated_variance(process: Process, denoise: Map, x: Tensor, t: Tensor, g: Generator) -> float:
    """E tr( (dD/dx) Sigma Phi^-T ) on the data's coordinates, by a random sign each."""
    w = torch.randn(process.project(x).shape, generator=g).to(x).sign()
    Phi, Sigma = process.Phi(t, torch.zeros_like(t)), process.Sigma(t)
    back = Phi.inv.T.to(x) @ process.embed(w)
    along = Sigma.to(x) @ back
    size = mean_square(Sigma.chol.T.to(x) @ back) / w[0].numel()
    h = _STEP / max(size, 1e-300) ** 0.5
    return _inner(w, _difference(denoise, x, along, h))


def _difference(f: Map, x: Tensor, along: Tensor, h: float) -> Tensor:
    """The derivative of f at x along a direction, by a central difference of h of it."""
    return (f(x + h * along) - f(x - h * along)) / (2 * h)

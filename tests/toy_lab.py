"""A tiny lab of a script's own entries, so that core tests depend on no plugin."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore import use
from labcore.targets import from_mixture
from labcore.testing import default_data, gaussian_score, vp
from labcore.testing.models import quadratic


@labcore.process(gives=("scalar",))
def toy_vp(*, b1: float = 20.0) -> labcore.Process:
    """VP with b0 = 0.1."""
    return vp(0.1, b1)


@labcore.target(gives=("mixture", "log_prob"))
def toy_gaussian(*, d: int = 2) -> labcore.Target:
    """A Gaussian with a full covariance."""
    return from_mixture(default_data(d))


@labcore.score(needs=("mixture",), cite="closed form")
def toy_exact(process: labcore.Process, target: labcore.Target) -> labcore.Score:
    """The exact score of Gaussian data."""
    assert target.mixture is not None
    return gaussian_score(process, target.mixture, target.event)


@labcore.grid
def toy_grid(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Quadratic times."""
    return quadratic(process, n)


@labcore.sampler(order=1, evals=1, stochastic=True)
def toy_em(
    process: labcore.Process, score: labcore.Score, x: Tensor, ts: Tensor, noise: Any
) -> Iterator[Tensor]:
    """Euler-Maruyama, written plainly."""
    drift = labcore.reverse_drift(process, score)
    for t, s in pairwise(ts):
        h = t - s
        x = x - float(h) * drift(t, x) + process.G(t) @ (float(h.sqrt()) * noise(t, s))
        yield x


@labcore.sampler(order=2, evals=2)
def toy_heun(
    process: labcore.Process, score: labcore.Score, x: Tensor, ts: Tensor, noise: Any
) -> Iterator[Tensor]:
    """Heun on the probability-flow ODE, written plainly."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h = float(s - t)
        now = v(t, x)
        x = x + h / 2 * (now + v(s, x + h * now))
        yield x


@labcore.metric(better="lower", minimum=2)
def toy_mean(outcome: labcore.Outcome) -> float:
    """Distance between the sample means."""
    delta = outcome.samples.mean(0) - outcome.reference.mean(0)
    return float(delta.norm())


@labcore.metric(better="lower", minimum=2)
def toy_moments(outcome: labcore.Outcome) -> dict[str, float]:
    """Errors of the mean and of the standard deviation."""
    a, b = outcome.samples, outcome.reference
    return {
        "mean": float((a.mean(0) - b.mean(0)).norm()),
        "std": float((a.std(0) - b.std(0)).norm()),
    }


ENTRIES = [toy_vp, toy_gaussian, toy_exact, toy_grid, toy_em, toy_heun, toy_mean, toy_moments]


def study(**changes: Any) -> labcore.Study:
    """A small study of these entries; any axis can be changed."""
    axes: dict[str, Any] = {
        "name": "toy",
        "question": "does it run?",
        "target": use("toy_gaussian"),
        "process": use("toy_vp"),
        "score": use("toy_exact"),
        "grid": use("toy_grid"),
        "sampler": ["toy_em", "toy_heun"],
        "steps": [4, 8],
        "seed": range(3),
        "n": 64,
        "metrics": ["toy_mean", "toy_moments"],
        "floor_repeats": 4,
        "entries": ENTRIES,
    }
    return labcore.Study(**{**axes, **changes})


def registry_of(made: labcore.Study) -> labcore.Registry:
    """The registry a study sees."""
    return labcore.load_registry(list(made.entries))


def nan_below(t_bad: float) -> labcore.Entry:
    """A score that is NaN below a time."""

    @labcore.score(needs=("mixture",))
    def toy_nan(process: labcore.Process, target: labcore.Target) -> labcore.Score:
        """Exact above a time, NaN below."""
        exact = toy_exact(process, target)

        def score(x: Tensor, t: Tensor) -> Tensor:
            s = exact(x, t)
            return torch.full_like(s, torch.nan) if float(t) < t_bad else s

        return score

    return toy_nan

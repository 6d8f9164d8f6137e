"""How far a score is from the exact one of a mixture: the Fisher divergence, time by time.

    D(t) = E_{p_t} |L^T (s - grad log p_t)|^2,    L L^T = Sigma(t)

in the units of the noise, in which denoising objectives measure: a score of zero everywhere has
D(t) near the dimension where noise dominates. Times are the nodes of a Gauss-Legendre rule in
log t over [t_eps, T] of the process, so integrals over t are exact for smooth curves.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from scipy.special import roots_legendre
from torch import Generator, Tensor

import labcore
from labcore import Mixture, Process, Score
from labcore_metrics.checks import fail

Times = Annotated[int, Field(ge=2, le=64)]
Count = Annotated[int, Field(ge=2)]

_BLOCK = 2**21  # numbers in the largest table of samples by components: 16 MB


def parts_of(metric: labcore.Entry, outcome: labcore.Outcome) -> tuple[Process, Score]:
    """The process and the score that made the samples; MetricError where they are not known."""
    if outcome.process is None or outcome.score is None:
        raise fail(metric, "the outcome tells no process and score; use it in a study's cells")
    return outcome.process, outcome.score


def nodes(process: Process, n: int, last: float = math.inf) -> tuple[Tensor, Tensor]:
    """Times t_1 < .. < t_n in [t_eps, T], or up to ``last``, and weights w with
    sum_i w_i f(t_i) ~ int f dt."""
    u, w = (torch.from_numpy(v) for v in roots_legendre(n))
    low, high = math.log(process.t_eps), math.log(min(process.T, last))
    t = torch.exp((high + low) / 2 + (high - low) / 2 * u)
    return t, w * (high - low) / 2 * t


def drawn(
    outcome: labcore.Outcome,
    process: Process,
    t: Tensor,
    n: int,
    generator: Generator,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """x0 (n, *data event), x_t and its noise z (n, *event), fresh from the target."""
    x0 = outcome.target.sample(n, generator).to(dtype)
    z = torch.randn(n, *process.event(outcome.target.event), generator=generator).to(dtype)
    return x0, process.perturb(x0, t, z), z


def exact_score(law: Mixture, x: Tensor) -> Tensor:
    """grad log p of the flattened rows of x (B, *event), in float64."""
    rows = max(1, _BLOCK // law.means.numel())
    with torch.inference_mode(False), torch.enable_grad():
        parts = []
        for part in x.flatten(1).double().split(rows):
            y = part.clone().requires_grad_(True)
            parts.append(torch.autograd.grad(law.log_prob(y).sum(), y)[0])
    return torch.cat(parts).reshape(x.shape)


def mean_square(x: Tensor) -> float:
    """E|x|^2 over the rows."""
    return float(x.flatten(1).square().sum(1).mean())


@labcore.metric(
    better="lower",
    minimum=1,
    floor=False,
    needs=("mixture",),
    cite="Song, Durkan, Murray & Ermon (2021) arXiv:2101.09258, theorem 1",
    sees="the score alone, not the samples: errors of 1e-7 of the noise in float32",
)
def fisher(outcome: labcore.Outcome, *, times: Times = 16, n: Count = 2000) -> dict[str, float]:
    """Fisher divergence of the cell's score to the exact one, on ``n`` fresh points a time.

    ``t=..`` is D(t) at each of ``times`` nodes, ``integral`` int D dt over [t_eps, T], ``plain``
    the same of E|s - s*|^2, and ``likelihood`` half of that of E|G^T (s - s*)|^2: in nats, what
    the score adds at most to the divergence between the data and what the SDE samples.
    """
    process, score = parts_of(fisher, outcome)
    target = outcome.target
    if target.mixture is None:
        raise fail(fisher, "the exact score is not known; use a mixture target, or score_losses")
    g = outcome.generator("fisher")
    ts, weights = nodes(process, times)
    curve: dict[str, float] = {}
    plain, bound = [], []
    for t in ts:
        _, x, _ = drawn(outcome, process, t, n, g, outcome.samples.dtype)
        law = labcore.state_law(process, target.mixture, t, target.event)
        with torch.inference_mode():
            off = score(x, t).double() - exact_score(law, x)
            curve[f"t={float(t):.4g}"] = mean_square(process.Sigma(t).chol.T @ off)
            plain.append(mean_square(off))
            bound.append(mean_square(process.G(t).T @ off) / 2)

    def integral(values: list[float]) -> float:
        return float(weights @ weights.new_tensor(values))

    totals = {"integral": list(curve.values()), "plain": plain, "likelihood": bound}
    return {name: integral(values) for name, values in totals.items()} | curve

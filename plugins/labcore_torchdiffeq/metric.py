"""The log-likelihood of exact data under a cell's score, as a metric of the score."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import MetricError, Outcome
from labcore_torchdiffeq.bits import bits_per_dim, of_data
from labcore_torchdiffeq.likelihood import log_likelihood

Positive = Annotated[float, Field(gt=0)]


@labcore.metric(
    better="lower",
    minimum=1,
    floor=False,
    cite="Song et al. (2021) arXiv:2011.13456, appendix D.2",
    sees="the score alone, not the samples: its error of 1/sqrt(n) is stated as 'error'",
)
def flow_nll(
    outcome: Outcome,
    *,
    n: Annotated[int, Field(ge=2)] = 64,
    probes: Annotated[int, Field(ge=0)] = 0,
    rtol: Positive = 1e-5,
    atol: Positive = 1e-5,
    spacing: Annotated[float, Field(ge=0)] = 0.0,
    max_nfe: Annotated[int, Field(ge=1)] = 2000,
) -> dict[str, float]:
    """-E log p(x) of exact data x under the probability-flow ODE of the cell's score, from its
    prior to t_eps.

    ``nll`` in nats over the first ``n`` reference points, ``error`` half its 95 % interval over
    them, ``budget`` the mean error that the solver and the probes state; ``gap``, where the law is
    known, the mean of log p_true - log p: the KL divergence from the truth. ``spacing`` of grey
    levels (1/8 for digits) dequantises the points and adds ``bits``, bits a dimension.
    Added channels are drawn once a point, which bounds nll from above.
    """
    process, score = outcome.process, outcome.score
    if process is None or score is None:
        raise MetricError(
            "metric 'flow_nll': the outcome tells no process and score; use it in a study's cells"
        )
    g, x = outcome.generator("flow_nll"), outcome.reference[:n]
    stated: list[Tensor] = []

    def log_prob(y: Tensor) -> Tensor:
        made = log_likelihood(
            process, score, y, rtol=rtol, atol=atol, probes=probes, generator=g, max_nfe=max_nfe
        )
        stated.append(made.budget.ode + made.budget.probes)
        return made.value

    def density(y: Tensor) -> Tensor:
        return of_data(process, log_prob, y, t=process.t_eps, generator=g, draws=1).value

    with torch.inference_mode(False):
        if spacing:
            bits = bits_per_dim(density, x, spacing=spacing, generator=g).value
            values = -bits * x[0].numel() * torch.log(torch.tensor(2.0))  # log P of the levels
        else:
            values = density(x)
    told = {
        "nll": float(-values.mean()),
        "error": float(1.96 * values.std() / len(values) ** 0.5),
        "budget": float(torch.cat(stated).mean()),
    }
    if spacing:
        return {**told, "bits": float(bits.mean())}
    if outcome.law is not None:
        told["gap"] = float((outcome.law.log_prob(x.flatten(1)) - values).mean())
    return told

"""What an exact density says about samples: their log-likelihood and the weight of each mode."""

from collections.abc import Callable

import torch
from torch import Tensor

import labcore
from labcore_metrics.checks import fail, pair

_ROWS = 4096  # rows whose densities are computed at a time


def _rowwise(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([f(rows).double() for rows in x.split(_ROWS)])


def _law(metric: labcore.Entry, outcome: labcore.Outcome) -> labcore.Mixture:
    if outcome.law is None:
        raise fail(metric, "the exact law is not a known mixture; use a mixture target")
    return outcome.law


def _log_prob(outcome: labcore.Outcome) -> Callable[[Tensor], Tensor]:
    """log density of flattened rows (B, d) under the law the reference was drawn from."""
    density, event = outcome.target.log_prob, outcome.reference.shape[1:]
    if outcome.law is not None or density is None:
        return _law(nll, outcome).log_prob
    return lambda x: density(x.reshape(-1, *event))


@labcore.metric(better="lower", minimum=1, needs=("log_prob",), sees="")
def nll(outcome: labcore.Outcome) -> dict[str, float]:
    """Mean negative log-likelihood ``nll`` of the samples under the exact law, and its ``gap``.

    gap = nll - ( -mean log p(reference) ), the second term an estimate of the law's entropy: zero
    on average for exact samples, positive when samples lie where p is small, NEGATIVE when they
    crowd the modes. It is no distance: a sampler that loses a mode can have a gap of zero.
    """
    x, y = pair(nll, outcome)
    log_prob = _log_prob(outcome)
    try:
        value, entropy = (-_rowwise(log_prob, z).mean().item() for z in (x, y))
    except torch.linalg.LinAlgError as error:
        raise fail(nll, f"the law has no density ({error}); compare at t_eps > 0") from error
    if not abs(value) + abs(entropy) < float("inf"):
        raise fail(nll, "some points have density zero or NaN under the law; use energy")
    return {"nll": value, "gap": value - entropy}


def mode_masses(law: labcore.Mixture, x: Tensor) -> Tensor:
    """Mean responsibility of each component, (K,): its expectation is the weights if x ~ law."""
    return _rowwise(lambda rows: law.log_joint(rows).softmax(1), x).mean(0)


@labcore.metric(better="lower", minimum=1, needs=("mixture",), sees="")
def mode_weights(outcome: labcore.Outcome) -> float:
    """Total variation distance between the samples' mode masses and the true weights.

    The mass of mode k is the mean of its responsibility w_k N(x; m_k, S_k) / p(x).
    """
    x, _ = pair(mode_weights, outcome)
    law = _law(mode_weights, outcome)
    try:
        masses = mode_masses(law, x)
    except torch.linalg.LinAlgError as error:
        raise fail(
            mode_weights, f"the law has no density ({error}); compare at t_eps > 0"
        ) from error
    return float((masses - law.weights).abs().sum() / 2)

"""log p_t(x) by the probability-flow ODE, with what its error is made of: see density.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.special import stdtrit
from torch import Generator, Tensor

import labcore
from labcore import Process, Score
from labcore_torchdiffeq.density import Flow, directions, log_prior

LOOSER = 100.0
"""How much looser the tolerances of the second solution are."""

CONFIDENCE = 0.99
"""Of the interval that the probes' share of the stated error spans."""

ADAPTIVE = ("dopri8", "dopri5", "bosh3")
Start = Literal["prior", "exact"]


@dataclass(frozen=True, eq=False)
class Budget:
    """What the error of a log-likelihood is made of, in nats, (B,) each and never negative.

    ode: the difference to a solution at tolerances LOOSER times as loose, no less than its root
    mean square over the batch. probes: half the CONFIDENCE Student interval of Hutchinson's mean.
    prior: log p_T against the Gaussian prior at x_T, measured where p_T is known; else
    KL + 2 sqrt(2 KL), its mean and two deviations for a small shift, from the bound ``kl``.
    truncation: |log p_e(x) - log p_0(x)| to first order in the noise at t_eps.
    """

    ode: Tensor
    probes: Tensor
    prior: Tensor
    truncation: Tensor

    @property
    def total(self) -> Tensor:
        """The stated error of ``value`` as log p_{t_eps}(x)."""
        return self.ode + self.probes + self.prior

    @property
    def total_at_0(self) -> Tensor:
        """The stated error of ``value`` as log p_0(x).

        The first-order term counts twice: enough while the noise at t_eps is narrow beside the
        data. CLD's is not beside its own velocities; there ``truncation`` is half of the truth.
        """
        return self.total + 2 * self.truncation


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p_{t_eps}(x), (B,) float64, its error ``budget`` and its cost.

    ``variance`` is that of Hutchinson's mean over the probes, (B,); ``kl`` bounds KL(p_T || prior)
    by E |L^-1 Phi x0|^2 / 2 over the batch; ``nfe`` counts calls of the score on the batch.
    """

    value: Tensor
    budget: Budget
    variance: Tensor
    kl: float
    nfe: int


def log_likelihood(
    process: Process,
    score: Score,
    x: Tensor,
    *,
    t_eps: float | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    probes: int = 0,
    generator: Generator | None = None,
    log_p_t: Score | None = None,
    start: Start = "prior",
    method: str = "dopri8",
    max_nfe: int = 5000,
) -> Likelihood:
    """log p_{t_eps}(x) of states x (B, *event) under the flow of ``score``, and its error budget.

    The trace is exact, one gradient a coordinate, or with ``probes`` K >= 2 Hutchinson's over K
    Rademacher vectors a sample from ``generator``, held along the path. ``log_p_t(x, t)``, the
    true normalised log-density where it is known, measures the prior mismatch; start="exact"
    integrates from it instead of from the prior N(0, Sigma(T)), and has none. With the prior the
    value is the density of what sampling from it by the ODE would draw.
    Under added channels it is the density of the state; ``of_data`` makes that of the data of it.
    A score in float32 bears rtol = atol = 1e-5. ``max_nfe`` caps the evaluations of each solution.

    Raises InvalidOption for options that do not fit, MetricError where the score has no gradient,
    is not finite, or asks for too many evaluations.
    """
    _check(process, x, t_eps, probes, generator, log_p_t, start, method)
    with torch.inference_mode(False), torch.no_grad():
        e = process.t_eps if t_eps is None else t_eps
        x = x.detach().clone()
        flow = Flow(process, score, x, e, directions(x, probes, generator), bool(probes))
        tight, rough = (flow.solve(method, rtol * by, atol * by, max_nfe) for by in (1.0, LOOSER))
        value, x_T = flow.value(tight, log_p_t if start == "exact" else None)
        loose, _ = flow.value(rough, log_p_t if start == "exact" else None)
        kl = prior_kl(process, x)
        budget = Budget(
            _guarded((value - loose).mean(0)),
            _half_width(value),
            _prior_error(process, x_T, log_p_t, start, kl),
            _guarded(flow.truncation()),
        )
        variance = value.var(0) / len(value) if probes else torch.zeros_like(value[0])
        return Likelihood(value.mean(0), budget, variance, kl, flow.nfe)


def prior_kl(process: Process, x: Tensor) -> float:
    """E |L^-1 Phi(T,0) x0|^2 / 2 over x as data, L L^T = Sigma(T): a bound of KL(p_T || prior).

    p_T mixes N(Phi x0, Sigma(T)), and the KL divergence is convex.
    """
    T = torch.tensor(process.T, dtype=torch.float64)
    mean = process.mean(process.project(x).double(), T)
    white = process.prior().chol.inv @ mean
    return float(white.square().flatten(1).sum(1).mean() / 2)


def _prior_error(
    process: Process, x_T: Tensor, log_p_t: Score | None, start: Start, kl: float
) -> Tensor:
    if start == "exact":
        return x_T.new_zeros(len(x_T))
    if log_p_t is None:
        return x_T.new_full((len(x_T),), kl + 2 * math.sqrt(2 * kl))
    T = torch.tensor(process.T, dtype=torch.float64)
    return (log_p_t(x_T, T).double() - log_prior(process, x_T)).abs()


def _guarded(error: Tensor) -> Tensor:
    """|error|, no less than its root mean square over the batch: one may be small by chance."""
    return error.abs().clamp_min(float(error.square().mean().sqrt()))


def _half_width(values: Tensor) -> Tensor:
    """Half the interval of the mean over the first axis, (B,); 0 for an exact trace."""
    K = len(values)
    if K == 1:
        return torch.zeros_like(values[0])
    quantile = float(stdtrit(K - 1, 0.5 + CONFIDENCE / 2))
    return quantile * values.std(0) / math.sqrt(K)


def _check(
    process: Process,
    x: Tensor,
    t_eps: float | None,
    probes: int,
    generator: Generator | None,
    log_p_t: Score | None,
    start: str,
    method: str,
) -> None:
    """InvalidOption for what cannot be done."""
    e = process.t_eps if t_eps is None else t_eps
    wrong: list[tuple[Callable[[], bool] | bool, Any]] = [
        (not 0 < e < process.T, f"t_eps={e}, give a time between 0 and T={process.T:g}"),
        (probes < 0 or probes == 1, f"probes={probes}, give 0 (exact trace) or at least 2"),
        (probes > 1 and generator is None, "probes need a generator; pass generator="),
        (
            start == "exact" and log_p_t is None,
            "start='exact' needs the density of p_T; pass log_p_t",
        ),
        (start not in ("prior", "exact"), f"start='{start}', give 'prior' or 'exact'"),
        (method not in ADAPTIVE, f"method='{method}', give one of {', '.join(ADAPTIVE)}"),
        (x.ndim < 2 or not len(x), f"x has shape {tuple(x.shape)}, give (B, *event)"),
        (not bool(torch.isfinite(x).all()), "x is not finite"),
    ]
    for bad, text in wrong:
        if bad:
            raise labcore.InvalidOption(f"likelihood: {text}")

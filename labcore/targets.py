"""What is sampled from: a data law, and the Gaussian mixture, whose every marginal is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from labcore.errors import InvalidOption
from labcore.linop import Event
from labcore.processes import Process, as_time


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(m_k, S_k) in float64: weights (K,), means (K, d), covs (K, d, d)."""

    weights: Tensor
    means: Tensor
    covs: Tensor

    def __post_init__(self) -> None:
        K, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        if d == 0 or self.weights.shape != (K,) or self.covs.shape != (K, d, d):
            raise InvalidOption(
                f"mixture: weights {tuple(self.weights.shape)}, means {tuple(self.means.shape)} "
                f"and covs {tuple(self.covs.shape)} do not fit; give (K,), (K, d) and (K, d, d)"
            )

    @cached_property
    def _chol(self) -> Tensor:
        L, info = torch.linalg.cholesky_ex(self.covs)
        if bool(info.any()):
            k = int(info.nonzero()[0])
            lowest = float(torch.linalg.eigvalsh(self.covs[k])[0])
            raise InvalidOption(
                f"mixture: covariance {k} has lowest eigenvalue {lowest:.3g}; "
                "it must be positive definite: add a small multiple of the identity"
            )
        return L

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k N(x; m_k, S_k) for every sample and component, (B, K); x is (B, d)."""
        delta = x.to(self.means)[None] - self.means[:, None]
        white = torch.linalg.solve_triangular(self._chol, delta.mT, upper=False)
        half_logdet = self._chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        d = self.means.shape[1]
        constant = self.weights.log() - half_logdet - d / 2 * math.log(2 * math.pi)
        return (constant[:, None] - white.square().sum(1) / 2).T

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of x (B, d), (B,), float64, in blocks of rows of at most 64 MB."""
        rows = max(1, 2**22 // self.means.numel())
        return torch.cat([self.log_joint(part).logsumexp(1) for part in x.split(rows)])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n exact samples, (n, d), float64."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], 1, generator=generator, dtype=torch.float64)
        x = self.means[k]
        for j in range(len(self.weights)):
            chosen = k == j
            x[chosen] += (self._chol[j] @ z[chosen]).squeeze(-1)
        return x

    @cached_property
    def mean(self) -> Tensor:
        """(d,)."""
        return self.weights @ self.means

    @cached_property
    def cov(self) -> Tensor:
        """(d, d)."""
        delta = self.means - self.mean
        return (
            torch.einsum("k,kij->ij", self.weights, self.covs) + (delta.T * self.weights) @ delta
        )


@dataclass(frozen=True, eq=False)
class Target:
    """A data law on events: exact samples always, density and mixture form where they exist.

    ``sample(n, generator)`` gives (n, *event) float32; ``log_prob(x)`` gives (B,);
    ``mixture`` is over the flattened event; ``data`` (N, *event) is set where the law is the
    empirical one of a finite set; ``image`` is the pixel shape for sample sheets.
    """

    event: Event
    sample: Callable[[int, torch.Generator], Tensor]
    log_prob: Callable[[Tensor], Tensor] | None = None
    mixture: Mixture | None = None
    data: Tensor | None = None
    image: tuple[int, ...] | None = None


def _check(mixture: Mixture) -> None:
    """Refuse what is not a probability law: wrong weights, covariances, or numbers."""
    w, S = mixture.weights, mixture.covs
    if not all(bool(p.isfinite().all()) for p in (w, mixture.means, S)):
        raise InvalidOption("mixture: NaN or Inf among its numbers; remove them")
    if bool((w < 0).any()) or abs(float(w.sum()) - 1) > 1e-6:
        raise InvalidOption(
            f"mixture: weights {[round(v, 6) for v in w.tolist()[:8]]} are no probabilities; "
            "they must be non-negative and sum to 1"
        )
    skew = float((S - S.mT).abs().max() / S.abs().max().clamp_min(1e-300))
    if skew > 1e-8:
        raise InvalidOption(
            f"mixture: a covariance is not symmetric (relative difference {skew:.2g}); "
            "use (S + S^T) / 2"
        )
    _ = mixture._chol


def from_mixture(
    mixture: Mixture, event: Event | None = None, image: tuple[int, ...] | None = None
) -> Target:
    """The target whose law is ``mixture``, on events of shape ``event`` (default (d,)).

    Raises InvalidOption when the weights are no probabilities, a covariance is not symmetric
    positive definite, or the event does not have d numbers.
    """
    _check(mixture)
    d = mixture.means.shape[1]
    event = event or (d,)
    if math.prod(event) != d:
        raise InvalidOption(f"mixture: event {event} does not hold d={d} numbers; reshape it")

    def sample(n: int, generator: torch.Generator) -> Tensor:
        return mixture.sample(n, generator).reshape(n, *event).float()

    def log_prob(x: Tensor) -> Tensor:
        return mixture.log_prob(x.flatten(1))

    return Target(event, sample, log_prob, mixture, image=image)


def state_law(process: Process, mixture: Mixture, t: float | Tensor, event: Event) -> Mixture:
    """The exact law of X_t for data ~ mixture, over the flattened state: a mixture of
    N( Phi m_k, Phi S_k Phi^T + Sigma(t) ). ``event`` is the data event."""
    t = as_time(t).reshape(())
    state = process.event(event)
    d = mixture.means.shape[1]
    basis = torch.eye(d, dtype=torch.float64).reshape(d, *event)
    lift = process.embed(basis).reshape(d, -1).T
    carry = process.Phi(t, torch.zeros_like(t)).dense(state)[0] @ lift
    covs = carry @ mixture.covs @ carry.T + process.Sigma(t).dense(state)[0]
    return Mixture(mixture.weights, mixture.means @ carry.T, covs)


def data_law(process: Process, mixture: Mixture, t: float | Tensor, event: Event) -> Mixture:
    """The exact law of the data part of X_t (the position of a CLD state, say)."""
    law = state_law(process, mixture, t, event)
    D = law.means.shape[1]
    basis = torch.eye(D, dtype=torch.float64).reshape(D, *process.event(event))
    take = process.project(basis).reshape(D, -1).T
    return Mixture(law.weights, law.means @ take.T, take @ law.covs @ take.T)

"""What is sampled from: a data law, and the Gaussian mixture, whose every marginal is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from labcore.linop import Event
from labcore.processes import Process, as_time


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(m_k, S_k) in float64: weights (K,), means (K, d), covs (K, d, d)."""

    weights: Tensor
    means: Tensor
    covs: Tensor

    @cached_property
    def _chol(self) -> Tensor:
        return torch.linalg.cholesky(self.covs)

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k N(x; m_k, S_k) for every sample and component, (B, K); x is (B, d)."""
        delta = x.to(self.means)[None] - self.means[:, None]
        white = torch.linalg.solve_triangular(self._chol, delta.mT, upper=False)
        half_logdet = self._chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        d = self.means.shape[1]
        constant = self.weights.log() - half_logdet - d / 2 * math.log(2 * math.pi)
        return (constant[:, None] - white.square().sum(1) / 2).T

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of x (B, d), (B,), float64."""
        return self.log_joint(x).logsumexp(1)

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


def from_mixture(
    mixture: Mixture, event: Event | None = None, image: tuple[int, ...] | None = None
) -> Target:
    """The target whose law is ``mixture``, on events of shape ``event`` (default (d,))."""
    event = event or (mixture.means.shape[1],)

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

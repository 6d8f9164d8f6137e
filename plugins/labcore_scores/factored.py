"""Mixture scores under processes that share no frame over t: C_k is factorised at each t."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labcore import Diag, Mixture, Process, ScoreError
from labcore_scores.components import SMALL, Rows, components, in_rows

Event = tuple[int, ...]
LawAt = Callable[[Process, Mixture, Event, Tensor], tuple[Tensor, Tensor]]


def diag_law(process: Process, law: Mixture, event: Event, t: Tensor) -> tuple[Tensor, Tensor]:
    """Means (n, K, d) and covariances (n, K, d, d) of X_t, for t (n,) and a diagonal process."""
    full = Diag(torch.ones(1, *event, dtype=torch.float64))
    phi = (process.Phi(t, torch.zeros_like(t)) @ full).param.flatten(1)[:, None]
    noise = (process.Sigma(t) @ full).param.flatten(1)
    covs = phi[..., :, None] * law.covs * phi[..., None, :]
    return phi * law.means, covs + torch.diag_embed(noise)[:, None]


def dense_law(process: Process, law: Mixture, event: Event, t: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a process of any structure, over its state: (n, K, D) and (n, K, D, D)."""
    state, d = process.event(event), law.means.shape[1]
    embed = process.embed(torch.eye(d, dtype=torch.float64).reshape(d, *event)).reshape(d, -1)
    carry = (process.Phi(t, torch.zeros_like(t)).dense(state) @ embed.mT)[:, None]
    covs = carry @ law.covs @ carry.mT + process.Sigma(t).dense(state)[:, None]
    return (carry @ law.means[:, :, None]).squeeze(-1), covs


def factored(
    process: Process, law: Mixture, event: Event, law_at: LawAt
) -> Callable[[Tensor, Tensor], Tensor]:
    """(x (B, D), t () or (B,)) -> score, by one Cholesky factor a component and time."""
    K, log_w = len(law.weights), law.weights.log()

    def factor(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means, covs = law_at(process, law, event, t)
        L, info = torch.linalg.cholesky_ex(covs)
        if bool(info.any()):
            raise ScoreError(
                f"score 'exact': a covariance of the law at t={float(t.min()):.4g} is not "
                "positive definite; keep t above t_eps, or check the process"
            )
        return means, L, log_w - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def shared(like: Tensor, t: Tensor) -> Rows:
        means, L, c = (p[0] for p in factor(t.reshape(1)))
        eye = torch.eye(L.shape[-1], dtype=L.dtype).expand_as(L)
        W = torch.linalg.solve_triangular(L, eye, upper=False)
        return components(W, means, c, L.square().sum(-1).amax(), like)

    def score(x: Tensor, t: Tensor) -> Tensor:
        D = x.shape[1]
        if t.ndim == 0:
            return in_rows(shared(x, t), 2 * K if D <= SMALL else K * D, x)
        return in_rows(lambda part, s: _mixed(*factor(s), part), 4 * K * D * D, x, t)

    return score


def _mixed(means: Tensor, L: Tensor, c: Tensor, x: Tensor) -> Tensor:
    """Score at x (n, D) where row i has components means (n, K, D), L (n, K, D, D), c (n, K)."""
    delta = (x[:, None].to(L) - means)[..., None]
    y = torch.linalg.solve_triangular(L, delta, upper=False)
    r = torch.softmax(c - 0.5 * y.square().sum((-1, -2)), 1)
    pull = torch.linalg.solve_triangular(L.mT, r[..., None, None] * y, upper=True)
    return -pull.sum(1).squeeze(-1).to(x)

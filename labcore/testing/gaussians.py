"""Gaussian laws at full precision: the exact score of Gaussian data, Bures distance and KL."""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.linop import Event
from labcore.processes import Process
from labcore.scores import Score
from labcore.targets import Mixture


def gaussian(mean: Tensor, cov: Tensor) -> Mixture:
    """N(mean, cov) in float64, as a mixture of one component."""
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(one, mean.double()[None], cov.double()[None])


def gaussian_score(
    process: Process, data: Mixture, event: Event, times: Tensor | None = None
) -> Score:
    """Exact score for data ~ N(m, S) of one component: -C_t^-1 (x - m_t), as mixture_score."""
    return mixture_score(process, data, event, times)


def mixture_score(
    process: Process, data: Mixture, event: Event, times: Tensor | None = None
) -> Score:
    """Exact score of a mixture, - sum_k r_k C_k^-1 (x - m_k), with dense linear algebra.

    An oracle for any process, not a fast score. What a time needs is made when it is first asked;
    that of ``times`` at once.
    """
    known: dict[float, tuple[Tensor, Tensor, Tensor]] = {}
    state = process.event(event)
    d = data.means.shape[1]
    lift = process.embed(torch.eye(d, dtype=torch.float64).reshape(d, *event)).reshape(d, -1).T

    def learn(t: Tensor) -> None:
        carry = process.Phi(t, torch.zeros_like(t)).dense(state) @ lift
        carry = carry.expand(len(t), *carry.shape[1:])
        covs = carry[:, None] @ data.covs @ carry[:, None].mT
        covs = covs + process.Sigma(t).dense(state)[:, None]
        P, half = torch.linalg.inv(covs), torch.linalg.slogdet(covs)[1] / 2
        means = data.means @ carry.mT
        for i, time in enumerate(t.tolist()):
            known[time] = means[i][:, None], P[i], (data.weights.log() - half[i])[:, None]

    def score(x: Tensor, t: Tensor) -> Tensor:
        if t.ndim:
            return torch.cat([score(row, time) for row, time in zip(x.split(1), t, strict=True)])
        time = float(t)
        if time not in known:
            learn(torch.tensor([time], dtype=torch.float64))
        m, P, c = (v.to(x) for v in known[time])
        delta = x.flatten(1) - m
        pull = delta @ P
        if len(pull) == 1:
            return -pull[0].reshape(x.shape)
        r = (c - (delta * pull).sum(-1) / 2).softmax(0)
        return -(r[..., None] * pull).sum(0).reshape(x.shape)

    if times is not None:
        learn(times)
    return score


def _root(C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w, V = torch.linalg.eigh(C)
    return w.clamp_min(0).sqrt(), V, (V * w.clamp_min(0).sqrt()) @ V.T


def bures(m1: Tensor, C1: Tensor, m2: Tensor, C2: Tensor) -> float:
    """W2 between N(m1, C1) and N(m2, C2), C2 positive definite, without cancellation.

    With R = (C2^1/2 C1 C2^1/2)^1/2, D = R - C2 solves R D + D C2 = C2^1/2 (C1 - C2) C2^1/2, and
    W2^2 = |m1 - m2|^2 + |D C2^-1/2|_F^2; the textbook trace formula stops at 1e-8.
    """
    w2, V2, root = _root(C2)
    F = root @ (C1 - C2) @ root
    wr, Vr, _ = _root(root @ C1 @ root)
    D = Vr @ ((Vr.T @ F @ V2) / (wr[:, None] + w2.square()[None])) @ V2.T
    shape = (D @ V2 / w2).square().sum()
    return float(((m1 - m2).square().sum() + shape).sqrt())


def kl(m1: Tensor, C1: Tensor, m2: Tensor, C2: Tensor) -> float:
    """KL( N(m1, C1) || N(m2, C2) ) in nats; infinite where C1 is singular."""
    L = torch.linalg.cholesky(C2)
    white = torch.linalg.solve_triangular(L, C1 - C2, upper=False)
    E = torch.linalg.solve_triangular(L, white.T, upper=False)
    excess = torch.linalg.eigvalsh((E + E.T) / 2).clamp_min(-1)
    shift = torch.linalg.solve_triangular(L, (m1 - m2)[:, None], upper=False).square().sum()
    return float(0.5 * ((excess - torch.log1p(excess)).sum() + shift))

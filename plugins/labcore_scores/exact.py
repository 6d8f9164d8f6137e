"""The exact score of a Gaussian mixture under any linear process.

X_t is a mixture of N(Phi m_k, C_k), C_k = Phi S_k Phi^T + Sigma(t). What the structure of the
process lets one share over all t decides the work left at each:

    scalar         C_k = a^2 S_k + s I: one eigenbasis of S_k serves every t
    channel        the same, after a change of channels in which only the first carries data
    diag, dense    C_k is factorised, once for each distinct t
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import labcore
from labcore import LabError, Mat, Mixture, Process, Score, ScoreWith, Target
from labcore_scores.density import log_prob_of_mixture, reverse_of_mixture
from labcore_scores.factored import dense_law, diag_law, factored
from labcore_scores.isotropic import isotropic
from labcore_scores.times import Flat, by_time

Event = tuple[int, ...]


@labcore.score(needs=("mixture",), gives=("log_p_t", "reverse"), cite="closed form")
def exact(process: Process, target: Target) -> Score:
    """Exact score of a Gaussian mixture target, for any linear process and any t.

    grad log p_t(x) = - sum_k r_k(x) C_k^-1 (x - Phi m_k), C_k = Phi S_k Phi^T + Sigma(t), with
    r_k(x) the posterior weight of component k. t is 0-d or (B,). Coefficients are computed in
    float64, products in the dtype of x.
    """
    if target.mixture is None:
        raise LabError(
            "score 'exact': the target is not a Gaussian mixture; use 'empirical' for a data set"
        )
    event = process.event(target.event)
    parts = (target.mixture.weights, target.mixture.means, target.mixture.covs)
    with torch.inference_mode(False):
        law = Mixture(*(p.to("cpu", torch.float64) for p in parts))
        at = _UNDER[process.structure](process, law, target.event)

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        return by_time(at, x.flatten(1), t).reshape(len(x), *event)

    return ScoreWith(
        score,
        log_prob=log_prob_of_mixture(process, law, target.event),
        reverse=reverse_of_mixture(process, law, target.event),
    )


def _scalar(process: Process, law: Mixture, event: Event) -> Flat:
    score = isotropic(law)
    return lambda x, t: score(x, process.Phi(t, torch.zeros_like(t)).param, process.Sigma(t).param)


def _channel(process: Process, law: Mixture, event: Event) -> Flat:
    """With R Sigma R^T = I and R phi = a e_1, where phi is what the data's channel is carried by,
    R x has independent channels: a X_0 + Z in the first, noise alone in the others."""
    m, d = process.channels, law.means.shape[1]
    if process.Sigma(torch.tensor(process.T, dtype=torch.float64)).param.ndim > 3:
        return factored(process, law, event, dense_law)  # a block of its own for each coordinate
    first, eye = isotropic(law), Mat(torch.eye(m, dtype=torch.float64)[None])

    def score(x: Tensor, t: Tensor) -> Tensor:
        phi = (process.Phi(t, torch.zeros_like(t)) @ eye).param[..., :1]
        a, R = _separate(phi, (process.Sigma(t) @ eye).chol.inv.param)
        y = Mat(R) @ x.view(len(x), m, d)
        one = torch.ones((), dtype=torch.float64)
        data = first(y[:, 0], a.reshape(t.shape), one.expand(t.shape))
        return (Mat(R).T @ torch.cat([data[:, None], -y[:, 1:]], 1)).flatten(1)

    return score


def _separate(phi: Tensor, whiten: Tensor) -> tuple[Tensor, Tensor]:
    """a (u,) and R = H whiten (u, m, m), H the reflection that takes whiten phi to a e_1."""
    u = (whiten @ phi).squeeze(-1)
    a = -torch.copysign(u.norm(dim=-1), u[:, 0])
    v = u.clone()
    v[:, 0] -= a
    v = v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    return a, whiten - 2 * v[:, :, None] * (v[:, None, :] @ whiten)


_UNDER: dict[str, Callable[[Process, Mixture, Event], Flat]] = {
    "scalar": _scalar,
    "channel": _channel,
    "diag": partial(factored, law_at=diag_law),
    "dense": partial(factored, law_at=dense_law),
}

"""What is known of p_t beside its score: its log-density, and the exact way back in time.

Both in float64 and by the law of the whole state, once for each distinct time. For component k,
with N(m_s, C_s) its law at s < t, Phi = Phi(t,s), Q = Sigma(t|s) and K = C_s Phi^T C_t^-1,

    X_s | X_t = x, k  ~  N( m_s + K (x - m_t), L (I + M^T Q^-1 M)^-1 L^T ),  L L^T = C_s, M = Phi L

and k given x has the probabilities of the components of p_t at x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

from labcore import Mixture, Process, Reverse, Score, Target, state_law

_ROWS = 2**22  # numbers in a block of rows: 32 MB

Event = tuple[int, ...]


def _each_time(at: Callable[[Tensor, Tensor], Tensor]) -> Score:
    """at(x, t) for x in float64 on the CPU and 0-d t, made to take any x and a t of each row."""

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        y = x.to(t)
        if t.ndim == 0:
            return at(y, t).to(x.device)
        out = t.new_empty(len(y))
        for time in t.unique():
            out[t == time] = at(y[t == time], time)
        return out.to(x.device)

    return log_prob


def laws_of(process: Process, law: Mixture, event: Event) -> Callable[[float], Mixture]:
    """t -> the law of X_t over the flattened state; the last few are kept."""

    @lru_cache(maxsize=8)
    def at(t: float) -> Mixture:
        with torch.inference_mode(False):
            return state_law(process, law, t, event)

    return at


def log_prob_of_mixture(process: Process, law: Mixture, event: Event) -> Score:
    """(x, t) -> log p_t(x), (B,) float64, normalised, for data ~ law."""
    laws = laws_of(process, law, event)
    return _each_time(lambda x, t: laws(float(t)).log_prob(x.flatten(1)))


def reverse_of_mixture(process: Process, law: Mixture, event: Event) -> Reverse:
    """A draw of X_s | X_t for data ~ law; exact for steps of any size."""
    laws = laws_of(process, law, event)
    state = process.event(event)

    @lru_cache(maxsize=2)
    def kernel(t: float, s: float) -> tuple[Tensor, Tensor]:
        """K and the Cholesky factor of the covariance of every component, (K, D, D)."""
        with torch.inference_mode(False):
            Phi, Q = (op.dense(state)[0] for op in process.transition(t, s))
            L = torch.linalg.cholesky(laws(s).covs)
            M = Phi @ L
            gain = torch.linalg.solve(laws(t).covs, M @ L.mT).mT
            inner = torch.eye(len(Q), dtype=Q.dtype) + M.mT @ torch.linalg.solve(Q, M)
            R = torch.linalg.cholesky(inner)  # L R^-T is a factor of L (R R^T)^-1 L^T
            spread = torch.linalg.solve_triangular(R, L.mT, upper=False).mT
            return gain, spread

    def reverse(x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        before, after = laws(float(s)), laws(float(t))
        K, L = kernel(float(t), float(s))
        flat, w = (v.flatten(1).to(K) for v in (x, z))
        share = after.log_joint(flat).softmax(1).cumsum(1)
        chosen = (u.to(K)[:, None] > share[:, :-1]).sum(1)
        out = torch.empty_like(flat)
        for k in chosen.unique().tolist():
            rows = chosen == k
            mean = before.means[k] + (flat[rows] - after.means[k]) @ K[k].T
            out[rows] = mean + w[rows] @ L[k].T
        return out.reshape(x.shape).to(x)

    return reverse


def log_prob_of_data(process: Process, target: Target) -> Score:
    """(x, t) -> log p_t(x) for the empirical law of target.data, (B,) float64, normalised.

    With y = L^-1 x and y_i = L^-1 Phi x_i, L L^T = Sigma(t): the mean of N(y; y_i, I) / |L|.
    """
    state = process.event(target.event)
    D = math.prod(state)

    @cache
    def data() -> Tensor:  # a second copy of the data set, made where a sampler asks for it
        assert target.data is not None
        with torch.inference_mode(False):
            return process.embed(target.data.to("cpu", torch.float64))

    def at(x: Tensor, t: Tensor) -> Tensor:
        Sigma = process.Sigma(t)
        white = Sigma.chol.inv
        points = (white @ (process.Phi(t, torch.zeros_like(t)) @ data())).flatten(1)
        y = (white @ x.reshape(-1, *state)).flatten(1)
        rows = max(1, _ROWS // len(points))
        squares = (torch.cdist(part, points).square() for part in y.split(rows))
        logs = torch.cat([(-square / 2).logsumexp(1) for square in squares])
        constant = math.log(len(points)) + D / 2 * math.log(2 * math.pi)
        return logs - constant - Sigma.logdet(state).reshape(()) / 2

    return _each_time(at)

"""DDIM(eta): the clean point held fixed over a step, with a share eta of the posterior's noise.

Write y = x_t - Phi(t,0) x0 = -Sigma(t) g for the noisy part at Tweedie's x0. With C the posterior
covariance of X_s | X_t, x0 the step keeps the law N( Phi(s,0) x0, Sigma(s) ) exactly:

    x_s = Phi(s,0) x0 + M y + eta chol(C) z,    M Sigma(t) M^T + eta^2 C = Sigma(s)

For eta = 0, M = Psi(s,t), the exact flow of y with x0 frozen: sqrt(Sigma(s)/Sigma(t)) where the
operators commute, gDDIM's R_s R_t^-1 otherwise. For eta > 0, M = L sqrt(I - eta^2 L^-1 C L^-T)
L^-1 Psi with L L^T = Sigma(s): the symmetric root makes the drift that of the reverse SDE.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

import labcore
from labcore import LinOp, Noise, Process, Scalar, Score
from labcore_samplers.affine import affine_steps
from labcore_samplers.ancestral import posterior_roots
from labcore_samplers.exponential_flow import frozen_flow
from labcore_samplers.kicked import Factors, kicked_steps

Share = Annotated[float, Field(ge=0, le=1)]
"""Of the posterior's standard deviation; beyond 1 a long step has no room for its noise."""


@labcore.sampler(
    order=1,
    evals=1,
    stochastic=False,
    cite="Song, Meng, Ermon (2021) arXiv:2010.02502, eq. 12 and 16; gDDIM arXiv:2206.05564",
)
def ddim(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, eta: Share = 0.0
) -> Iterator[Tensor]:
    """DDIM: deterministic at eta=0, DDPM's ancestral step at eta=1 (scalar and diagonal)."""
    P, Q, R = factors(process, ts, eta)
    if R is None:
        return affine_steps(score, x, ts, P, Q)
    return kicked_steps(score, x, ts, noise, P, Q, R)


def factors(process: Process, ts: Tensor, eta: float = 0.0) -> Factors:
    """What multiplies x_t, the score and, for eta > 0, z."""
    t, s, R = ts[:-1], ts[1:], None
    Phi = process.Phi(t, s)
    back, M = Phi.inv, frozen_flow(process, ts)(s, t)
    if eta:
        L, G = posterior_roots(process, s, Phi, process.Q(t, s))
        M, R = leave_room(L, eta**2 * G) @ M, eta * (L @ G.chol)
    return back, (back - M) @ process.Sigma(t), R


def leave_room(L: LinOp, white: LinOp) -> LinOp:
    """S = L sqrt(I - W) L^-1, which takes L L^T to S L L^T S^T = L L^T - L W L^T."""
    one = Scalar(white.param.new_ones(len(white.param)))
    return L @ (one - 0.5 * (white + white.T)).sqrt @ L.inv

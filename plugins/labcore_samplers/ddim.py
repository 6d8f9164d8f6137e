"""DDIM(eta): the clean point held fixed over a step, with a share eta of the posterior's noise.

Write y = x_t - Phi(t,0) x0 = -Sigma(t) g for the noisy part at Tweedie's x0. With C the posterior
covariance of X_s | X_t, x0 the step keeps the law N( Phi(s,0) x0, Sigma(s) ) exactly:

    x_s = Phi(s,0) x0 + M y + eta chol(C) z,    M Sigma(t) M^T + eta^2 C = Sigma(s)

For eta = 0, M = Psi(s,t), the exact flow of y with x0 frozen: sqrt(Sigma(s)/Sigma(t)) where the
operators commute, gDDIM's R_s R_t^-1 otherwise. For eta > 0, M = L sqrt(I - eta^2 L^-1 C L^-T)
L^-1 Psi with L L^T = Sigma(s): the symmetric root makes the drift that of the reverse SDE.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

import labcore
from labcore import LinOp, Noise, Process, Scalar, Score


@labcore.sampler(
    order=1,
    evals=1,
    stochastic=False,
    cite="Song, Meng, Ermon (2021) arXiv:2010.02502, eq. 12 and 16; gDDIM arXiv:2206.05564",
)
def ddim(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, eta: float = 0.0
) -> Iterator[Tensor]:
    """DDIM: deterministic at eta=0, DDPM's ancestral step at eta=1 (scalar and diagonal)."""
    t, s = ts[:-1], ts[1:]
    C = process.posterior(s, t)[1]
    back = process.transition(t, s)[0].inv
    M = noisy_part(process, s, t, C, eta)
    keep = back.per_step(x)
    pull = ((back - M) @ process.Sigma(t)).per_step(x)
    kick = (eta * C.chol).per_step(x)
    for t, s, P, Q, R in zip(ts[:-1], ts[1:], keep, pull, kick, strict=True):
        x = Q.accumulate(P @ x, score(x, t))
        if eta:
            x = R.accumulate(x, noise(t, s))
        yield x


def noisy_part(process: Process, s: Tensor, t: Tensor, C: LinOp, eta: float) -> LinOp:
    """M(s,t), which carries the noisy part y from t to s and leaves room for eta^2 C."""
    Psi = process.Psi(s, t)
    if not eta:
        return Psi
    L = process.Sigma(s).chol
    white = L.inv @ C @ L.inv.T
    shrink = (Scalar(torch.ones_like(t)) - eta**2 * (0.5 * (white + white.T))).sqrt
    return L @ shrink @ L.inv @ Psi

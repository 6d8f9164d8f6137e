"""The law of a X_0 + sqrt(s) Z for a Gaussian mixture X_0 and Z ~ N(0, I), at any a and s.

S_k = V_k diag(lam_k) V_k^T is diagonalised once; C_k = V_k (a^2 lam_k + s) V_k^T then costs no
factorisation, whatever a and s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from labcore import Mixture
from labcore_scores.components import SMALL, Rows, components, in_rows, whitened

Isotropic = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, d), a, s) -> score (B, d), for float64 a and s of shape () or (B,)."""


def isotropic(law: Mixture) -> Isotropic:
    """The exact score of a X_0 + sqrt(s) Z, X_0 ~ law."""
    K, d = law.means.shape
    width = 2 * K if d <= SMALL else K * d
    lam, V = torch.linalg.eigh(law.covs)
    basis, log_w = V.mT.contiguous(), law.weights.log()
    centre = (basis @ law.means[:, :, None]).squeeze(-1)

    @lru_cache(maxsize=4)
    def fixed(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        parts = (basis.view(K * d, d), centre.view(K * d, 1), lam.view(K * d, 1), log_w[:, None])
        with torch.inference_mode(False):
            return tuple(p.to(device, dtype) for p in parts)

    def shared(like: Tensor, a: Tensor, s: Tensor) -> Rows:
        scale = (a * a * lam + s).rsqrt()
        c = log_w + scale.log().sum(1)
        if d <= SMALL:
            widest = a * a * lam.amax() + s
            return components(scale[:, :, None] * basis, a * law.means, c, widest, like)
        W = fixed(like.dtype, like.device)[0] * scale.view(K * d, 1).to(like)
        shift = (a * scale * centre).view(K * d, 1)
        return partial(whitened, W, shift.to(like), c[:, None].to(like))

    def score(x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        if a.ndim == 0 and s.ndim == 0:
            return in_rows(shared(x, a, s), width, x)
        per_row = (p.expand(len(x)).to(x) for p in (a, s))
        return in_rows(partial(_mixed, *fixed(x.dtype, x.device)), K * d, x, *per_row)

    return score


def _mixed(
    basis: Tensor, centre: Tensor, lam: Tensor, log_w: Tensor, x: Tensor, a: Tensor, s: Tensor
) -> Tensor:
    """Score at x (b, d), with a and s (b,) of each row; K d numbers are along the first axis."""
    K, d = len(log_w), x.shape[1]
    y = torch.addcmul(basis @ x.mT, centre, a, value=-1)
    variance = torch.addcmul(s, lam, a * a)
    pull = y / variance
    log_joint = log_w - 0.5 * torch.addcmul(variance.log(), y, pull).view(K, d, -1).sum(1)
    r = torch.softmax(log_joint, 0)
    return -((pull.view(K, d, -1) * r[:, None]).view(K * d, -1).mT @ basis)

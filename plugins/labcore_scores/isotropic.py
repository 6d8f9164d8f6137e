"""The law of a X_0 + sqrt(s) Z for a Gaussian mixture X_0 and Z ~ N(0, I), at any a and s.

S_k = V_k diag(lam_k) V_k^T is diagonalised once; C_k = V_k (a^2 lam_k + s) V_k^T then costs no
factorisation, whatever a and s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from labcore import Mixture
from labcore_scores.components import SMALL, Rows, components, in_rows, whitened

Isotropic = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, d), a, s) -> score (B, d), for float64 a and s of shape () or (B,)."""


class Frame(NamedTuple):
    """The S_k with the eigenvectors of all of them stacked, (K d, d); None where they are axes."""

    basis: Tensor | None
    centre: Tensor  # (K d, 1), the m_k in these axes
    lam: Tensor  # (K d, 1)
    log_w: Tensor  # (K, 1)


def isotropic(law: Mixture) -> Isotropic:
    """The exact score of a X_0 + sqrt(s) Z, X_0 ~ law."""
    K, d = law.means.shape
    width = 2 * K if d <= SMALL else K * d
    lam, basis = _eigen(law.covs)
    axes = torch.eye(d, dtype=torch.float64).expand(K, d, d) if basis is None else basis
    centre = (axes @ law.means[:, :, None]).squeeze(-1)
    log_w = law.weights.log()

    @lru_cache(maxsize=4)
    def fixed(dtype: torch.dtype, device: torch.device) -> Frame:
        columns = (centre.view(K * d, 1), lam.reshape(K * d, 1), log_w[:, None])
        with torch.inference_mode(False):
            stacked = None if basis is None else basis.view(K * d, d).to(device, dtype)
            return Frame(stacked, *(p.to(device, dtype) for p in columns))

    def shared(like: Tensor, a: Tensor, s: Tensor) -> Rows:
        scale = (a * a * lam + s).rsqrt()
        c = log_w + scale.log().sum(1)
        if d <= SMALL:
            widest = a * a * lam.amax() + s
            return components(scale[:, :, None] * axes, a * law.means, c, widest, like)
        frame = fixed(like.dtype, like.device)
        if frame.basis is None:
            return partial(_mixed, frame, a=a.to(like), s=s.to(like))
        W = frame.basis * scale.view(K * d, 1).to(like)
        shift = (a * scale * centre).view(K * d, 1)
        return partial(whitened, W, shift.to(like), c[:, None].to(like))

    def score(x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        if a.ndim == 0 and s.ndim == 0:
            return in_rows(shared(x, a, s), width, x)
        per_row = (p.expand(len(x)).to(x) for p in (a, s))
        return in_rows(partial(_mixed, fixed(x.dtype, x.device)), K * d, x, *per_row)

    return score


def _eigen(covs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K, d) and eigenvectors as rows (K, d, d); None where they are the axes."""
    diagonal = covs.diagonal(dim1=-2, dim2=-1)
    if torch.equal(covs, torch.diag_embed(diagonal)):
        return diagonal, None
    lam, V = torch.linalg.eigh(covs)
    return lam, V.mT.contiguous()


def _mixed(frame: Frame, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """Score at x (b, d), with a and s of each row (b,), or of all (); K d numbers come first."""
    basis, centre, lam, log_w = frame
    K, d = len(log_w), x.shape[1]
    y = x.mT.repeat(K, 1) if basis is None else basis @ x.mT
    y = torch.addcmul(y, centre, a, value=-1)
    variance = torch.addcmul(s, lam, a * a)
    pull = y / variance
    square = torch.addcmul(variance.log(), y, pull).view(K, d, len(x)).sum(1)
    r = torch.softmax(torch.add(log_w, square, alpha=-0.5), 0)
    pull = pull.view(K, d, len(x)) * r[:, None]
    return -(pull.sum(0).mT if basis is None else pull.view(K * d, len(x)).mT @ basis)

"""Roots and inverses of batches of small symmetric matrices, semi-definite ones included.

``torch.linalg`` refuses a singular covariance such as diag(0, v), which a state with a noiseless
channel has at t = 0; these take it, and refuse what is negative by more than rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.errors import InvalidProcess


def not_psd(lowest: float) -> InvalidProcess:
    return InvalidProcess(
        f"covariance: its lowest eigenvalue is {lowest:.3g}, it must be positive semi-definite; "
        "check the process with labcore.testing.check_process, and keep times above t_eps"
    )


def root(v: Tensor) -> Tensor:
    """sqrt(v), elementwise; InvalidProcess where v is negative."""
    if bool((v < 0).any()):
        raise not_psd(float(v.min()))
    return v.sqrt()


def clipped(w: Tensor) -> Tensor:
    """Eigenvalues with those that are negative by rounding alone set to zero."""
    slack = 1e3 * torch.finfo(w.dtype).eps * w.abs().amax(-1, keepdim=True)
    return torch.where(w.abs() <= slack, w.clamp_min(0), w)


def _inverse_2x2(M: Tensor) -> Tensor:
    a, b, c, d = M[..., 0, 0], M[..., 0, 1], M[..., 1, 0], M[..., 1, 1]
    adjugate = torch.stack([d, -b, -c, a], -1).reshape(M.shape)
    return adjugate / (a * d - b * c)[..., None, None]


def _cholesky_2x2(M: Tensor) -> Tensor:
    """Closed form for 2 x 2, which also takes semi-definite matrices such as diag(0, v)."""
    a, b, d = M[..., 0, 0], M[..., 1, 0], M[..., 1, 1]
    L11 = root(a)
    L21 = torch.where(L11 > 0, b / L11.clamp_min(torch.finfo(M.dtype).tiny), torch.zeros_like(b))
    schur = torch.where(L11 > 0, d - L21 * L21, torch.where(b == 0, d, -b.abs()))
    slack = 8 * torch.finfo(M.dtype).eps * d.abs()
    L22 = root(torch.where(schur.abs() <= slack, schur.clamp_min(0), schur))
    return torch.stack([L11, torch.zeros_like(b), L21, L22], -1).reshape(M.shape)


def _cholesky(M: Tensor) -> Tensor:
    L, info = torch.linalg.cholesky_ex(M)
    if not bool(info.any()):
        return L
    # Semi-definite: V sqrt(w) is a factor, and QR of its transpose makes it lower triangular.
    w, V = torch.linalg.eigh(M)
    R = torch.linalg.qr((V * root(clipped(w)).unsqueeze(-2)).mT)[1]
    sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(M)
    return (R * sign.unsqueeze(-1)).mT


def inverse(M: Tensor) -> Tensor:
    """M^-1 of (.., m, m); infinities where M is singular."""
    return _inverse_2x2(M) if M.shape[-1] == 2 else torch.linalg.inv_ex(M)[0]


def cholesky(M: Tensor) -> Tensor:
    """Lower triangular L, L L^T = M, of (.., m, m); InvalidProcess where M is not PSD."""
    return _cholesky_2x2(M) if M.shape[-1] == 2 else _cholesky(M)


def symmetric_root(M: Tensor) -> Tensor:
    """Symmetric R, R R = M, of (.., m, m); InvalidProcess where M is not PSD."""
    w, V = torch.linalg.eigh(M)
    return (V * root(clipped(w)).unsqueeze(-2)) @ V.mT

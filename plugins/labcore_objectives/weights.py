"""What the squared error of eps counts for at each time.

With r = eps(x_t, t) - z and SNR = exp(log_snr):

    sigma2      |r|^2                          the noise-weighted loss
    likelihood  |G^T L^-T r|^2                 |G^T (s - grad log p(x_t | x_0))|^2: a bound on the
                                               likelihood (Song et al. 2021b, arXiv:2101.09258)
    edm         (1 + 1/(SNR d^2)) |r|^2        Karras et al. (2022), d the data's deviation
    min_snr     min(1, gamma/SNR) |r|^2        Hang et al. (2023) arXiv:2303.09556, gamma = 5

For a scalar process the last two are lambda(sigma) |D - x0|^2 with sigma^2 = 1/SNR: x0 is off by
sigma r.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from labcore import At, Process, Scalar

GAMMA = 5.0

Residual = Callable[[Process, Tensor, At, Tensor, float], Tensor]
"""(process, t, operators at t, r, data_std) -> the weighted square, (B,)."""


def _square(r: Tensor) -> Tensor:
    return r.square().flatten(1).sum(1)


def _sigma2(process: Process, t: Tensor, at: At, r: Tensor, data_std: float) -> Tensor:
    return _square(r)


def _likelihood(process: Process, t: Tensor, at: At, r: Tensor, data_std: float) -> Tensor:
    G = process.G(t).map(lambda p: p.to(r))
    return _square(G.T @ (at.L_inv.T @ r))


def _edm(process: Process, t: Tensor, at: At, r: Tensor, data_std: float) -> Tensor:
    return (1 + torch.exp(-at.log_snr) / data_std**2).to(r) * _square(r)


def _min_snr(process: Process, t: Tensor, at: At, r: Tensor, data_std: float) -> Tensor:
    return (GAMMA * torch.exp(-at.log_snr)).clamp_max(1).to(r) * _square(r)


WEIGHTS: Mapping[str, Residual] = MappingProxyType(
    {"sigma2": _sigma2, "likelihood": _likelihood, "edm": _edm, "min_snr": _min_snr}
)


def mean_weight(process: Process, name: str) -> Callable[[Tensor], Tensor]:
    """t (n,) -> the weight of a unit error, averaged over coordinates: where to look most."""
    event = process.event(process.event_shape or (1,))
    D = max(torch.Size(event).numel(), 1)

    def weight(t: Tensor) -> Tensor:
        if name == "likelihood":
            M = process.G(t).T @ process.Sigma(t).chol.inv.T
            return ((M.T @ M).trace(event) / D).expand(len(t))
        unit, each = Scalar(torch.ones(1)), torch.ones(len(t), *event, dtype=torch.float64)
        at = At(unit, unit, unit, process.log_snr(t))
        return WEIGHTS[name](process, t, at, each, 1.0) / D

    return weight

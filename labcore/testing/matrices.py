"""Operators of a process as plain matrices, and how far two families of them differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.errors import InvalidProcess
from labcore.linop import Event
from labcore.processes import Process

DIFFERENCES = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


@dataclass(frozen=True)
class Case:
    """A process on data of one shape; operators as matrices (n, D, D) of its state."""

    process: Process
    data_event: Event
    event: Event
    times: Tensor

    def A(self, t: Tensor) -> Tensor:
        return self.process.A(t).dense(self.event)

    def GG(self, t: Tensor) -> Tensor:
        return self.process.GG(t).dense(self.event)

    def Phi(self, t: Tensor, s: Tensor) -> Tensor:
        return self.process.Phi(t, s).dense(self.event)

    def Sigma(self, t: Tensor) -> Tensor:
        return self.process.Sigma(t).dense(self.event)

    def Q(self, t: Tensor, s: Tensor) -> Tensor:
        return self.process.Q(t, s).dense(self.event)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """(t, s), t > s: neighbours of ``times``, close pairs, and the widest."""
        t = self.times
        close = t[1:] * (1 - 1e-3)
        return torch.cat([t[1:], t[1:], t[-1:]]), torch.cat([t[:-1], close, t[:1]])


def spread(process: Process, n: int) -> Tensor:
    """n times from t_eps to T, equally spaced in log t, both ends exact."""
    low, high = math.log(process.t_eps), math.log(process.T)
    times = torch.linspace(low, high, n, dtype=torch.float64).exp()
    times[0], times[-1] = process.t_eps, process.T
    return times


def broken(prop: str, detail: str, remedy: str) -> InvalidProcess:
    """The error ``process: prop: detail; remedy``."""
    return InvalidProcess(f"process: {prop}: {detail}; {remedy}")


def agree(prop: str, error: Tensor, tol: float, at: dict[str, Tensor], remedy: str) -> None:
    """Raise unless error (n, D, D), already relative, is within ``tol`` everywhere."""
    worst = torch.nan_to_num(error.abs(), nan=torch.inf).flatten(1).amax(1)
    i = int(worst.argmax())
    if worst[i] > tol:
        where = ", ".join(f"{name}={float(t.expand(len(worst))[i]):.4g}" for name, t in at.items())
        raise broken(prop, f"fails by {float(worst[i]):.2g} (relative) at {where}", remedy)


def size(M: Tensor) -> Tensor:
    """Largest entry of every matrix, (n, 1, 1)."""
    return M.abs().flatten(1).amax(1)[:, None, None]


def whiten(error: Tensor, cov: Tensor) -> Tensor:
    """error_ij / sqrt(cov_ii cov_jj): small variances count as much as large ones."""
    deviation = cov.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    return error / (deviation[:, :, None] * deviation[:, None, :]).clamp_min(1e-300)


def slope(f: Callable[[Tensor], Tensor], t: Tensor, h: Tensor) -> Tensor:
    """df/dt by central differences of eighth order."""
    total = sum(c * (f(t + k * h) - f(t - k * h)) for k, c in enumerate(DIFFERENCES, start=1))
    return torch.as_tensor(total) / h[:, None, None]


def least_error(
    case: Case,
    f: Callable[[Tensor], Tensor],
    rate: Tensor,
    scale: Tensor,
    t: Tensor,
    steps: Sequence[float] = (3e-2, 1e-2, 2e-3),
) -> Tensor:
    """(df/dt - rate)/scale at the best of several steps: no one step suits every process."""
    fastest = torch.linalg.matrix_norm(case.A(t)).clamp_min(1e-300)
    widest = torch.stack([t, case.process.T - t, 1 / fastest]).amin(0)
    errors = torch.stack([((slope(f, t, h * widest) - rate) / scale).abs() for h in steps])
    return errors.flatten(2).amax(2).amin(0)[:, None, None]


def interior(case: Case) -> Tensor:
    """Times strictly inside (0, T)."""
    return torch.cat([case.times[:-1], case.process.T * torch.tensor([0.5, 0.9]).double()])

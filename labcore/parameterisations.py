"""What a network's output means: five readings of one number a coordinate, in operator form.

With Phi = Phi(t,0), L L^T = Sigma(t), data of standard deviation d embedded by E, and the network
F fed with R^-1 x, R = sqrt(diag P), P = d^2 Phi E E^T Phi^T + Sigma (unit variance in):

    eps     eps = F
    score   s = F                               eps = -L^T F
    x0      x0 = F                              eps = L^-1 (x - Phi F)
    v       v = Phi eps - L x0 = F              eps = (Phi + L Phi^-1 L)^-1 (F + L Phi^-1 x)
    edm     x0 = K x + c F                      eps = L^-1 (x - Phi x0)

edm: K = d^2 E E^T Phi^T P^-1 and c c^T = d^2 E E^T - K Phi d^2 E E^T, the posterior mean and
covariance of x0 for Gaussian data: c_skip and c_out of Karras et al. (2022), table 1, which they
are for a scalar process. Each reading has its inverse, which training targets and tests use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from labcore.linop import Diag, LinOp, Mat, Scalar
from labcore.processes import Process

MATRIX = 2
"""The rank of an operator whose parameters end in two matrix axes."""


@dataclass(frozen=True, eq=False)
class At:
    """The operators of a process at some times, each worked out when it is asked for.

    Built from Phi(t,0), L, the covariance of the embedded data and log SNR(t) in float64, where
    inverses keep their digits; the operators that the properties hand out are in ``dtype``.
    """

    exact_Phi: LinOp
    exact_L: LinOp
    data: LinOp
    log_snr: Tensor
    dtype: torch.dtype = torch.float32

    def _cast(self, op: LinOp) -> LinOp:
        cast: LinOp = op.map(lambda p: _kept(p, self.dtype))
        return cast

    @cached_property
    def Phi(self) -> LinOp:
        """Phi(t,0)."""
        return self._cast(self.exact_Phi)

    @cached_property
    def Phi_inv(self) -> LinOp:
        """Phi(t,0)^-1."""
        return self._cast(self.exact_Phi.inv)

    @cached_property
    def L(self) -> LinOp:
        """L, L L^T = Sigma(t)."""
        return self._cast(self.exact_L)

    @cached_property
    def L_inv(self) -> LinOp:
        """L^-1."""
        return self._cast(self.exact_L.inv)

    @cached_property
    def unmix(self) -> LinOp:
        """(Phi + L Phi^-1 L)^-1, which takes v + L Phi^-1 x to eps."""
        Phi, L = self.exact_Phi, self.exact_L
        return self._cast((Phi + L @ Phi.inv @ L).inv)

    @cached_property
    def _P(self) -> LinOp:
        """Covariance of x_t for data N(0, data_std^2 I)."""
        Phi, L = self.exact_Phi, self.exact_L
        return Phi @ self.data @ Phi.T + L @ L.T

    @cached_property
    def _gain(self) -> LinOp:
        return self.data @ self.exact_Phi.T @ self._P.inv

    @cached_property
    def K(self) -> LinOp:
        """E[x0 | x_t] = K x_t for data N(0, data_std^2 I)."""
        return self._cast(self._gain)

    @cached_property
    def c(self) -> LinOp:
        """Cholesky factor of Cov[x0 | x_t] for that data, by Joseph's form: nothing cancels."""
        one, noise = Scalar(self._gain.param.new_ones(1)), self._gain @ self.exact_L
        rest = one - self._gain @ self.exact_Phi
        return self._cast((rest @ self.data @ rest.T + noise @ noise.T).chol)

    @cached_property
    def deviation(self) -> LinOp:
        """Cholesky factor of P."""
        return self._cast(self._P.chol)

    @cached_property
    def size(self) -> Tensor:
        """sigma_max, the largest deviation sqrt(Sigma_ii) among the coordinates, (b,)."""
        rows = self.exact_L.param.abs()
        if self.exact_L.rank == MATRIX:
            rows = torch.linalg.vector_norm(rows, dim=-1)
        largest = rows.reshape(rows.shape[:1].numel(), -1).amax(1)
        return _kept(largest, self.dtype)

    @cached_property
    def whiten(self) -> LinOp:
        """R^-1 = diag(P)^-1/2; of P the diagonal alone is worked out."""
        data, Phi = self.data, self.exact_Phi
        if data.rank == MATRIX:  # d^2 E E^T, a projection: one matrix for all other coordinates
            variance = _row_squares(Phi @ data.map(torch.sqrt)) + _row_squares(self.exact_L)
            return self._cast(variance.map(torch.rsqrt).lift(data))
        return self._cast((data @ _row_squares(Phi) + _row_squares(self.exact_L)).map(torch.rsqrt))


def _kept(p: Tensor, dtype: torch.dtype) -> Tensor:
    """p for keeping: what is made in inference mode cannot enter a graph later."""
    with torch.inference_mode(False):
        return (p.clone() if p.is_inference() else p).to(dtype)


def data_covariance(process: Process, data_std: float) -> LinOp:
    """data_std^2 E E^T on the state: zero on added channels."""
    variance = torch.tensor([data_std**2], dtype=torch.float64)
    if process.structure != "channel":
        return Scalar(variance)
    first = torch.eye(process.channels, dtype=torch.float64)[:1]
    return Mat((first.mT @ first)[None] * variance)


def _row_squares(M: LinOp) -> LinOp:
    """diag(M M^T), one factor a coordinate."""
    if M.rank < MATRIX:
        return M.map(torch.square)
    return Diag(torch.linalg.vector_norm(M.param, dim=-1).square().movedim(-1, 1))


Reading = Callable[[Tensor, Tensor, At], Tensor]


@dataclass(frozen=True)
class Parameterisation:
    """``eps(F, x, at)`` reads the network's output; ``output(eps, x, at)`` is its inverse."""

    eps: Reading
    output: Reading


def _eps_of_x0(x0: Tensor, x: Tensor, at: At) -> Tensor:
    return at.L_inv @ (x - at.Phi @ x0)


def _x0_of_eps(eps: Tensor, x: Tensor, at: At) -> Tensor:
    return at.Phi_inv @ (x - at.L @ eps)


def _eps_of_v(F: Tensor, x: Tensor, at: At) -> Tensor:
    return at.unmix @ (F + at.L @ (at.Phi_inv @ x))


PARAMETERISATIONS: Mapping[str, Parameterisation] = MappingProxyType(
    {
        "eps": Parameterisation(lambda F, x, at: F, lambda eps, x, at: eps),
        "score": Parameterisation(
            lambda F, x, at: -(at.L.T @ F), lambda eps, x, at: -(at.L_inv.T @ eps)
        ),
        "x0": Parameterisation(_eps_of_x0, _x0_of_eps),
        "v": Parameterisation(
            _eps_of_v, lambda eps, x, at: at.Phi @ eps - at.L @ _x0_of_eps(eps, x, at)
        ),
        "edm": Parameterisation(
            lambda F, x, at: _eps_of_x0(at.K @ x + at.c @ F, x, at),
            lambda eps, x, at: at.c.inv @ (_x0_of_eps(eps, x, at) - at.K @ x),
        ),
    }
)
"""By name. The output of edm under added channels is not determined by eps: c is singular."""

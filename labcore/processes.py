"""Linear forward processes and all that follows from them.

    dX = A(t) X dt + G(t) dW on [0, T],    X(0) ~ data
    X_t | X_s ~ N( Phi(t,s) X_s , Q(t,s) ),   Sigma(t) = Q(t,0) + Phi(t,0) Sigma(0) Phi(t,0)^T

A process is four functions of float64 times that return operators; times have shape () or (n,) and
the operators then carry the batch axis () or (n,). Everything else is derived here, once, for
scalar, per-coordinate, block and dense processes alike.
Sources: Song et al. (2021) arXiv:2011.13456; Sarkka & Solin (2019), chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from labcore.errors import InvalidProcess
from labcore.linop import Event, LinOp, Scalar

TimeOp = Callable[[Tensor], LinOp]
TwoTimeOp = Callable[[Tensor, Tensor], LinOp]
Structure = Literal["scalar", "diag", "channel", "dense"]


def as_time(t: float | Tensor) -> Tensor:
    """t as a float64 tensor; the device stays."""
    return torch.as_tensor(t, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Process:
    """A linear SDE, given by A, G, Phi and Sigma.

    T is the time of pure noise and t_eps > 0 the default last time of a grid, below which Sigma
    is too close to singular. ``structure`` says what the operators are made of: one number
    ("scalar"), one a coordinate ("diag"), an m x m block on an added channel axis ("channel",
    m = ``channels``) or a d x d matrix ("dense"). ``event_shape`` is the data event the process
    is bound to, or None for any. ``closed_Q`` is Sigma(t|s), t > s, in closed form; without it Q
    subtracts Sigma(t) - Phi Sigma(s) Phi^T, which loses digits as s nears t.
    """

    A: TimeOp
    G: TimeOp
    Phi: TwoTimeOp
    Sigma: TimeOp
    T: float
    t_eps: float
    structure: Structure = "scalar"
    event_shape: Event | None = None
    closed_Q: TwoTimeOp | None = None
    channels: int = 1

    def event(self, data_event: Event) -> Event:
        """The event shape of the state that carries data of shape ``data_event``."""
        bound = self.event_shape
        if bound is not None and tuple(data_event) != bound:
            raise InvalidProcess(
                f"process: it is made for data of shape {bound}, the target has "
                f"{tuple(data_event)}; build the process with the target's dimension"
            )
        added = (self.channels,) if self.structure == "channel" else ()
        return (*added, *data_event)

    def embed(self, x0: Tensor) -> Tensor:
        """Data (B, *data_event) as a state: added channels are zero on average."""
        if self.structure != "channel":
            return x0
        zeros = [torch.zeros_like(x0)] * (self.channels - 1)
        return torch.stack([x0, *zeros], 1)

    def project(self, x: Tensor) -> Tensor:
        """The data in a state (B, *event)."""
        return x[:, 0] if self.structure == "channel" else x

    def Q(self, t: float | Tensor, s: float | Tensor) -> LinOp:
        """Sigma(t|s), the covariance of X_t given X_s, t > s."""
        t, s = as_time(t), as_time(s)
        if self.closed_Q is not None:
            return self.closed_Q(t, s)
        Phi = self.Phi(t, s)
        return self.Sigma(t) - Phi @ self.Sigma(s) @ Phi.T

    def transition(self, t: float | Tensor, s: float | Tensor) -> tuple[LinOp, LinOp]:
        """Phi(t,s) and Sigma(t|s) of X_t | X_s, for t > s."""
        return self.Phi(as_time(t), as_time(s)), self.Q(t, s)

    def GG(self, t: float | Tensor) -> LinOp:
        """G(t) G(t)^T."""
        G = self.G(as_time(t))
        return G @ G.T

    def mean(self, x0: Tensor, t: float | Tensor) -> Tensor:
        """E[X_t | data x0] = Phi(t,0) embed(x0)."""
        t = as_time(t)
        return self.Phi(t, torch.zeros_like(t)) @ self.embed(x0)

    def perturb(self, x0: Tensor, t: float | Tensor, z: Tensor) -> Tensor:
        """x_t = Phi(t,0) x0 + L z, L L^T = Sigma(t), for z ~ N(0, I) of the state's shape."""
        return self.mean(x0, t) + self.Sigma(as_time(t)).chol @ z

    def prior(self) -> LinOp:
        """Covariance of the zero-mean Gaussian that sampling starts from, Sigma(T)."""
        return self.Sigma(as_time(self.T))

    def posterior(self, s: float | Tensor, t: float | Tensor) -> tuple[LinOp, LinOp]:
        """K and C of X_s | X_t, x0 = N( Phi(s,0) x0 + K (X_t - Phi(t,0) x0), C ), s < t.

        K = Sigma(s) Phi(t,s)^T Sigma(t)^-1 and C = Sigma(s) - K Phi(t,s) Sigma(s), computed as
        L (I + M^T Q^-1 M)^-1 L^T with L L^T = Sigma(s), M = Phi L, Q = Sigma(t|s): nothing is
        subtracted, so C keeps its digits as s nears t and stays positive for distant times.
        """
        s, t = as_time(s), as_time(t)
        Phi, Q = self.transition(t, s)
        before = self.Sigma(s)
        K = before @ Phi.T @ self.Sigma(t).inv
        L = before.chol
        M = Phi @ L
        gain = Scalar(torch.ones_like(s)) + M.T @ Q.inv @ M
        C = L @ gain.inv @ L.T
        return K, 0.5 * (C + C.T)

    def tweedie(self, x: Tensor, t: float | Tensor, score: Tensor) -> Tensor:
        """E[x0 | x_t] as a state: Phi(t,0)^-1 (x_t + Sigma(t) score). (Robbins 1956)"""
        t = as_time(t)
        return self.Phi(t, torch.zeros_like(t)).inv @ (x + self.Sigma(t) @ score)

    def extrapolate(self, x: Tensor, t: float | Tensor, score: Tensor) -> Tensor:
        """One step of the PF-ODE from t to 0, exact for a score that stays as it is at t.

        In y = Phi(t,0)^-1 x, dy/dt = -Phi^-1 G G^T Phi^-T s_y / 2 with s_y = Phi^T score held:
        x_0 = Phi(t,0)^-1 (x + Sigma(t|0) score / 2). Its error is O(Sigma^2) where the density of
        the data is smooth; Tweedie, with the whole of Sigma, moves twice as far to a conditional
        mean, whose law is narrower than the data's.
        """
        t = as_time(t)
        Phi, Q = self.transition(t, torch.zeros_like(t))
        return Phi.inv @ (x + 0.5 * (Q @ score))

    def log_snr(self, t: float | Tensor) -> Tensor:
        """Mean over the state's D coordinates of log SNR, (n,): strictly decreasing in t.

        (2 log|det Phi(t,0)| - log det Sigma(t)) / D; its slope is -tr(Sigma^-1 G G^T) / D.
        """
        t = as_time(t)
        event = self.event(self.event_shape or (1,))
        D = max(torch.Size(event).numel(), 1)
        Phi = self.Phi(t, torch.zeros_like(t))
        return ((2 * Phi.logdet(event) - self.Sigma(t).logdet(event)) / D).reshape(t.shape)

    def Psi(self, s: float | Tensor, t: float | Tensor) -> LinOp:
        """Carries y = x - Phi x0 from t to s along the PF-ODE with the clean point x0 frozen.

        dPsi/ds = (A + G G^T Sigma^-1 / 2) Psi, Psi(t,t) = I; sqrt(Sigma(s)/Sigma(t)) where the
        operators commute, R_s R_t^-1 of gDDIM (arXiv:2206.05564) in general, by torchdiffeq.
        """
        s, t = as_time(s), as_time(t)
        if self.structure in ("scalar", "diag"):
            return self.Sigma(s).chol @ self.Sigma(t).chol.inv
        return _frozen_flow(self, s, t)


def _frozen_flow(process: Process, s: Tensor, t: Tensor) -> LinOp:
    """Psi(s,t) for all pairs at once, integrated over theta in log time u = t (s/t)^theta."""
    from torchdiffeq import odeint

    s, t = torch.broadcast_tensors(s, t)
    log_ratio = (s / t).log()
    shape = process.Sigma(t).param
    eye = torch.eye(shape.shape[-1], dtype=torch.float64, device=t.device).expand_as(shape)

    def flow(theta: Tensor, Psi: Tensor) -> Tensor:
        u = t * torch.exp(theta * log_ratio)
        field = process.A(u) + 0.5 * (process.GG(u) @ process.Sigma(u).inv)
        rate = (u * log_ratio).reshape(-1, *[1] * (shape.ndim - 1))
        return rate * (field.lift(process.Sigma(u)).param @ Psi)

    theta = torch.tensor([0.0, 1.0], dtype=torch.float64, device=t.device)
    # A step must end at theta = 1: beyond it u may leave (0, T], and to interpolate costs digits.
    path = odeint(
        flow,
        eye.clone(),
        theta,
        method="dopri8",
        rtol=1e-11,
        atol=1e-12,
        options={"step_t": theta[1:]},
    )
    return process.Sigma(t).map(lambda _: path[-1])

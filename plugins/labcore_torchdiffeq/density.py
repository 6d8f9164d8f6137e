"""The flow of a state and of its log-density, as torchdiffeq's solvers integrate it.

Along dx/dt = A x - G G^T s/2 the density obeys d/dt log p_t(x_t) = -tr A + tr(G G^T grad s)/2.
All of it that is linear is taken out in closed form. With x = Phi(t,0) M(t) w, where
M^2 = d^2 + Phi^-1 Sigma Phi^-T is the variance of Phi^-1 x for data N(0, d^2 I) (a number, or one
a coordinate; of a matrix the mean over coordinates), and R = M^-2 Phi^-1 G G^T Phi^-T / 2 the rate
at which log M grows (likewise),

    dw/dt = -M^-1 Phi^-1 G G^T s / 2 - R w
    log p_e(x) = log p_T(x_T) + [ log|det Phi M| ]_e^T - int_e^T tr(G G^T grad s)/2 + tr R dt

which a solver integrates in u = log t: for data N(0, d^2 I) under a scalar process w stands still
and the integrand is zero. (Song et al. 2021, arXiv:2011.13456, appendix D.2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torchdiffeq._impl.odeint import SOLVERS

import labcore
from labcore import LinOp, Mat, Process, Scalar, Score

ROWS = 2**13
"""Rows of the score evaluated at once, copies of the batch included."""


def directions(x: Tensor, probes: int, generator: Generator | None) -> Tensor:
    """What gradients are taken along, (K, b, *event): the basis, or signs of each sample."""
    if not probes:
        D = x[0].numel()
        return torch.eye(D, dtype=x.dtype, device=x.device).reshape(D, 1, *x.shape[1:])
    bits = torch.randint(2, (probes, *x.shape), generator=generator)
    return (2 * bits - 1).to(x)


class Flow:
    """The equations of the module for a batch x and times [e, T]."""

    def __init__(
        self, process: Process, score: Score, x: Tensor, e: float, along: Tensor, apart: bool
    ) -> None:
        self._process, self._score, self._x, self._along = process, score, x, along
        self._ends = torch.tensor([e, process.T], dtype=torch.float64)
        self._apart = apart  # whether the directions' traces are kept apart
        start = process.Phi(self._ends[0], torch.zeros(())).inv @ x.double()
        self._data = start.square().mean().clamp_min(1e-12)
        self.nfe = 0
        self._most = 0

    def _scale(self, t: Tensor) -> tuple[LinOp, LinOp, LinOp]:
        """Phi, M and R at t."""
        process, event = self._process, self._x.shape[1:]
        Phi = process.Phi(t, torch.zeros_like(t))
        back = Phi.inv
        noise = _commuting(back @ process.Sigma(t) @ back.T, event)
        rate = _commuting(back @ process.GG(t) @ back.T, event)
        P = Scalar(self._data.reshape(1)) + noise
        return Phi, P.chol, 0.5 * (P.inv @ rate)

    def _state(self, w: Tensor, t: Tensor) -> Tensor:
        Phi, M, _ = self._scale(t)
        return Phi @ (M @ w)

    def __call__(self, u: Tensor, z: Tensor) -> Tensor:
        """d/du of (w, log-density so far), (B, D + K), u = log t."""
        if self.nfe >= self._most:
            raise _failed(
                f"all {self._most} evaluations are used up at t={float(u.exp()):.4g}; loosen rtol "
                "and atol, or raise max_nfe"
            )
        self.nfe += 1
        t = u.double().exp().clamp(*self._ends)
        event, D = self._x.shape[1:], self._x[0].numel()
        w = z[:, :D].reshape(-1, *event)
        Phi, M, rate = self._scale(t)
        GG = self._process.GG(t)
        s, trace = self.divergence(Phi @ (M @ w), t, GG)
        pull = M.inv @ (Phi.inv @ (GG @ s))
        dw = -0.5 * pull - rate @ w
        dl = -0.5 * trace - rate.trace(event)
        out: Tensor = t * torch.cat([dw.flatten(1), dl.T], 1)
        return out

    def divergence(self, x: Tensor, t: Tensor, op: LinOp) -> tuple[Tensor, Tensor]:
        """s(x, t) and tr(op grad s), (1, B), or (K, B) over probes, in float64."""
        B, traces = len(x), []
        s = x
        for along in self._along.split(max(1, ROWS // B)):
            copies = len(along)
            v = along.expand(copies, *x.shape).flatten(0, 1)
            y = x.to(self._x).repeat(copies, *[1] * (x.ndim - 1)).requires_grad_(True)
            with torch.enable_grad():
                out = self._score(y, t)
                if not out.requires_grad:
                    raise _failed(
                        "the score has no gradient with respect to x; compute it by torch "
                        "operations, outside no_grad"
                    )
                (g,) = torch.autograd.grad((out * (op.T @ v)).sum(), y)
            s = out.detach()[:B].to(x)
            traces.append((g * v).flatten(1).sum(1).reshape(copies, B).to(x))
        trace = torch.cat(traces)
        if not bool(torch.isfinite(trace).all() and torch.isfinite(s).all()):
            raise _failed(
                f"the score or its divergence is NaN or Inf at t={float(t):.4g}; use a larger "
                "t_eps or mend the score"
            )
        return s, trace if self._apart else trace.sum(0, keepdim=True)

    def solve(self, method: str, rtol: float, atol: float, max_nfe: int) -> Tensor:
        """(w, integral) at T, (B, D + K), to these tolerances; the worst sample counts."""
        self._most = self.nfe + max_nfe
        Phi, M, _ = self._scale(self._ends[0])
        w = (M.inv @ (Phi.inv @ self._x.double())).flatten(1)
        columns = len(self._along) if self._apart else 1
        z = torch.cat([w, w.new_zeros(len(w), columns)], 1)
        u = self._ends.log().to(w.device)
        solver = SOLVERS[method](
            func=Solved(self), y0=z, rtol=rtol, atol=atol, norm=_largest, step_t=u[1:]
        )
        solver._before_integrate(u)
        try:
            out: Tensor = solver._advance(u[1])
        except AssertionError as error:
            reason = str(error).split(":")[0].split("\n")[0][:60]
            raise _failed(
                f"{method}: {reason} at t={float(solver.rk_state.t1.exp()):.4g}; loosen rtol and "
                "atol: a score in float32 bears 1e-5"
            ) from error
        return out

    def value(self, z: Tensor, log_p_t: Score | None) -> tuple[Tensor, Tensor]:
        """log-density of each column, (K, B), and x_T."""
        event, D = self._x.shape[1:], self._x[0].numel()
        x_T = self._state(z[:, :D].reshape(-1, *event), self._ends[1])
        logdet = [
            Phi.logdet(event) + M.logdet(event) for Phi, M, _ in map(self._scale, self._ends)
        ]
        T = self._ends[1]
        end = log_p_t(x_T, T).double() if log_p_t else log_prior(self._process, x_T)
        return z[:, D:].T + end + (logdet[1] - logdet[0]), x_T

    def truncation(self) -> Tensor:
        """log p_e(x) - log p_0(x) to first order, (B,): with Q = Sigma(e|0) and Phi = Phi(e,0),

        -log|det Phi| - s.(Phi - I) x + ( tr(Q grad s) + s.Q s ) / 2.
        """
        e, event = self._ends[0], self._x.shape[1:]
        Phi, Q = self._process.transition(e, torch.zeros_like(e))
        x = self._x.double()
        s, trace = self.divergence(x, e, Q)
        moved = (s * (Phi @ x - x)).flatten(1).sum(1)
        spread = trace.mean(0) + (s * (Q @ s)).flatten(1).sum(1)
        return -Phi.logdet(event) - moved + spread / 2


@dataclass(frozen=True)
class Solved:
    """A Flow as torchdiffeq's solvers call it."""

    flow: Flow

    def __call__(self, u: Tensor, z: Tensor, *, perturb: object = None) -> Tensor:
        return self.flow(u, z)

    def callback_step(self, u: Tensor, z: Tensor, h: Tensor) -> None:
        """Solvers report every step; nobody listens."""

    callback_accept_step = callback_reject_step = callback_step


def log_prior(process: Process, x: Tensor) -> Tensor:
    """log N(x; 0, Sigma(T)), (B,) float64."""
    Sigma, event = process.prior(), x.shape[1:]
    white = (Sigma.chol.inv @ x.double()).flatten(1)
    constant = math.log(2 * math.pi) * white.shape[1]
    return -0.5 * (white.square().sum(1) + Sigma.logdet(event) + constant)


def _commuting(op: LinOp, event: tuple[int, ...]) -> LinOp:
    """op, or where it is a matrix the number with its mean over coordinates."""
    if isinstance(op, Mat):
        return Scalar(op.trace(event) / max(math.prod(event), 1))
    return op


def _largest(error: Tensor) -> Tensor:
    """The norm by which steps are judged: that of the worst sample, over its coordinates."""
    return error.square().mean(1).max().sqrt()


def _failed(text: str) -> labcore.MetricError:
    return labcore.MetricError(f"likelihood: {text}")

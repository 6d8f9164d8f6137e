"""log p_t(x) by the probability-flow ODE, with what its error is made of.

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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.special import stdtrit
from torch import Generator, Tensor
from torchdiffeq._impl.odeint import SOLVERS

import labcore
from labcore import LinOp, Mat, Process, Scalar, Score

LOOSER = 100.0
"""How much looser the tolerances of the second solution are."""

CONFIDENCE = 0.99
"""Of the interval that the probes' share of the stated error spans."""

ROWS = 2**13
"""Rows of the score evaluated at once, copies of the batch included."""

ADAPTIVE = ("dopri8", "dopri5", "bosh3")
Start = Literal["prior", "exact"]


@dataclass(frozen=True, eq=False)
class Budget:
    """What the error of a log-likelihood is made of, in nats, (B,) each and never negative.

    ode: the difference to a solution at tolerances LOOSER times as loose, no less than its root
    mean square over the batch. probes: half the CONFIDENCE Student interval of Hutchinson's mean.
    prior: log p_T against the Gaussian prior at x_T, measured where p_T is known; else
    KL + 2 sqrt(2 KL), its mean and two deviations for a small shift, from the bound ``kl``.
    truncation: |log p_e(x) - log p_0(x)| to first order in the noise at t_eps.
    """

    ode: Tensor
    probes: Tensor
    prior: Tensor
    truncation: Tensor

    @property
    def total(self) -> Tensor:
        """The stated error of ``value`` as log p_{t_eps}(x)."""
        return self.ode + self.probes + self.prior

    @property
    def total_at_0(self) -> Tensor:
        """The stated error of ``value`` as log p_0(x).

        The first-order term counts twice: enough while the noise at t_eps is narrow beside the
        data. CLD's is not beside its own velocities; there ``truncation`` is half of the truth.
        """
        return self.total + 2 * self.truncation


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p_{t_eps}(x), (B,) float64, its error ``budget`` and its cost.

    ``variance`` is that of Hutchinson's mean over the probes, (B,); ``kl`` bounds KL(p_T || prior)
    by E |L^-1 Phi x0|^2 / 2 over the batch; ``nfe`` counts calls of the score on the batch.
    """

    value: Tensor
    budget: Budget
    variance: Tensor
    kl: float
    nfe: int


def log_likelihood(
    process: Process,
    score: Score,
    x: Tensor,
    *,
    t_eps: float | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    probes: int = 0,
    generator: Generator | None = None,
    log_p_t: Score | None = None,
    start: Start = "prior",
    method: str = "dopri8",
    max_nfe: int = 5000,
) -> Likelihood:
    """log p_{t_eps}(x) of states x (B, *event) under the flow of ``score``, and its error budget.

    The trace is exact, one gradient a coordinate, or with ``probes`` K >= 2 Hutchinson's over K
    Rademacher vectors a sample from ``generator``, held along the path. ``log_p_t(x, t)``, the
    true normalised log-density where it is known, measures the prior mismatch; start="exact"
    integrates from it instead of from the prior N(0, Sigma(T)), and has none. With the prior the
    value is the density of what sampling from it by the ODE would draw.
    Under added channels it is the density of the state; ``of_data`` makes that of the data of it.
    A score in float32 bears rtol = atol = 1e-5. ``max_nfe`` caps the evaluations of each solution.

    Raises InvalidOption for options that do not fit, MetricError where the score has no gradient,
    is not finite, or asks for too many evaluations.
    """
    _check(process, x, t_eps, probes, generator, log_p_t, start, method)
    with torch.inference_mode(False), torch.no_grad():
        e = process.t_eps if t_eps is None else t_eps
        x = x.detach().clone()
        flow = Flow(process, score, x, e, directions(x, probes, generator), bool(probes))
        tight, rough = (flow.solve(method, rtol * by, atol * by, max_nfe) for by in (1.0, LOOSER))
        value, x_T = flow.value(tight, log_p_t if start == "exact" else None)
        loose, _ = flow.value(rough, log_p_t if start == "exact" else None)
        kl = prior_kl(process, x)
        budget = Budget(
            _guarded((value - loose).mean(0)),
            _half_width(value),
            _prior_error(process, x_T, log_p_t, start, kl),
            _guarded(flow.truncation()),
        )
        variance = value.var(0) / len(value) if probes else torch.zeros_like(value[0])
        return Likelihood(value.mean(0), budget, variance, kl, flow.nfe)


def prior_kl(process: Process, x: Tensor) -> float:
    """E |L^-1 Phi(T,0) x0|^2 / 2 over x as data, L L^T = Sigma(T): a bound of KL(p_T || prior).

    p_T mixes N(Phi x0, Sigma(T)), and the KL divergence is convex.
    """
    T = torch.tensor(process.T, dtype=torch.float64)
    mean = process.mean(process.project(x).double(), T)
    white = process.prior().chol.inv @ mean
    return float(white.square().flatten(1).sum(1).mean() / 2)


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


def _prior_error(
    process: Process, x_T: Tensor, log_p_t: Score | None, start: Start, kl: float
) -> Tensor:
    if start == "exact":
        return x_T.new_zeros(len(x_T))
    if log_p_t is None:
        return x_T.new_full((len(x_T),), kl + 2 * math.sqrt(2 * kl))
    T = torch.tensor(process.T, dtype=torch.float64)
    return (log_p_t(x_T, T).double() - log_prior(process, x_T)).abs()


def _commuting(op: LinOp, event: tuple[int, ...]) -> LinOp:
    """op, or where it is a matrix the number with its mean over coordinates."""
    if isinstance(op, Mat):
        return Scalar(op.trace(event) / max(math.prod(event), 1))
    return op


def _guarded(error: Tensor) -> Tensor:
    """|error|, no less than its root mean square over the batch: one may be small by chance."""
    return error.abs().clamp_min(float(error.square().mean().sqrt()))


def _half_width(values: Tensor) -> Tensor:
    """Half the interval of the mean over the first axis, (B,); 0 for an exact trace."""
    K = len(values)
    if K == 1:
        return torch.zeros_like(values[0])
    quantile = float(stdtrit(K - 1, 0.5 + CONFIDENCE / 2))
    return quantile * values.std(0) / math.sqrt(K)


def _largest(error: Tensor) -> Tensor:
    """The norm by which steps are judged: that of the worst sample, over its coordinates."""
    return error.square().mean(1).max().sqrt()


def _failed(text: str) -> labcore.MetricError:
    return labcore.MetricError(f"likelihood: {text}")


def _check(
    process: Process,
    x: Tensor,
    t_eps: float | None,
    probes: int,
    generator: Generator | None,
    log_p_t: Score | None,
    start: str,
    method: str,
) -> None:
    """InvalidOption for what cannot be done."""
    e = process.t_eps if t_eps is None else t_eps
    wrong: list[tuple[Callable[[], bool] | bool, Any]] = [
        (not 0 < e < process.T, f"t_eps={e}, give a time between 0 and T={process.T:g}"),
        (probes < 0 or probes == 1, f"probes={probes}, give 0 (exact trace) or at least 2"),
        (probes > 1 and generator is None, "probes need a generator; pass generator="),
        (
            start == "exact" and log_p_t is None,
            "start='exact' needs the density of p_T; pass log_p_t",
        ),
        (start not in ("prior", "exact"), f"start='{start}', give 'prior' or 'exact'"),
        (method not in ADAPTIVE, f"method='{method}', give one of {', '.join(ADAPTIVE)}"),
        (x.ndim < 2 or not len(x), f"x has shape {tuple(x.shape)}, give (B, *event)"),
        (not bool(torch.isfinite(x).all()), "x is not finite"),
    ]
    for bad, text in wrong:
        if bad:
            raise labcore.InvalidOption(f"likelihood: {text}")

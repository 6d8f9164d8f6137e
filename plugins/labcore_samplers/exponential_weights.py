"""Weights of exponential integrators for any linear process, as integrals of operators.

With lam^2 = eta the noise rate of the reverse SDE, its drift is linear in x and in what a network
knows of the data. One of the two is interpolated through its values f_j at earlier times t_j,
with Lagrange's polynomials l_j in a scalar of time, and all else is exact:

    data    f = x0(x,t) = Phi(t,0)^-1 (x + Sigma g)     the clean point, Tweedie's
            x_s = Psi(s,t) x_t + sum_j W_j f_j
            W_j = -(1+eta)/2 int_t^s Psi(s,u) GG^T(u) Sigma(u)^-1 Phi(u,0) l_j(u) du
    noise   f = g, weighted as eps = -R^T g would be, gDDIM's R_t with R R^T = Sigma
            x_s = Phi(s,t) x_t + sum_j W_j f_j
            W_j = -(1+eta)/2 int_t^s Phi(s,u) GG^T(u) Psi_0(t_j,u)^T l_j(u) du

Psi(s,t) carries x - Phi x0 with x0 frozen (exponential_flow.py); noise is for eta = 0 only. For
scalar processes W_j are the phi-functions of DPM-Solver (noise) and DPM-Solver++ (data), which
exponential_scalar.py computes as such.

The weights of one step add up to what leaves a constant f exact, in closed form: Phi(s,0) -
Psi(s,t) Phi(t,0) for data, (Phi(s,t) - Psi_0(s,t)) Sigma(t) for noise. The others are
Gauss-Legendre sums in log t over panels of at most 0.5 in half log-SNR: no closed form whose
terms cancel for short steps, and nothing that differs between structures.
Sources: Zhang & Chen (2023) arXiv:2204.13902; Zhang, Tao & Chen (2023) arXiv:2206.05564; Lu et al.
(2022) arXiv:2206.00927 and arXiv:2211.01095.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import sub
from typing import Literal

import torch
from torch import Tensor

from labcore import LinOp, Process
from labcore_samplers.exponential_flow import POINTS, gather, quadrature
from labcore_samplers.exponential_flow import Psi as Flow
from labcore_samplers.exponential_scalar import padded, scalar_stage

Form = Literal["data", "noise"]
Rule = Literal["exact", "midpoint", "end"]
Variable = Literal["log_snr", "time", "rho"]

LARGEST = 2**22  # numbers held by one operator on all the points of a block of steps
ROUNDS = 60
CLOSE = 1e-8  # in log t: the next step of Newton's would be the square of this

SCALARS: dict[Variable, Callable[[Process, Tensor], Tensor]] = {
    "log_snr": lambda process, t: process.log_snr(t) / 2,
    "time": lambda process, t: t,
    "rho": lambda process, t: torch.exp(-process.log_snr(t) / 2),
}
"""What interpolates: half log-SNR, t itself, or the ratio of noise to signal."""


def stage(
    process: Process,
    Psi: Flow,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    *,
    form: Form,
    variable: Variable = "log_snr",
    rule: Rule = "exact",
    eta: float = 0.0,
    count: Tensor | None = None,
) -> tuple[LinOp, list[LinOp]]:
    """What multiplies x_t in the steps from t to s, and ``weights``.

    Where ``padded`` some steps may have fewer nodes: ``count`` (n,) says how many, and what stands
    at the others does not matter.
    """
    if padded(process, variable):
        return scalar_stage(process, t, s, nodes, form, variable, rule, eta, count)
    made = weights(process, Psi, t, s, nodes, form=form, variable=variable, rule=rule, eta=eta)
    return keep(process, Psi, t, s, form), made


def weights(
    process: Process,
    Psi: Flow,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    *,
    form: Form,
    variable: Variable = "log_snr",
    rule: Rule = "exact",
    eta: float = 0.0,
) -> list[LinOp]:
    """W_j of the steps from t (n,) to s (n,) for values at the nodes, each (n,): one op a node.

    ``rule`` "exact" integrates the interpolant. Two published shortcuts take it constant over the
    step, at its value halfway in half log-SNR: "midpoint" (DPM-Solver++ 2M, UniPC's B2 = e^h - 1);
    "end" moreover weighs its change by the integrand at s (UniPC's B1 = h).
    """
    if padded(process, variable):
        return scalar_stage(process, t, s, nodes, form, variable, rule, eta)[1]
    size = process.Sigma(t[:1]).param.numel() * POINTS
    block = max(1, LARGEST // size)
    parts = [
        _weights(process, Psi, t[i], s[i], [v[i] for v in nodes], form, variable, rule, eta)
        for i in torch.arange(len(t)).split(block)
    ]
    return [_cat(ops) for ops in zip(*parts, strict=True)]


def _weights(
    process: Process,
    Psi: Flow,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    form: Form,
    variable: Variable,
    rule: Rule,
    eta: float,
) -> list[LinOp]:
    total = whole(process, Psi, t, s, form, eta)
    if rule != "exact":
        ops = _frozen_at_half(process, Psi, t, s, nodes, total, form, rule, eta)
    elif len(nodes) == 1:
        ops = [total]
    else:
        which, u, du = quadrature(process, t, s)
        pull = du * KERNELS[form](process, Psi, t[which], s[which], u, eta)
        at = SCALARS[variable]
        basis = _lagrange([at(process, v)[which] for v in nodes], at(process, u))
        others = [gather(b * pull, which, len(t)) for b in basis[1:]]
        ops = [reduce(sub, others, total), *others]
    if form == "noise":
        ops = [op @ Psi(v, t).T for op, v in zip(ops, nodes, strict=True)]
    return ops


def whole(process: Process, Psi: Flow, t: Tensor, s: Tensor, form: Form, eta: float) -> LinOp:
    """int_t^s of the kernel: what makes the step exact where the value interpolated is constant.

    To rounding, where Phi(t,s)^-1 is large too: there x_t and the weighted value cancel.
    """
    carry = keep(process, Psi, t, s, form)
    if form == "noise":
        return (1 + eta) * ((carry - Psi(s, t)) @ process.Sigma(t))
    zero = torch.zeros_like(t)
    return process.Phi(s, zero) - carry @ process.Phi(t, zero)


def _frozen_at_half(
    process: Process,
    Psi: Flow,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Tensor],
    total: LinOp,
    form: Form,
    rule: Rule,
    eta: float,
) -> list[LinOp]:
    level = SCALARS["log_snr"]
    h = level(process, s) - level(process, t)
    half = _lagrange([level(process, v) for v in nodes], level(process, t) + h / 2)
    if rule == "midpoint":
        return [b * total for b in half]
    end = (h / _rise(process, s)) * KERNELS[form](process, Psi, t, s, s, eta)
    now = torch.zeros(len(nodes), dtype=torch.float64)
    now[0] = 1
    return [a * total + (b - a) * end for a, b in zip(now, half, strict=True)]


def _data_kernel(
    process: Process, Psi: Flow, t: Tensor, s: Tensor, u: Tensor, eta: float
) -> LinOp:
    pull = process.GG(u) @ process.Sigma(u).inv @ process.Phi(u, torch.zeros_like(u))
    return (-(1 + eta) / 2) * (Psi(s, u) @ pull)


def _noise_kernel(
    process: Process, Psi: Flow, t: Tensor, s: Tensor, u: Tensor, eta: float
) -> LinOp:
    pull = process.Phi(u, s).inv @ process.GG(u)
    return (-(1 + eta) / 2) * (pull @ Psi(t, u).T)


KERNELS: dict[Form, Callable[[Process, Flow, Tensor, Tensor, Tensor, float], LinOp]] = {
    "data": _data_kernel,
    "noise": _noise_kernel,
}


def keep(process: Process, Psi: Flow, t: Tensor, s: Tensor, form: Form) -> LinOp:
    """What multiplies x_t in the step from t to s."""
    return process.Phi(t, s).inv if form == "noise" else Psi(s, t)


def between(process: Process, t: Tensor, s: Tensor, share: Tensor | float) -> Tensor:
    """The time in [s, t] whose log-SNR is the given share of the way from that at t to that at s.

    Newton in log t, from the cubic through both ends and their slopes; a step out of the bracket
    is bisected.
    """
    both = torch.cat([t, s])
    (first, last), slopes = (of.view(2, -1) for of in _climb(process, both))
    high, low = both.log().view(2, -1)
    h = last - first
    start, end = h / slopes
    rest = 1 - share
    bend = rest * (start - (low - high)) - share * (end - (low - high))
    v = (rest * high + share * low + share * rest * bend).clamp(low, high)
    wanted = first + share * h
    for _ in range(ROUNDS):
        u = v.exp().clamp(s, t)
        level, slope = _climb(process, u)
        excess = level - wanted
        low, high = torch.where(excess > 0, v, low), torch.where(excess < 0, v, high)
        new = v - excess / slope
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        moved, v = (new - v).abs().max(), new
        if moved < CLOSE:
            break
    return v.exp().clamp(s, t)


def _climb(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """Half log-SNR and its slope in log t, from one Sigma(t)."""
    event = process.event(process.event_shape or (1,))
    D = torch.Size(event).numel()
    Phi, Sigma = process.Phi(t, torch.zeros_like(t)), process.Sigma(t)
    level = (2 * Phi.logdet(event) - Sigma.logdet(event)) / (2 * D)
    return level, t * (Sigma.inv @ process.GG(t)).trace(event) / (-2 * D)


def _rise(process: Process, t: Tensor) -> Tensor:
    """d/dt of half log-SNR, -tr(Sigma^-1 G G^T)/(2 D)."""
    event = process.event(process.event_shape or (1,))
    pull = process.Sigma(t).inv @ process.GG(t)
    return -pull.trace(event) / (2 * torch.Size(event).numel())


def _lagrange(nodes: Sequence[Tensor], v: Tensor) -> list[Tensor]:
    """l_j(v) = prod_{k != j} (v - v_k)/(v_j - v_k), for nodes and v of one shape."""
    basis = []
    for j, a in enumerate(nodes):
        others = [b for k, b in enumerate(nodes) if k != j]
        factors = [(v - b) / (a - b) for b in others]
        basis.append(torch.stack([torch.ones_like(v), *factors]).prod(0))
    return basis


def _cat(ops: Sequence[LinOp]) -> LinOp:
    return ops[0].map(lambda _: torch.cat([op.param for op in ops]))

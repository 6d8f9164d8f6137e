"""The contract of a process: that its operators are those of one linear SDE.

    labcore.testing.check_process(my_process)

raises InvalidProcess that names the broken property; a plugin's test suite needs nothing else.
Everything is compared in float64 as dense matrices. No check is statistical: where samples are
concerned the noise is replaced by basis vectors, which reads off their exact law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from numpy.polynomial import legendre
from torch import Tensor

from labcore.linop import Event, LinOp
from labcore.processes import Process
from labcore.testing.matrices import (
    Case,
    agree,
    broken,
    interior,
    least_error,
    size,
    spread,
    whiten,
)

EXACT = 1e-9  # closed identities
SLOPES = 1e-6  # differences of eighth order, quadrature and the ODE for Psi
RANKS = {"scalar": 0, "diag": 1, "channel": 2, "dense": 2}


def check_process(process: Process, data_event: Event | None = None) -> None:
    """Check every property of ``process`` on data of shape ``data_event``.

    ``data_event`` defaults to the shape the process is bound to, or (2,). Raises InvalidProcess
    that names the first broken property, the times and by how much it fails.
    """
    bound = tuple(data_event or process.event_shape or (2,))
    if not 0 < process.t_eps < process.T < math.inf:
        raise broken("times", f"t_eps={process.t_eps}, T={process.T}", "they need 0 < t_eps < T")
    times = spread(process, 7)
    case = Case(process, bound, process.event(bound), times)
    for check in CHECKS:
        check(case)


def check_structure(case: Case) -> None:
    """float64, finite, one operator a time, none richer than the declared structure."""
    process, t = case.process, case.times
    if process.structure not in RANKS:
        raise broken("structure", f"'{process.structure}'", f"it must be one of {sorted(RANKS)}")
    zero = torch.zeros_like(t)
    ops: dict[str, Callable[[slice | int], LinOp]] = {
        "A(t)": lambda i: process.A(t[i]),
        "G(t)": lambda i: process.G(t[i]),
        "Phi(t,0)": lambda i: process.Phi(t[i], zero[i]),
        "Sigma(t)": lambda i: process.Sigma(t[i]),
        "Q(t,0)": lambda i: process.Q(t[i], zero[i]),
    }
    for name, op in ops.items():
        every = op(slice(None))
        if every.rank > RANKS[process.structure]:
            raise broken(
                "structure",
                f"{name} is a {type(every).__name__}",
                f"'{process.structure}' it is not",
            )
        if every.param.dtype != torch.float64:
            raise broken("structure", f"{name} is {every.param.dtype}", "compute in float64")
        if not bool(torch.isfinite(every.param).all()):
            raise broken(
                "finite", f"{name} has NaN or Inf in [t_eps, T]", "check its options and T"
            )
        if every.param.shape[0] != len(t):
            raise broken(
                "batch axis",
                f"{name} has {every.param.shape[0]} operators for {len(t)} times",
                "expand it to one a time",
            )
        single = torch.cat([op(i).dense(case.event) for i in range(len(t))])
        error = (every.dense(case.event) - single) / size(single).clamp_min(1e-300)
        agree(f"batch axis of {name}", error, EXACT, {"t": t}, "times () and (n,) must agree")


def check_identity(case: Case) -> None:
    """Phi(t,t) = I, and data survive embed and project."""
    t = case.times
    eye = torch.eye(case.Sigma(t).shape[1], dtype=torch.float64)
    agree("Phi(t,t) = I", case.Phi(t, t) - eye, EXACT, {"t": t}, "Phi starts at the identity")
    x0 = torch.randn(3, *case.data_event, generator=torch.Generator().manual_seed(0))
    if not torch.equal(case.process.project(case.process.embed(x0)), x0):
        raise broken("embed", "project(embed(x0)) is not x0", "project must undo embed")


def check_semigroup(case: Case) -> None:
    """Phi(t,s) Phi(s,r) = Phi(t,r) in both directions of time."""
    t, s, r = case.times[2:], case.times[1:-1], case.times[:-2]
    remedy = "Phi(t,s) must solve dPhi/dt = A(t) Phi"
    for a, b, c in ((t, s, r), (r, t, s)):
        whole = case.Phi(a, c)
        scale = size(case.Phi(a, b)) * size(case.Phi(b, c))
        error = (case.Phi(a, b) @ case.Phi(b, c) - whole) / torch.maximum(scale, size(whole))
        agree("semigroup", error, EXACT, {"t": a, "s": b, "r": c}, remedy)


def check_drift(case: Case) -> None:
    """dPhi/dt = A Phi."""
    t = interior(case)
    A, Phi = case.A(t), case.Phi(t, torch.zeros_like(t))
    scale = (size(A) + 1 / t[:, None, None]) * size(Phi)
    error = least_error(case, lambda u: case.Phi(u, torch.zeros_like(u)), A @ Phi, scale, t)
    agree("dPhi/dt = A Phi", error, SLOPES, {"t": t}, "check the sign and size of A, or Phi")


def check_covariance(case: Case) -> None:
    """Sigma(t) and Sigma(t|s) are symmetric and positive definite; the data start clean."""
    t, s = case.pairs
    for name, cov, at in (
        ("Sigma(t)", case.Sigma(case.times), {"t": case.times}),
        ("Sigma(t|s)", case.Q(t, s), {"t": t, "s": s}),
    ):
        agree(f"{name} symmetric", whiten(cov - cov.mT, cov), EXACT, at, "symmetrise it")
        lowest = torch.linalg.eigvalsh(whiten(cov, cov))[:, 0]
        variance = cov.diagonal(dim1=1, dim2=2).amin(1)
        agree(
            f"{name} positive definite",
            torch.where((lowest > 0) & (variance > 0), 0.0, 1.0)[:, None],
            0.5,
            at,
            "check Sigma, or give closed_Q where a difference loses its digits",
        )
    start = case.process.Sigma(torch.zeros(1, dtype=torch.float64)).dense(case.event)[0]
    basis = torch.eye(len(start), dtype=torch.float64).reshape(-1, *case.event)
    data = case.process.project(basis).flatten(1)
    noise = float((data.T @ start @ data).abs().max())
    final = float(case.Sigma(case.times[-1:]).abs().max())
    if not noise <= 1e-12 * final:
        raise broken(
            "clean start",
            f"Sigma(0) puts a variance of {noise:.3g} on the data",
            "X(0) is the data: subtract Phi(t,0) Sigma(0) Phi(t,0)^T",
        )


def check_composition(case: Case) -> None:
    """Sigma(t) = Phi Sigma(s) Phi^T + Sigma(t|s), and so for Sigma(t|r)."""
    t, s = case.pairs
    for r in (torch.zeros_like(t), s / 2):
        Phi = case.Phi(t, s)
        before = case.Q(s, r) if bool((r > 0).any()) else case.Sigma(s)
        whole = case.Q(t, r) if bool((r > 0).any()) else case.Sigma(t)
        error = whiten(Phi @ before @ Phi.mT + case.Q(t, s) - whole, whole)
        agree(
            "composition Sigma(t|r) = Phi Sigma(s|r) Phi^T + Sigma(t|s)",
            error,
            EXACT,
            {"t": t, "s": s, "r": r},
            "Sigma, Phi and closed_Q are not of one process",
        )


def check_lyapunov(case: Case) -> None:
    """dSigma/dt = A Sigma + Sigma A^T + G G^T."""
    t = interior(case)
    A, Sigma = case.A(t), case.Sigma(t)
    rate = A @ Sigma + Sigma @ A.mT + case.GG(t)
    scale = size(A @ Sigma) + size(case.GG(t)) + size(Sigma) / t[:, None, None]
    error = least_error(case, case.Sigma, rate, scale, t)
    agree("Lyapunov equation of Sigma", error, SLOPES, {"t": t}, "check G, A or Sigma")


def integral(case: Case, t: Tensor, s: Tensor, pieces: int) -> Tensor:
    """int_s^t Phi(t,u) G G^T Phi(t,u)^T du for 0-d t, s: Gauss in equal pieces, (1, D, D)."""
    nodes, weights = (torch.tensor(v, dtype=torch.float64) / 2 for v in legendre.leggauss(16))
    total = torch.zeros(1, dtype=torch.float64)
    rows = max(1, 2**18 // torch.Size(case.event).numel() ** 2)
    left = s + (t - s) * torch.arange(pieces, dtype=torch.float64) / pieces
    u = (left[:, None] + (t - s) / pieces * (nodes + 0.5)).flatten()
    w = (weights * (t - s) / pieces).repeat(pieces)
    for some, weight in zip(u.split(rows), w.split(rows), strict=True):
        Phi = case.Phi(t.expand_as(some), some)
        total = total + torch.einsum("n,nij->ij", weight, Phi @ case.GG(some) @ Phi.mT)
    return total


def check_quadrature(case: Case) -> None:
    """Sigma(t|s) = int_s^t Phi(t,u) G G^T Phi(t,u)^T du."""
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), case.times])
    for s, t in pairwise(ends):
        Q = case.Q(t, s)
        for pieces in (1, 8, 64, 512):
            error = whiten(integral(case, t, s, pieces) - Q, Q)
            if bool((error.abs() <= SLOPES / 10).all()):
                break
        agree(
            "Sigma(t|s) = int Phi G G^T Phi^T",
            error,
            SLOPES,
            {"t": t, "s": s},
            "check G and Sigma",
        )


def check_log_snr(case: Case) -> None:
    """log_snr is finite and strictly decreasing on [t_eps, T]."""
    t = spread(case.process, 200)
    values = case.process.log_snr(t)
    falls = (values.diff() < 0) & torch.isfinite(values[1:])
    if not bool(falls.all()):
        at = float(t[1:][~falls][0])
        raise broken("log_snr", f"it does not decrease near t={at:.4g}", "check Phi and Sigma")


def check_perturb(case: Case) -> None:
    """perturb(x0, t, z) has mean Phi embed(x0) and covariance Sigma, read off basis vectors."""
    t = case.times
    D = torch.Size(case.event).numel()
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(1, *case.data_event, generator=g, dtype=torch.float64)
    z = torch.cat([torch.zeros(1, D), torch.eye(D)]).double().reshape(-1, *case.event)
    x0_rows = x0.expand(D + 1, *case.data_event)
    state = case.process.embed(x0).reshape(D)
    mean = case.Phi(t, torch.zeros_like(t)) @ state
    Sigma = case.Sigma(t)
    laws = torch.stack([case.process.perturb(x0_rows, u, z).reshape(D + 1, D) for u in t])
    factor = laws[:, 1:] - laws[:, :1]
    remedy = "x_t = Phi x0 + L z with L L^T = Sigma"
    error = (laws[:, 0] - mean)[:, None] / size(mean[:, None]).clamp_min(1)
    agree("perturb, mean", error, EXACT, {"t": t}, remedy)
    error = whiten(factor.mT @ factor - Sigma, Sigma)
    agree("perturb, covariance", error, EXACT, {"t": t}, remedy)


def check_posterior(case: Case) -> None:
    """K and C are those of the joint Gaussian of X_s and X_t given x0."""
    t, s = case.pairs
    K_op, C_op = case.process.posterior(s, t)
    K, C = K_op.dense(case.event), C_op.dense(case.event)
    joint, before, now = case.Sigma(s) @ case.Phi(t, s).mT, case.Sigma(s), case.Sigma(t)
    at, remedy = {"t": t, "s": s}, "Sigma, Phi and closed_Q are not of one process"
    unit = torch.maximum(size(joint), size(K) * size(now))
    agree("posterior, K Sigma(t) = Sigma(s) Phi^T", (K @ now - joint) / unit, 1e-8, at, remedy)
    error = whiten(K @ now @ K.mT + C - before, before)
    agree("posterior, K Sigma(t) K^T + C = Sigma(s)", error, 1e-7, at, remedy)


def check_frozen_flow(case: Case) -> None:
    """Psi(s,t) Sigma(t) Psi(s,t)^T = Sigma(s), and dPsi/ds = A + G G^T Sigma^-1 / 2 at s = t."""
    t, s = case.times[1:], case.times[:-1]
    Psi, before = case.process.Psi(s, t).dense(case.event), case.Sigma(s)
    error = whiten(Psi @ case.Sigma(t) @ Psi.mT - before, before)
    remedy = "A and G are not those of Sigma"
    agree("Psi Sigma(t) Psi^T = Sigma(s)", error, SLOPES, {"t": t, "s": s}, remedy)
    t = case.process.T * torch.tensor([0.2, 0.8]).double()
    A, pull = case.A(t), case.GG(t) @ torch.linalg.inv(case.Sigma(t)) / 2
    scale = size(A) + size(pull) + 1 / t[:, None, None]

    def Psi_from_t(u: Tensor) -> Tensor:
        return case.process.Psi(u, t).dense(case.event)

    error = least_error(case, Psi_from_t, A + pull, scale, t, steps=(1e-2,))
    agree("dPsi/ds = A + G G^T Sigma^-1 / 2", error, SLOPES, {"t": t}, remedy)


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_structure,
    check_identity,
    check_semigroup,
    check_drift,
    check_covariance,
    check_composition,
    check_lyapunov,
    check_quadrature,
    check_log_snr,
    check_perturb,
    check_posterior,
    check_frozen_flow,
)

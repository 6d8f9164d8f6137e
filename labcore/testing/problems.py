"""The fixed problems on which samplers are told apart, and a run of one sampler on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from labcore.entry import Entry
from labcore.guards import undisturbed
from labcore.linop import Diag, Scalar
from labcore.noise import brownian, initial
from labcore.processes import Process
from labcore.scores import Score, ScoreWith, counted
from labcore.targets import Mixture, state_law
from labcore.testing.audit import default_data, final
from labcore.testing.models import cld, quadratic, uneven, vp
from labcore.text import reason_of

F64 = torch.float64
ROWS = 4


def exploding() -> Process:
    """Sigma(t) = t^2 on [0.01, 10]."""
    return Process(
        A=lambda t: Scalar(torch.zeros_like(t)),
        G=lambda t: Scalar((2 * t).sqrt()),
        Phi=lambda t, s: Scalar(torch.ones_like(t)),
        Sigma=lambda t: Scalar(t * t),
        closed_Q=lambda t, s: Scalar((t - s) * (t + s)),
        T=10.0,
        t_eps=0.01,
    )


def by_coordinates() -> Process:
    """A rate of its own for each of three coordinates, rising with t."""
    rates = torch.tensor([1.0, 2.0, 4.0], dtype=F64)

    def over(t: Tensor, of: Callable[[Tensor], Tensor]) -> Diag:
        return Diag(of(torch.as_tensor(t).reshape(-1, 1)))

    def B(t: Tensor) -> Tensor:
        return (0.2 * t + t * t) * rates

    def beta(t: Tensor) -> Tensor:
        return (0.2 + 2 * t) * rates

    return Process(
        A=lambda t: over(t, lambda t: -beta(t) / 2),
        G=lambda t: over(t, lambda t: beta(t).sqrt()),
        Phi=lambda t, s: Diag(torch.exp(-(B(_column(t)) - B(_column(s))) / 2)),
        Sigma=lambda t: over(t, lambda t: -torch.expm1(-B(t))),
        closed_Q=lambda t, s: Diag(-torch.expm1(-(B(_column(t)) - B(_column(s))))),
        T=1.5,
        t_eps=5e-3,
        structure="diag",
        event_shape=(3,),
    )


def _column(t: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=F64).reshape(-1, 1)


def three_modes(d: int) -> Mixture:
    """Three Gaussians of different weights and covariances."""
    parts = [default_data(d, seed) for seed in (1, 2, 3)]
    shifts = torch.tensor([[-2.0], [0.0], [1.5]], dtype=F64)
    means = torch.cat([p.means for p in parts]) + shifts
    covs = torch.cat([p.covs for p in parts])
    return Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=F64), means, covs)


@dataclass(frozen=True, eq=False)
class Problem:
    """A process, a grid and data, with the exact score."""

    process: Process
    ts: Tensor
    data: Mixture

    @property
    def data_event(self) -> tuple[int, ...]:
        return (self.data.means.shape[1],)

    @property
    def event(self) -> tuple[int, ...]:
        return tuple(self.process.event(self.data_event))

    def score(self) -> Score:
        """-sum_k r_k(x) C_k^-1 (x - m_k), with its log-density."""
        known: dict[float, tuple[Mixture, Tensor]] = {}

        def law(t: Tensor) -> tuple[Mixture, Tensor]:
            if float(t) not in known:
                made = state_law(self.process, self.data, t, self.data_event)
                known[float(t)] = made, torch.linalg.inv(made.covs)
            return known[float(t)]

        def value(x: Tensor, t: Tensor) -> Tensor:
            if t.ndim:
                rows = zip(x.split(1), t, strict=True)
                return torch.cat([value(row, time) for row, time in rows])
            of, precisions = law(t)
            flat = x.flatten(1).to(of.means)
            shares = of.log_joint(flat).softmax(1)
            pull = torch.einsum("kij,bkj->bki", precisions, of.means - flat[:, None])
            return torch.einsum("bk,bki->bi", shares, pull).reshape(x.shape).to(x)

        def log_prob(x: Tensor, t: Tensor) -> Tensor:
            return law(t)[0].log_prob(x.flatten(1))

        return ScoreWith(value, log_prob)

    def end(self, entry: Entry, options: dict[str, Any], seed: int = 0) -> Tensor:
        """The last state, (ROWS, D), from the x_T of seed 0 with the noise of ``seed``."""
        x = self.process.prior().chol @ initial([0], ROWS, self.event, dtype=F64)
        noise = brownian(self.ts, self.event, [seed], ROWS, dtype=F64)
        score = counted(self.score(), ROWS)
        with torch.inference_mode():
            states = entry(self.process, score, x, self.ts.clone(), noise, **options)
            return final(iter(states), x).flatten(1).clone()


def _made() -> dict[str, Callable[[], Problem]]:
    return {
        "VP, 7 steps, a Gaussian": lambda: _on(vp(), quadratic, 7, default_data(2)),
        "VP, 18 uneven steps, a mixture": lambda: _on(vp(), uneven, 18, three_modes(3)),
        "VP, 60 steps, a mixture": lambda: _on(vp(), quadratic, 60, three_modes(2)),
        "VE, 12 uneven steps, a mixture": lambda: _on(exploding(), uneven, 12, three_modes(2)),
        "by coordinates, 9 uneven steps, a mixture": lambda: _on(
            by_coordinates(), uneven, 9, three_modes(3)
        ),
        "CLD, 9 uneven steps, a mixture": lambda: _on(cld(), uneven, 9, three_modes(2)),
    }


def _on(
    process: Process, grid: Callable[[Process, int], Tensor], n: int, data: Mixture
) -> Problem:
    return Problem(process, grid(process, n), data)


PROBLEMS = MappingProxyType({name: cache(make) for name, make in _made().items()})
"""Problems by name, each made when it is first asked for."""


def ends(
    entry: Entry, options: dict[str, Any]
) -> tuple[dict[str, list[float]], dict[str, str], bool, bool]:
    """Last states by problem, reasons by problem where there are none, whether other noise makes
    another end, and whether a second run does."""
    found: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    noisy = own = False
    for name, problem in PROBLEMS.items():
        try:
            with undisturbed():
                end = problem().end(entry, options)
                if not bool(torch.isfinite(end).all()):
                    raise ArithmeticError("NaN or Inf")
                if not found:
                    torch.rand(())  # where it draws from torch's generator, another draw
                    own = not torch.equal(end, problem().end(entry, options))
                    noisy = not torch.equal(end, problem().end(entry, options, seed=1))
            found[name] = end.flatten().tolist()
        except Exception as error:
            failed[name] = reason_of(error)
    return found, failed, noisy, own

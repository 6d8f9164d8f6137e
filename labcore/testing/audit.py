"""The exact audit: the output law of a fixed-step sampler, with no Monte-Carlo noise.

For Gaussian data the exact score is affine in x, so a fixed-step sampler's output is an affine
function of (x_T, z_1 .. z_M). A noise source that hands batch row j the j-th basis vector reads
that map off in one batched run of 1 + D + M D rows; its push-forward of the start law and N(0, I)
is the output law, whose distance to the truth is then a number, not an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from labcore.errors import SamplerError
from labcore.linop import Event
from labcore.noise import Noise, Recorded, basis, brownian, counting, initial
from labcore.processes import Process
from labcore.scores import Score
from labcore.seeds import generator
from labcore.targets import Mixture, state_law
from labcore.testing.gaussians import bures, gaussian, gaussian_score, kl

Sampler = Callable[..., Iterator[Tensor]]
FEW = 32
"""Steps up to which a run from zero is made too: do the draws depend on the state?"""


@dataclass(frozen=True, eq=False)
class Audit:
    """The output law N(mean, cov) over the flattened state beside the exact one at ts[-1].

    ``draws`` is M, the noise vectors drawn; ``linearity`` the largest relative departure from the
    affine map on random inputs, zero up to rounding for an auditable sampler.
    """

    mean: Tensor
    cov: Tensor
    exact: Mixture
    draws: int
    linearity: float

    @property
    def w2(self) -> float:
        """Wasserstein-2 distance to the exact law."""
        return bures(self.mean, self.cov, self.exact.means[0], self.exact.covs[0])

    @property
    def kl(self) -> float:
        """KL(output || exact), nats."""
        return kl(self.mean, self.cov, self.exact.means[0], self.exact.covs[0])


def final(states: Iterator[Tensor], like: Tensor) -> Tensor:
    """The last state a sampler yields."""
    x = like
    for x in states:  # noqa: B007  (only the last one counts)
        pass
    return x


def audit(
    sampler: Sampler,
    process: Process,
    ts: Tensor,
    data: Mixture,
    *,
    event: Event | None = None,
    start: Mixture | None = None,
    options: dict[str, Any] | None = None,
) -> Audit:
    """The exact output law of ``sampler`` on the grid ``ts`` for data ~ N(m, S).

    ``data`` is a one-component mixture over the flattened ``event`` (default (d,)); ``start`` is
    the law of x_T over the flattened state, by default the exact p_T.
    Raises SamplerError for a sampler that is not affine (adaptive steps, norm-dependent ones).
    """
    event = event or (data.means.shape[1],)
    score = gaussian_score(process, data, event, ts)
    state = process.event(event)
    D = torch.Size(state).numel()

    def go(x: Tensor, noise: Noise) -> Tensor:
        with torch.inference_mode():
            states = sampler(process, score, x.reshape(-1, *state), ts, noise, **(options or {}))
            return final(states, x).flatten(1)

    offset, linear, M, linearity = _map(go, D, state, len(ts) - 1)
    if not linearity < 1e-6:
        raise SamplerError(
            f"audit: the output is not affine in (x_T, z), relative departure {linearity:.2g}; "
            "adaptive and norm-dependent samplers cannot be audited exactly"
        )
    law = start or state_law(process, data, ts[0], event)
    J0, Jz = linear[:D].T, linear[D:].T
    mean = offset + J0 @ law.means[0]
    cov = J0 @ law.covs[0] @ J0.T + Jz @ Jz.T
    return Audit(mean, cov, state_law(process, data, ts[-1], event), M, linearity)


def _map(
    go: Callable[[Tensor, Noise], Tensor], D: int, state: Event, N: int
) -> tuple[Tensor, Tensor, int, float]:
    """The affine map's offset (D,) and linear part (D + M D, D), M, and how far it is from affine.

    The first run has random (x_T, z) of all sizes and counts the draws, the second the basis: the
    departure is that of the first from what the second predicts.
    """
    g = generator("linearity")
    sizes = torch.tensor([0.1, 1.0, 1.0, 10.0, 100.0], dtype=torch.float64)[:, None]
    drawn: list[Tensor] = []

    def give(m: int) -> Tensor:
        if m == len(drawn):
            z = torch.randn(len(sizes), D, generator=g, dtype=torch.float64)
            drawn.append(sizes * z)
        return drawn[m].reshape(-1, *state)

    random = sizes * torch.randn(len(sizes), D, generator=g, dtype=torch.float64)
    got = go(random, Recorded(give))
    M = len(drawn)
    if N <= FEW:
        counter = counting(state)
        go(torch.zeros(1, D, dtype=torch.float64), counter)
        if len(counter.draws) != M:
            return got[0], got, M, math.inf
    x = torch.zeros(1 + D + M * D, D, dtype=torch.float64)
    x[1 : 1 + D] = torch.eye(D, dtype=torch.float64)
    out = go(x, basis(state, M))
    offset, linear = out[0], out[1:] - out[0]
    wanted = offset + torch.cat([random, *drawn], 1) @ linear
    size = (wanted - offset).abs().amax(1).clamp_min(1e-300)
    return offset, linear, M, float(((got - wanted).abs().amax(1) / size).max())


@dataclass(frozen=True)
class Order:
    """A measured order: the slope of log error against log step, and what it was fitted to."""

    slope: float
    steps: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def local(self) -> tuple[float, ...]:
        """The slope between neighbouring step counts."""
        n, e = torch.tensor(self.steps).log(), torch.tensor(self.errors).log()
        return tuple(((e[:-1] - e[1:]) / (n[1:] - n[:-1])).tolist())


def weak_order(
    sampler: Sampler,
    process: Process,
    grid: Callable[[Process, int], Tensor],
    data: Mixture,
    *,
    steps: Sequence[int] = (128, 256, 512),
    event: Event | None = None,
    options: dict[str, Any] | None = None,
) -> Order:
    """Order of the output law: slope of W2 to the exact law over ``steps``, least squares."""
    errors = [
        audit(sampler, process, grid(process, n), data, event=event, options=options).w2
        for n in steps
    ]
    return Order(_slope(steps, errors), tuple(steps), tuple(errors))


def strong_order(
    sampler: Sampler,
    process: Process,
    score: Score,
    grid: Callable[[Process, int], Tensor],
    event: Event,
    *,
    steps: Sequence[int] = (128, 256, 512, 1024),
    n: int = 256,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> Order:
    """Order on one path: slope of the root mean square of x_N - x_{2N}, noise and x_T shared.

    ``event`` is the state's event; the grid of N steps must be every second point of that of 2N.
    """
    x = process.prior().chol @ initial([seed], n, event, dtype=torch.float64)

    def go(N: int) -> Tensor:
        ts = grid(process, N)
        noise = brownian(ts, event, [seed], n, dtype=torch.float64)
        with torch.inference_mode():
            return final(sampler(process, score, x, ts, noise, **(options or {})), x)

    ends = [go(N) for N in (*steps, 2 * steps[-1])]
    errors = [float((a - b).square().mean().sqrt()) for a, b in pairwise(ends)]
    return Order(_slope(steps, errors), tuple(steps), tuple(errors))


def _slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Least-squares order over the points above the rounding floor."""
    kept = [(n, e) for n, e in zip(steps, errors, strict=True) if e > 1e-12]
    if len(kept) < 2:
        raise SamplerError(
            f"order: errors {[f'{e:.1e}' for e in errors]} are at the rounding floor; "
            "use fewer steps"
        )
    n = torch.tensor([n for n, _ in kept], dtype=torch.float64).log()
    e = torch.tensor([e for _, e in kept], dtype=torch.float64).log()
    return float(-((n - n.mean()) * (e - e.mean())).sum() / (n - n.mean()).square().sum())


def default_data(d: int = 2, seed: int = 0) -> Mixture:
    """A Gaussian with a full covariance and a mean, well away from the prior."""
    g = generator("audit data", d, *([seed] if seed else []))
    M = torch.randn(d, d, generator=g, dtype=torch.float64)
    return gaussian(torch.linspace(0.5, 1.0, d), 0.3 * torch.eye(d) + 0.2 * M @ M.T / d)

"""Two-dimensional toys with exact samplers, and exact densities.

rings, moons and swiss_roll are a random point c(u) of a curve plus N(0, std^2 I), so their density
is an integral over u. A quadrature rule (u_j, w_j) with nodes closer than std makes of it the
Gaussian mixture sum_j w_j N(c(u_j), std^2 I), the same within 1e-8 of its peak: so they have an
exact score, too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log, pi
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from scipy.special import roots_legendre
from torch import Generator, Tensor

import labcore
from labcore import InvalidOption, Mixture, Target

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Curve(NamedTuple):
    """Points at(u) (n, 2) for u (n,) uniform on [0, 1], none further apart than speed |du|."""

    at: Callable[[Tensor], Tensor]
    speed: float
    closed: bool = False


@labcore.target(gives=("mixture", "samples", "log_prob"))
def rings(*, count: Count = 3, radius: Positive = 1.0, std: Positive = 0.03) -> Target:
    """Concentric circles, the largest of radius ``radius``, equally likely, blurred by ``std``."""

    def circle(r: float) -> Curve:
        def at(u: Tensor) -> Tensor:
            return r * torch.stack([(2 * pi * u).cos(), (2 * pi * u).sin()], 1)

        return Curve(at, 2 * pi * r, closed=True)

    return _blurred([circle(radius * (i + 1) / count) for i in range(count)], std)


@labcore.target(gives=("mixture", "samples", "log_prob"))
def moons(*, std: Positive = 0.05) -> Target:
    """Two interleaved half circles of radius 1, as in scikit-learn, blurred by ``std``."""

    def upper(u: Tensor) -> Tensor:
        return torch.stack([(pi * u).cos(), (pi * u).sin()], 1)

    def lower(u: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.5], dtype=u.dtype) - upper(u)

    return _blurred([Curve(upper, pi), Curve(lower, pi)], std)


@labcore.target(gives=("mixture", "samples", "log_prob"))
def swiss_roll(*, turns: Positive = 1.0, std: Positive = 0.02) -> Target:
    """The spiral r = angle, from 3 pi/2 on for ``turns`` turns, scaled into the unit disc and
    blurred by ``std``; the angle is uniform."""
    start, sweep = 1.5 * pi, 2 * pi * turns
    end = start + sweep

    def at(u: Tensor) -> Tensor:
        angle = start + sweep * u
        return torch.stack([angle.cos(), angle.sin()], 1) * (angle / end)[:, None]

    return _blurred([Curve(at, sweep * (1 + end**2) ** 0.5 / end)], std)


@labcore.target(gives=("samples", "log_prob"))
def pinwheel(
    *,
    arms: Count = 5,
    radial: Positive = 0.3,
    tangential: Positive = 0.05,
    twist: float = 1.5,
) -> Target:
    """Arms N((1, 0), diag(radial^2, tangential^2)), turned evenly around the origin and twisted by
    ``twist`` radians a unit of radius, which keeps areas: the density is exact."""
    arm_angle = 2 * pi * torch.arange(arms, dtype=torch.float64) / arms
    std = torch.tensor([radial, tangential], dtype=torch.float64)
    centre = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def sample(n: int, generator: Generator) -> Tensor:
        v = centre + std * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        arm = torch.randint(arms, (n,), generator=generator)
        return _turn(v, arm_angle[arm] + twist * v.norm(dim=1)).float()

    def log_prob(x: Tensor) -> Tensor:
        x = x.double()
        angle = arm_angle[:, None] + twist * x.norm(dim=1)
        v = (_turn(x.expand(arms, -1, -1), -angle) - centre) / std
        log_normal = -0.5 * v.square().sum(-1) - std.log().sum() - log(2 * pi)
        return log_normal.logsumexp(0) - log(arms)

    return Target((2,), sample, log_prob)


@labcore.target(gives=("samples", "log_prob"))
def checkerboard(*, cells: Annotated[int, Field(ge=2)] = 4, width: Positive = 1.0) -> Target:
    """Uniform on every other square of a cells x cells board centred at the origin."""
    i, j = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    dark = torch.stack([i, j], -1)[(i + j) % 2 == 0]
    corner = width * (dark - cells / 2)
    height = torch.tensor(-log(len(dark) * width**2), dtype=torch.float64)

    def sample(n: int, generator: Generator) -> Tensor:
        square = torch.randint(len(dark), (n,), generator=generator)
        within = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return (corner[square] + width * within).float()

    def log_prob(x: Tensor) -> Tensor:
        place = (x.double() / width + cells / 2).floor()
        inside = ((place >= 0) & (place < cells)).all(1) & (place.sum(1) % 2 == 0)
        return torch.where(inside, height, -torch.inf)

    return Target((2,), sample, log_prob)


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    """x (.., 2) rotated by angle (..)."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]], -1)


def _blurred(curves: list[Curve], std: float) -> Target:
    """A uniform point of one of ``curves``, equally likely, plus N(0, std^2 I)."""
    rules = [_rule(curve, std) for curve in curves]
    means = torch.cat([curve.at(u) for curve, (u, _) in zip(curves, rules, strict=True)])
    weights = torch.cat([w for _, w in rules]) / len(curves)
    covs = (std**2 * torch.eye(2, dtype=torch.float64)).expand(len(means), 2, 2)
    exact = labcore.from_mixture(Mixture(weights, means, covs))

    def sample(n: int, generator: Generator) -> Tensor:
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        which = torch.randint(len(curves), (n,), generator=generator)
        points = torch.stack([curve.at(u) for curve in curves])[which, torch.arange(n)]
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return (points + std * z).float()

    return Target((2,), sample, exact.log_prob, exact.mixture)


_MOST_NODES = 4_000


def _rule(curve: Curve, std: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]: equidistant on a closed curve, Gauss-Legendre on an open one,
    whose gaps are pi/2 of the average in the middle."""
    gaps = curve.speed / std * (1.0 if curve.closed else pi / 2)
    n = max(16, ceil(1.1 * gaps))
    if n > _MOST_NODES:
        raise InvalidOption(
            f"target: std={std:g} is too small for a curve of length {curve.speed:.3g}, it asks "
            f"for {n} nodes; take std above {curve.speed * 1.8 / _MOST_NODES:.2g}"
        )
    if curve.closed:
        u = torch.arange(n, dtype=torch.float64) / n
        return u, torch.full((n,), 1 / n, dtype=torch.float64)
    u, w = (torch.from_numpy(v) for v in roots_legendre(n))
    return (1 + u) / 2, w / 2

"""Gaussian mixtures: given number by number, drawn from a seed, or laid out in the plane."""

from __future__ import annotations

from functools import partial
from math import pi
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore import InvalidOption, Mixture, Target

Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Vector = Annotated[tuple[float, ...], Field(min_length=1)]
Matrix = Annotated[tuple[Vector, ...], Field(min_length=1)]

_GIVES = ("mixture", "samples", "log_prob")


@labcore.target(gives=_GIVES)
def gaussian(
    *,
    d: Count = 2,
    mean: Vector | None = None,
    cov: Matrix | None = None,
    condition: AtLeastOne = 10.0,
    seed: int = 0,
) -> Target:
    """One Gaussian N(mean, cov) in d dimensions, with a full covariance.

    Without ``mean`` it is N(0, I)-distributed by ``seed``; without ``cov`` a random rotation of
    eigenvalues spaced geometrically from 1/``condition`` to 1. Given values set d.
    """
    given = mean if mean is not None else cov
    d = d if given is None else len(given)
    draw = _normals(seed)
    m = draw(d) if mean is None else _numbers("mean", mean, (d,))
    S = _spd(draw, d, condition) if cov is None else _numbers("cov", cov, (d, d))
    one = torch.ones(1, dtype=torch.float64)
    return labcore.from_mixture(Mixture(one, m[None], S[None]))


@labcore.target(gives=_GIVES)
def mixture(
    *,
    d: Count = 2,
    components: Count = 5,
    spread: Positive = 3.0,
    condition: AtLeastOne = 10.0,
    weights: Vector | None = None,
    means: Matrix | None = None,
    covs: Annotated[tuple[Matrix, ...], Field(min_length=1)] | None = None,
    seed: int = 0,
) -> Target:
    """A mixture of K Gaussians in d dimensions with full covariances.

    What is not given is drawn by ``seed``: means N(0, spread^2 I), weights between 1/2 and 3/2 of
    1/K, covariances as in ``gaussian``. Given means, covs or weights set K, and d.
    """
    given = next((v for v in (means, covs, weights) if v is not None), None)
    K = components if given is None else len(given)
    shaped = next((v[0] for v in (means, covs) if v), None)
    d = d if shaped is None else len(shaped)
    draw, coin = _normals(seed), torch.Generator().manual_seed(seed)
    w = 0.5 + torch.rand(K, generator=coin, dtype=torch.float64)
    m = spread * draw(K, d)
    S = torch.stack([_spd(draw, d, condition) for _ in range(K)])
    law = Mixture(
        w / w.sum() if weights is None else _numbers("weights", weights, (K,)),
        m if means is None else _numbers("means", means, (K, d)),
        S if covs is None else _numbers("covs", covs, (K, d, d)),
    )
    return labcore.from_mixture(law)


@labcore.target(gives=_GIVES)
def gmm_ring(*, modes: Count = 8, radius: Positive = 1.0, std: Positive = 0.1) -> Target:
    """Equal round Gaussians of standard deviation ``std``, evenly on a circle in the plane."""
    angle = 2 * pi * torch.arange(modes, dtype=torch.float64) / modes
    return _round(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


@labcore.target(gives=_GIVES)
def gmm_grid(*, side: Count = 5, spacing: Positive = 1.0, std: Positive = 0.1) -> Target:
    """side x side equal round Gaussians on a square lattice, centred at the origin."""
    line = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return _round(torch.cartesian_prod(line, line), std)


def _round(means: Tensor, std: float) -> Target:
    K, d = means.shape
    weights = torch.full((K,), 1 / K, dtype=torch.float64)
    covs = (std**2 * torch.eye(d, dtype=torch.float64)).repeat(K, 1, 1)
    return labcore.from_mixture(Mixture(weights, means, covs))


def _normals(seed: int) -> partial[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return partial(torch.randn, generator=source, dtype=torch.float64)


def _spd(draw: partial[Tensor], d: int, condition: float) -> Tensor:
    """A random rotation of eigenvalues from 1 / condition to 1, geometrically spaced."""
    Q, R = torch.linalg.qr(draw(d, d))
    Q = Q * R.diagonal().sign()
    lam = condition ** -torch.linspace(0, 1, d, dtype=torch.float64)
    S = (Q * lam) @ Q.T
    return (S + S.T) / 2


def _numbers(name: str, rows: object, shape: tuple[int, ...]) -> Tensor:
    try:
        value = torch.tensor(rows, dtype=torch.float64)
    except ValueError as error:
        raise InvalidOption(
            f"target: {name} is ragged ({error}); give rows of one length"
        ) from error
    if value.shape != shape:
        raise InvalidOption(
            f"target: {name} has shape {tuple(value.shape)}, the other options ask for {shape}; "
            "give all of them the same d and number of components"
        )
    return value

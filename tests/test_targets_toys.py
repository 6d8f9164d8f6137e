"""Toys: exact samplers agree with exact densities, and those with independent formulas."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import i0e
from scipy.stats import chi2

from labcore import InvalidOption, Target
from labcore_targets import checkerboard, moons, pinwheel, rings, swiss_roll

F64 = torch.float64
TOYS = {
    "rings": rings(std=0.1),
    "moons": moons(std=0.15),
    "swiss_roll": swiss_roll(std=0.08),
    "pinwheel": pinwheel(),
    "checkerboard": checkerboard(cells=3, width=0.9),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def density(target: Target, x: torch.Tensor) -> torch.Tensor:
    assert target.log_prob is not None
    return target.log_prob(x).exp()


@pytest.mark.parametrize("name", TOYS)
def test_samples_fill_boxes_as_the_density_says(name: str) -> None:
    """A chi-square test on a 16 x 16 board: integrals of the density against counts."""
    target, side, fine, n = TOYS[name], 16, 20, 100_000
    x = target.sample(n, seeded()).double()
    low, high = x.amin(0) - 0.3, x.amax(0) + 0.3
    width = (high - low) / side
    inside = (torch.arange(side * fine, dtype=F64) + 0.5) / fine
    grid = low + width * torch.cartesian_prod(inside, inside)
    mass = density(target, grid).reshape(side, fine, side, fine).mean((1, 3)) * width.prod()
    assert float(mass.sum()) == pytest.approx(1.0, abs=2e-2 if name == "checkerboard" else 2e-4)
    cell = ((x - low) / width).floor().long()
    count = torch.bincount(cell[:, 0] * side + cell[:, 1], minlength=side * side).double()
    expected = n * mass.flatten() / mass.sum()
    if name == "checkerboard":
        # Edges cut the squares: compare where a box is wholly in one.
        whole = (mass.flatten() / width.prod() * 5 * 0.81 - 1).abs() < 1e-9
        assert int(whole.sum()) > 30
        expected = n * width.prod() / (5 * 0.81) * torch.ones_like(expected)
    else:
        whole = expected > 10
    statistic = float(((count - expected).square() / expected)[whole].sum())
    assert statistic < chi2.ppf(1 - 1e-6, int(whole.sum()))


def test_rings_have_the_density_of_rice() -> None:
    std, x = 0.03, torch.randn(2000, 2, generator=seeded(), dtype=F64)
    r = x.norm(dim=1).numpy()
    parts = [
        i0e(r * R / std**2) * np.exp(-((r - R) ** 2) / (2 * std**2)) / (2 * math.pi * std**2)
        for R in (1 / 3, 2 / 3, 1.0)
    ]
    wanted = np.mean(parts, 0)
    assert np.abs(density(rings(std=std), x).numpy() - wanted).max() < 1e-8 * wanted.max()


@pytest.mark.parametrize("std", [0.02, 0.2])
def test_moons_and_roll_are_the_integral_over_their_curve(std: float) -> None:
    def blur(px: float, py: float, x: np.ndarray) -> float:
        return math.exp(-((x[0] - px) ** 2 + (x[1] - py) ** 2) / (2 * std**2))

    def upper(a: float) -> tuple[float, float]:
        return math.cos(a), math.sin(a)

    def lower(a: float) -> tuple[float, float]:
        return 1 - math.cos(a), 0.5 - math.sin(a)

    def roll(a: float) -> tuple[float, float]:
        return a / (3.5 * math.pi) * math.cos(a), a / (3.5 * math.pi) * math.sin(a)

    arcs = {
        moons: [(upper, 0.0, math.pi), (lower, 0.0, math.pi)],
        swiss_roll: [(roll, 1.5 * math.pi, 3.5 * math.pi)],
    }
    for toy, curves in arcs.items():
        target = toy(std=std)
        x = target.sample(12, seeded(2)).double()
        peak = 1 / (2 * math.pi * std**2)
        for row, got in zip(x.numpy(), density(target, x).tolist(), strict=True):
            wanted = 0.0
            for curve, a, b in curves:
                cuts = np.linspace(a, b, 60)
                pieces = [
                    quad(lambda u, c=curve, y=row: blur(*c(u), y), p, q, epsabs=1e-13)[0]
                    for p, q in pairwise(cuts)
                ]
                wanted += peak * sum(pieces) / (b - a) / len(curves)
            assert got == pytest.approx(wanted, abs=1e-8 * peak)


def test_moons_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import make_moons

    ours = moons(std=0.1).sample(20_000, seeded()).double().numpy()
    theirs, _ = make_moons(20_000, noise=0.1, random_state=0)
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.03
    assert np.abs(np.cov(ours.T) - np.cov(theirs.T)).max() < 0.03


def test_the_pinwheel_turns_and_keeps_areas() -> None:
    """Turning by a full arm changes nothing; without a twist it is a ring of Gaussians."""
    target = pinwheel(arms=4, twist=2.0)
    x = target.sample(500, seeded()).double()
    turned = x.flip(1) * torch.tensor([-1.0, 1.0])
    assert torch.allclose(density(target, x), density(target, turned))
    straight = pinwheel(arms=1, twist=0.0, radial=0.3, tangential=0.1)
    wanted = -0.5 * (0.6**2 / 0.3**2 + 0.2**2 / 0.1**2) - math.log(2 * math.pi * 0.03)
    assert straight.log_prob is not None
    assert float(straight.log_prob(torch.tensor([[1.6, 0.2]]))) == pytest.approx(wanted, rel=1e-6)


def test_the_checkerboard_is_uniform_on_its_squares_and_nothing_elsewhere() -> None:
    target = checkerboard(cells=4, width=1.0)
    assert target.log_prob is not None
    x = target.sample(10_000, seeded())
    assert torch.allclose(target.log_prob(x), torch.tensor(-math.log(8), dtype=F64))
    outside = torch.tensor([[-1.5, -0.5], [2.5, 2.5], [0.5, -0.5], [-9.0, 0.1]])
    assert torch.equal(target.log_prob(outside), torch.full((4,), -torch.inf, dtype=F64))


@pytest.mark.parametrize("name", TOYS)
def test_samples_depend_on_the_generator_alone(name: str) -> None:
    first = TOYS[name].sample(100, seeded(5))
    torch.rand(3)
    assert torch.equal(first, TOYS[name].sample(100, seeded(5)))
    assert first.dtype == torch.float32
    assert first.shape == (100, 2)


def test_a_width_too_small_for_the_curve_is_refused_with_the_smallest_that_works() -> None:
    with pytest.raises(InvalidOption, match=r"std=1e-06.*std above ([0-9.e-]+)"):
        moons(std=1e-6)
    assert moons(std=2e-3).mixture is not None

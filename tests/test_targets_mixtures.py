"""Mixture targets: samples, moments and densities of the law that was asked for, or a refusal."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from labcore import InvalidOption, LabError, Mixture, Target, from_mixture
from labcore_targets import gaussian, gmm_grid, gmm_ring, mixture

F64 = torch.float64


def law_of(target: Target) -> Mixture:
    assert target.mixture is not None
    return target.mixture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_moments(target: Target, n: int = 200_000) -> None:
    """Sample mean and covariance within 5 standard errors of the law's."""
    law = law_of(target)
    x = target.sample(n, seeded()).double().flatten(1)
    scale = law.cov.diagonal().sqrt()
    assert float(((x.mean(0) - law.mean) / scale).abs().max()) < 5 / math.sqrt(n)
    off = (torch.cov(x.T) - law.cov) / (scale[:, None] * scale)
    assert float(off.abs().max()) < 5 * math.sqrt(3 / n)


def log_density(law: Mixture, x: torch.Tensor) -> np.ndarray:
    """By scipy, component by component."""
    parts = [
        w * multivariate_normal(m, S).pdf(x.numpy())
        for w, m, S in zip(law.weights.numpy(), law.means.numpy(), law.covs.numpy(), strict=True)
    ]
    return np.log(np.sum(parts, 0))


@pytest.mark.parametrize(
    "target",
    [
        gaussian(d=1),
        gaussian(d=5, condition=100.0),
        gaussian(mean=(1.0, 2.0), cov=((2.0, 0.5), (0.5, 1.0))),
        mixture(d=3, components=4),
        mixture(weights=(0.9, 0.1), means=((0.0,), (5.0,)), covs=(((1.0,),), ((0.1,),))),
        gmm_ring(modes=5, std=0.2),
        gmm_grid(side=3),
    ],
)
def test_samples_and_density_are_those_of_the_mixture(target: Target) -> None:
    assert_moments(target)
    x = target.sample(50, seeded(1))
    assert x.dtype == torch.float32
    assert target.log_prob is not None
    assert np.allclose(target.log_prob(x).numpy(), log_density(law_of(target), x.double()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.floats(1.0, 1e4), st.integers(0, 1000))
def test_random_covariances_have_the_condition_asked_for(
    d: int, condition: float, seed: int
) -> None:
    S = law_of(gaussian(d=d, condition=condition, seed=seed)).covs[0]
    lam = torch.linalg.eigvalsh(S)
    assert torch.equal(S, S.T)
    assert float(lam[-1]) == pytest.approx(1.0)
    assert float(lam[0]) == pytest.approx(1 / condition if d > 1 else 1.0)


def test_a_seed_is_a_law() -> None:
    a, b, c = (law_of(mixture(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(a.covs, b.covs)
    assert not torch.allclose(a.means, c.means)
    ones = law_of(gaussian(d=3, seed=0)).covs[0]
    assert float((ones - ones.diagonal().diag()).abs().max()) > 0.05  # not along the axes


def test_samples_depend_on_the_generator_alone() -> None:
    target = mixture(d=2)
    torch.manual_seed(0)
    first = target.sample(100, seeded(5))
    torch.manual_seed(1)
    assert torch.equal(first, target.sample(100, seeded(5)))
    assert not torch.equal(first, target.sample(100, seeded(6)))


def test_ring_and_grid_are_where_they_should_be() -> None:
    ring, grid = law_of(gmm_ring(modes=6, radius=2.0)), law_of(gmm_grid(side=4, spacing=0.5))
    assert torch.allclose(ring.means.norm(dim=1), torch.full((6,), 2.0, dtype=F64))
    neighbour = (ring.means - ring.means.roll(1, 0)).norm(dim=1)
    assert torch.allclose(neighbour, torch.full((6,), 2.0, dtype=F64))  # a hexagon
    assert torch.allclose(grid.mean, torch.zeros(2, dtype=F64), atol=1e-12)
    assert torch.allclose(
        torch.cdist(grid.means, grid.means).add(10 * torch.eye(16, dtype=F64)).amin(1),
        torch.full((16,), 0.5, dtype=F64),
    )


def test_given_numbers_set_dimension_and_components() -> None:
    law = law_of(mixture(means=((0.0, 0.0, 1.0), (1.0, 2.0, 3.0)), d=7, components=9))
    assert law.means.shape == (2, 3)
    assert law_of(gaussian(cov=((4.0,),), d=3)).covs.tolist() == [[[4.0]]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": (0.5, 0.6), "means": ((0.0,), (1.0,))}, "sum to 1"),
        ({"weights": (1.5, -0.5), "means": ((0.0,), (1.0,))}, "non-negative"),
        ({"weights": (1.0,), "means": ((0.0,), (1.0,))}, r"weights has shape \(1,\).*\(2,\)"),
        ({"means": ((0.0, 1.0), (1.0,))}, "ragged"),
        ({"covs": (((1.0, 2.0), (2.0, 1.0)),)}, "covariance 0 has lowest eigenvalue -1"),
        ({"covs": (((1.0, 0.0), (0.5, 1.0)),)}, "not symmetric"),
        ({"covs": (((1.0, 0.0),),)}, r"covs has shape"),
        ({"covs": (((0.0, 0.0), (0.0, 0.0)),)}, "positive definite"),
    ],
)
def test_what_is_no_mixture_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidOption, match=words) as caught:
        mixture(**mixture.bind(options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "options", "word"),
    [
        (gaussian, {"d": 0}, "d=0"),
        (gaussian, {"d": 2.5}, "d=2.5"),
        (gaussian, {"d": True}, "boolean"),
        (gaussian, {"condition": 0.5}, "condition"),
        (gaussian, {"mean": ()}, "mean"),
        (mixture, {"components": -1}, "components"),
        (gmm_ring, {"std": 0.0}, "std"),
        (gmm_grid, {"sides": 3}, "did you mean 'side'"),
    ],
)
def test_options_out_of_range_are_refused(entry, options: dict[str, object], word: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidOption, match=word):
        entry.bind(options)


def test_shapes_that_do_not_fit_are_named() -> None:
    one = torch.ones(1, dtype=F64)
    with pytest.raises(InvalidOption, match=r"weights \(1,\).*means \(2, 3\)"):
        Mixture(one, torch.zeros(2, 3, dtype=F64), torch.eye(3, dtype=F64).repeat(2, 1, 1))
    law = Mixture(one, torch.zeros(1, 3, dtype=F64), torch.eye(3, dtype=F64)[None])
    with pytest.raises(InvalidOption, match=r"\(2, 2\).*d=3"):
        from_mixture(law, (2, 2))
    with pytest.raises(LabError, match="NaN"):
        from_mixture(Mixture(one, law.means * float("nan"), law.covs))


def test_log_density_of_many_points_goes_in_blocks() -> None:
    law = law_of(mixture(d=2, components=64))
    x = 4 * torch.randn(70_000, 2, generator=seeded(), dtype=F64)
    assert torch.allclose(law.log_prob(x), law.log_joint(x).logsumexp(1))

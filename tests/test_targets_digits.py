"""Digits: the data as scikit-learn has them, and a mixture that describes unseen ones."""

import pytest
import torch
from sklearn.datasets import load_digits

from labcore import Mixture
from labcore_targets import digits, digits_mixture
from labcore_targets.digits import gaussian_clusters

IMAGES, CLASSES = load_digits(return_X_y=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_digits_are_the_data_scaled_to_unit_range() -> None:
    target = digits()
    assert target.data is not None
    assert torch.equal(target.data, torch.from_numpy(IMAGES / 8 - 1).float())
    assert target.event == (64,)
    assert target.image == (8, 8)
    assert (target.data.min(), target.data.max()) == (-1, 1)


def test_samples_are_data_drawn_with_replacement() -> None:
    target = digits()
    assert target.data is not None
    x = target.sample(5000, seeded())
    nearest, which = torch.cdist(x, target.data).min(1)
    assert float(nearest.max()) < 1e-3
    distinct = len(which.unique())
    assert 1797 * 0.9 < distinct < 1797  # of 5000 draws 94 % of the data are expected
    assert torch.equal(x[:10], target.sample(5000, seeded())[:10])


@pytest.mark.parametrize("per_class", [1, 3])
@pytest.mark.parametrize("floor", [0.003, 0.03])
def test_the_mixture_is_positive_definite_by_its_floor(per_class: int, floor: float) -> None:
    law = digits_mixture(per_class=per_class, floor=floor).mixture
    assert law is not None
    assert len(law.weights) == 10 * per_class
    assert float(torch.linalg.eigvalsh(law.covs).min()) > floor * (1 - 1e-9)


def test_the_mixture_has_the_moments_of_the_data() -> None:
    """Shares, means and covariances within and between clusters add up to those of all."""
    law = digits_mixture(floor=0.01).mixture
    assert law is not None
    x = torch.from_numpy(IMAGES / 8 - 1)
    assert torch.allclose(law.mean, x.mean(0))
    cov = torch.cov(x.T, correction=0) + 0.01 * torch.eye(64, dtype=torch.float64)
    assert torch.allclose(law.cov, cov, atol=1e-12)


def test_unseen_digits_are_likelier_than_under_one_gaussian() -> None:
    order = torch.randperm(1797, generator=seeded())
    x, label = torch.from_numpy(IMAGES / 8 - 1)[order], torch.from_numpy(CLASSES).long()[order]
    seen, unseen = x[:1300], x[1300:]
    classes = gaussian_clusters(seen, label[:1300], 0.01)
    single = gaussian_clusters(seen, torch.zeros(1300).long(), 0.01)
    gain = float(classes.log_prob(unseen).mean() - single.log_prob(unseen).mean())
    assert gain > 10  # nats a digit; measured 17
    found = classes.log_joint(unseen).argmax(1)
    assert float((found == label[1300:]).double().mean()) > 0.95


def test_the_fit_is_the_same_every_time() -> None:
    first = digits_mixture(per_class=2, seed=1).mixture
    from labcore_targets.digits import _fitted

    _fitted.cache_clear()
    second = digits_mixture(per_class=2, seed=1).mixture
    assert isinstance(first, Mixture)
    assert isinstance(second, Mixture)
    assert torch.equal(first.covs, second.covs)

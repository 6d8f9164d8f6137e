"""scikit-learn's 1797 handwritten digits of 8 x 8 pixels, and a mixture fitted to them."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

import labcore
from labcore import Mixture, Target

IMAGE = (8, 8)


@labcore.target(gives=("data", "samples"), cite="Alpaydin & Kaynak (1998), UCI optical digits")
def digits() -> Target:
    """The empirical law of 1797 handwritten digits: 64 pixels in [-1, 1], with replacement."""
    data = labelled()[0].float()

    def sample(n: int, generator: Generator) -> Tensor:
        return data[torch.randint(len(data), (n,), generator=generator)]

    return Target((64,), sample, data=data, image=IMAGE)


@labcore.target(gives=("mixture", "samples", "log_prob"))
def digits_mixture(
    *,
    per_class: Annotated[int, Field(ge=1, le=20)] = 1,
    floor: Annotated[float, Field(gt=0)] = 0.01,
    seed: int = 0,
) -> Target:
    """A 64-dimensional mixture fitted to the digits: real covariances, and an exact score.

    Each of the ten classes is split into ``per_class`` clusters (k-means by ``seed``), each of
    which gives one Gaussian with its mean, its full covariance + floor I, and its share. No
    eigenvalue is below ``floor``.
    """
    return labcore.from_mixture(_fitted(per_class, floor, seed), image=IMAGE)


@lru_cache(maxsize=1)
def labelled() -> tuple[Tensor, Tensor]:
    """Images (1797, 64) in [-1, 1], float64, and their classes (1797,)."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return torch.from_numpy(images) / 8 - 1, torch.from_numpy(classes).long()


@lru_cache(maxsize=8)
def _fitted(per_class: int, floor: float, seed: int) -> Mixture:
    images, classes = labelled()
    return gaussian_clusters(images, _split(images, classes, per_class, seed), floor)


def gaussian_clusters(x: Tensor, cluster: Tensor, floor: float) -> Mixture:
    """One Gaussian a cluster of the rows of x (n, d): its share, mean, covariance + floor I."""
    parts = [x[cluster == k] for k in cluster.unique()]
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    return Mixture(
        torch.tensor([len(part) / len(x) for part in parts], dtype=x.dtype),
        torch.stack([part.mean(0) for part in parts]),
        torch.stack([_covariance(part) + floor * eye for part in parts]),
    )


def _covariance(x: Tensor) -> Tensor:
    delta = x - x.mean(0)
    return delta.T @ delta / len(x)


def _split(x: Tensor, classes: Tensor, per_class: int, seed: int) -> Tensor:
    """Labels of ``per_class`` clusters within each class."""
    if per_class == 1:
        return classes
    from sklearn.cluster import KMeans

    label = torch.empty_like(classes)
    for c in classes.unique():
        mine = classes == c
        found = KMeans(per_class, n_init=1, random_state=seed).fit_predict(x[mine].numpy())
        label[mine] = c * per_class + torch.from_numpy(found).long()
    return label

"""label_entropy: all ten digits have log 10 nats, one class none, smudges are not believed."""

import math

import pytest
import torch
from sklearn.base import clone
from torch import Generator, Tensor

from labcore import MetricError, Outcome
from labcore_targets.digits import digits, labelled
from labcore_targets.labels import classifier, label_entropy


def outcome(x: Tensor) -> Outcome:
    return Outcome(x, x, digits(), None, 0)


def test_the_digits_themselves_have_all_labels_and_are_believed() -> None:
    got = label_entropy(outcome(digits().sample(1000, Generator().manual_seed(0))))
    assert got["entropy"] == pytest.approx(math.log(10), abs=0.01)
    assert got["confidence"] > 0.95


def test_k_classes_of_equal_number_have_log_k() -> None:
    images, classes = labelled()
    for kept in ([3], [0, 1], [2, 4, 6, 8]):
        x = torch.cat([images[classes == c][:100] for c in kept])
        got = label_entropy(outcome(x.float()))
        assert got["entropy"] == pytest.approx(math.log(len(kept)), abs=0.08)


def test_noise_and_smudges_are_not_believed() -> None:
    g = Generator().manual_seed(1)
    sharp = digits().sample(400, g)
    noise = label_entropy(outcome(torch.rand(400, 64, generator=g) * 2 - 1))
    mixed = label_entropy(outcome((sharp + sharp.flip(0)) / 2))
    assert noise["confidence"] < 0.5
    assert mixed["confidence"] < label_entropy(outcome(sharp))["confidence"] - 0.1


def test_the_classifier_is_right_on_digits_it_was_not_shown() -> None:
    images, classes = (part.numpy() for part in labelled())
    seen = clone(classifier()).fit(images[:1400], classes[:1400])
    assert seen.score(images[1400:], classes[1400:]) > 0.92


def test_what_are_no_digits_is_refused() -> None:
    with pytest.raises(MetricError, match="8 x 8"):
        label_entropy(outcome(torch.zeros(5, 2)))
    with pytest.raises(MetricError, match="NaN"):
        label_entropy(outcome(torch.full((5, 64), math.nan)))

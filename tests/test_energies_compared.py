"""Energies compared without their partition functions: closed forms on Gaussians."""

import math

import pytest
import torch
from torch import Generator, Tensor

from labcore import MetricError, Mixture, Outcome, Process, Score, ScoreWith, from_mixture
from labcore.testing import vp
from labcore_metrics.energies import Comparison, compare_energies, energy_fit

A, B, D, N = 1.0, 1.3, 3, 40_000


def energy(std: float, constant: float) -> Score:
    return lambda x, t=None: constant - x.square().sum(1) / (2 * std**2)


def compared(a: float, b: float, f: float = 0.0, g: float = 0.0) -> Comparison:
    z = torch.randn(2, N, D, generator=Generator().manual_seed(0), dtype=torch.float64)
    return compare_energies(energy(a, f), energy(b, g), a * z[0], b * z[1])  # type: ignore[arg-type]


def kl(a: float, b: float) -> float:
    """KL( N(0, a^2 I) | N(0, b^2 I) )."""
    return D * (math.log(b / a) + a**2 / (2 * b**2) - 0.5)


EXACT = {
    "jeffreys": kl(A, B) + kl(B, A),
    "kl": kl(A, B),
    "fisher": D * A**2 * (1 / A**2 - 1 / B**2) ** 2,
    "spread": math.sqrt(D / 2) * A**2 * (1 / A**2 - 1 / B**2),
}


@pytest.mark.parametrize("name", EXACT)
def test_every_number_has_its_closed_form_within_its_error(name: str) -> None:
    got = compared(A, B)
    assert abs(got.value[name] - EXACT[name]) < 4 * got.error[name]
    assert 0 < got.error[name] < 0.05 * EXACT[name]


@pytest.mark.parametrize("name", EXACT)
def test_constants_do_not_matter_and_equal_energies_are_at_zero(name: str) -> None:
    plain, moved = compared(A, B), compared(A, B, f=500.0, g=-40.0)
    assert moved.value[name] == pytest.approx(plain.value[name], rel=1e-9)
    assert abs(compared(A, A, f=7.0).value[name]) < 1e-6


def test_spread_gives_the_divergence_of_laws_that_are_near() -> None:
    near = compared(1.0, 1.03)
    assert near.value["kl"] == pytest.approx(near.value["spread"] ** 2 / 2, rel=0.05)
    assert abs(near.value["jeffreys"] - 2 * near.value["kl"]) < 4 * near.error["jeffreys"]


def outcome(process: Process, score: Score, y: Tensor) -> Outcome:
    eye, one = torch.eye(D).double(), torch.ones(1).double()
    target = from_mixture(Mixture(one, torch.zeros(1, D).double(), eye[None]))
    return Outcome(y, y, target, target.mixture, 0, process, score)


def test_the_metric_sees_the_energy_and_whether_samples_follow_it() -> None:
    """Under vp, N(0, I) stays N(0, I)."""
    y = B * torch.randn(2000, D, generator=Generator().manual_seed(1))
    given = ScoreWith(lambda x, t: -x / B**2, energy(B, 3.0))
    got = energy_fit(outcome(vp(), given, y))
    for name, value in EXACT.items():
        assert got[name] == pytest.approx(value, rel=0.15)
    astray = energy_fit(outcome(vp(), given, 2 * y))
    assert astray["jeffreys"] > 2 * got["jeffreys"]
    assert astray["kl"] == got["kl"]


def test_a_score_without_energy_is_refused() -> None:
    with pytest.raises(MetricError, match="trained_energy"):
        energy_fit(outcome(vp(), lambda x, t: -x, torch.zeros(4, D)))

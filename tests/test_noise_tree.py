"""The path at arbitrary times: additive, the same in any order of asking, exact in law."""

from itertools import pairwise
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labcore import LabError, SamplerError
from labcore.noise import Noise, brownian, counting

TS = torch.tensor([2.0, 0.7, 0.1], dtype=torch.float64)


def tree(n: int = 4, seeds: tuple[int, ...] = (3,), resolution: float = 1e-4) -> Noise:
    return brownian(TS, (), seeds, n, dtype=torch.float64).tree(resolution)


def integral(noise: Noise, t: float, s: float) -> tuple[Tensor, Tensor]:
    z, k = noise.levy(t, s)
    h = t - s
    return sqrt(h) * z, h**1.5 * (z / 2 + k / sqrt(12))


times = st.lists(st.floats(0.1, 2.0), min_size=3, max_size=3, unique=True)


@settings(deadline=None, max_examples=60)
@given(times=times)
def test_increments_and_integrals_add_up_at_any_times(times: list[float]) -> None:
    t, m, s = sorted(times, reverse=True)
    if min(t - m, m - s) < 1e-4:
        return
    noise = tree()
    W1, U1 = integral(noise, t, m)
    W2, U2 = integral(noise, m, s)
    W, U = integral(noise, t, s)
    assert torch.allclose(W, W1 + W2, atol=1e-13)
    assert torch.allclose(U, U1 + U2 + (m - s) * W1, atol=1e-13)
    z = sqrt(t - m) * noise(t, m) + sqrt(m - s) * noise(m, s)
    assert torch.allclose(sqrt(t - s) * noise(t, s), z, atol=1e-13)


def test_what_was_asked_before_does_not_matter() -> None:
    g = torch.Generator().manual_seed(0)
    asked = (0.1 + 1.9 * torch.rand(200, 2, generator=g, dtype=torch.float64)).tolist()
    asked = [(max(p), min(p)) for p in asked if abs(p[0] - p[1]) > 1e-4]
    one, fresh = tree(), {p: tree()(*p) for p in asked}
    for p in asked + asked[::-1]:
        assert torch.equal(one(*p), fresh[p])


def test_increments_at_odd_times_have_their_exact_law() -> None:
    """Steps down to twice the resolution; 1e5 samples, sd 0.0032 for each covariance."""
    noise = tree(100_000, resolution=0.01)
    cuts = [2.0, 1.9371, 1.1, 0.777, 0.757, 0.7361, 0.1]
    z = torch.stack([x for t, s in pairwise(cuts) for x in noise.levy(t, s)])
    assert (z @ z.T / 100_000 - torch.eye(len(z))).abs().max() < 0.02


def test_seeds_in_a_batch_are_bit_equal_to_each_alone() -> None:
    both = tree(3, (8, 9)).levy(1.3, 0.31)
    alone = [tree(3, (k,)).levy(1.3, 0.31) for k in (8, 9)]
    for part, parts in zip(both, zip(*alone, strict=True), strict=True):
        assert torch.equal(part, torch.cat(parts))


def test_streams_are_different_paths() -> None:
    noise = tree(50_000)
    a, b = noise(1.3, 0.31), noise(1.3, 0.31, stream="other")
    assert abs(float(a @ b) / 50_000) < 0.03  # sd 0.0045


@pytest.mark.parametrize("step", [(2.1, 1.0), (1.0, 0.05), (1.0, 1.0), (0.5, 1.0), (1.0, 0.99999)])
def test_steps_it_cannot_serve_are_refused(step: tuple[float, float]) -> None:
    with pytest.raises(SamplerError, match="the tree does not serve"):
        tree()(*step)


def test_a_resolution_that_is_none_is_refused() -> None:
    for resolution in (0.0, -1.0, 5.0, float("nan")):
        with pytest.raises(LabError, match="resolution"):
            tree(resolution=resolution)


def test_a_source_for_audits_has_no_tree() -> None:
    with pytest.raises(SamplerError, match="fixed grid only"):
        counting((2,)).tree(0.1)

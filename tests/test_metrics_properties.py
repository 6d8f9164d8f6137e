"""What must hold for any two point sets: symmetries, scaling, identity, bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore_metrics.assignment import assignment_distance
from labcore_metrics.energy_distance import energy_distance, sliced_energy_distance
from labcore_metrics.gaussian import frechet_distance, sample_moments
from labcore_metrics.kernel import median_distance, mmd2
from labcore_metrics.neighbours import precision_recall_density_coverage
from labcore_metrics.sliced import frames, sliced_distance


def full_frames(d):
    return frames(3 * d, d, torch.Generator().manual_seed(d))


def sliced(x, y):
    return sliced_distance(x, y, full_frames(x.shape[1]))


def sliced_energy(x, y):
    return sliced_energy_distance(x, y, full_frames(x.shape[1]))


def frechet(x, y):
    return frechet_distance(sample_moments(x), sample_moments(y))


def mmd(x, y):
    return mmd2(x, y, median_distance(y))


# the power of a length each one is measured in
DISTANCES = {
    sliced: 1,
    assignment_distance: 1,
    energy_distance: 1,
    sliced_energy: 1,
    frechet: 2,
    mmd: 0,
}
named = pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
quick = settings(max_examples=30, deadline=None)


@st.composite
def point_sets(draw, sets=2):
    """Independent (n, d) sets of the same shape: rounded (hence ties), stretched and shifted."""
    n, d = draw(st.integers(3, 24)), draw(st.integers(1, 5))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    out = []
    for _ in range(sets):
        x = torch.randn(n, d, generator=g, dtype=torch.float64)
        x = x * draw(st.floats(0.1, 4)) + draw(st.floats(-5, 5))
        out.append((8 * x).round() / 8 + 1e-3 * torch.arange(n)[:, None])
    return out


@named
@quick
@given(sets=point_sets(), seed=st.integers(0, 999))
def test_the_order_of_the_points_does_not_matter(distance, sets, seed):
    x, y = sets
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    assert distance(shuffled, y) == pytest.approx(distance(x, y), rel=1e-9, abs=1e-10)


@named
@quick
@given(sets=point_sets(), c=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_scaling_and_shifting_both_sets(distance, sets, c, shift):
    x, y = sets
    exact = c ** DISTANCES[distance] * distance(x, y)
    size = (c * (x.abs().max() + y.abs().max() + 10)) ** DISTANCES[distance]
    moved = distance(c * x + shift, c * y + shift)
    assert moved == pytest.approx(exact, rel=1e-6, abs=1e-6 * float(size))


@pytest.mark.parametrize("distance", [assignment_distance, energy_distance, frechet, mmd])
@quick
@given(sets=point_sets(), seed=st.integers(0, 999))
def test_rotating_both_sets_changes_nothing(distance, sets, seed):
    x, y = sets
    d = x.shape[1]
    turn = frames(d, d, torch.Generator().manual_seed(seed))
    assert distance(x @ turn, y @ turn) == pytest.approx(distance(x, y), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("distance", [sliced, assignment_distance, energy_distance, frechet])
@quick
@given(sets=point_sets())
def test_swapping_the_sets_changes_nothing(distance, sets):
    x, y = sets
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("distance", [sliced, assignment_distance, frechet])
@quick
@given(sets=point_sets())
def test_biased_distances_are_positive_and_zero_on_the_same_set(distance, sets):
    x, y = sets
    assert distance(x, y) >= 0
    assert distance(x, x) == pytest.approx(0, abs=1e-9)


@quick
@given(sets=point_sets())
def test_unbiased_distances_are_negative_on_the_same_set(sets):
    """With x = y the cross term holds the zero distances that the U-statistic leaves out."""
    x, _ = sets
    within = torch.pdist(x).mean().item()
    assert energy_distance(x, x) == pytest.approx(-2 * within / len(x), rel=1e-6)
    similar = torch.exp(-torch.pdist(x).square() / 2).mean().item()
    assert mmd2(x, x, 1.0) == pytest.approx(-2 * (1 - similar) / len(x), rel=1e-6, abs=1e-12)


@quick
@given(sets=point_sets(3))
def test_wasserstein_distances_obey_the_triangle_inequality(sets):
    for distance in (assignment_distance, sliced):
        ab, bc, ac = (distance(sets[i], sets[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
        assert ac <= ab + bc + 1e-9


@quick
@given(sets=point_sets())
def test_lower_bounds_of_w2(sets):
    """Over whole frames SW_2^2 <= W_2^2 / d; and Gelbrich's bound: Frechet <= W_2^2."""
    x, y = sets
    n, d = x.shape
    w2 = assignment_distance(x, y)
    assert sliced(x, y) <= w2 / math.sqrt(d) + 1e-9
    assert frechet(x, y) <= w2**2 * n / (n - 1) + 1e-9


@quick
@given(sets=point_sets(), k=st.integers(1, 2))
def test_neighbour_balls_ignore_scale_and_swap_roles(sets, k):
    x, y = sets
    values = precision_recall_density_coverage(x, y, k)
    assert precision_recall_density_coverage(x * 2 + 1, y * 2 + 1, k) == values
    swapped = precision_recall_density_coverage(y, x, k)
    assert (swapped["precision"], swapped["recall"]) == (values["recall"], values["precision"])
    assert values["coverage"] <= values["density"] * k * len(x)
    assert all(0 <= v <= 1 for name, v in values.items() if name != "density")
    same = precision_recall_density_coverage(x, x, k)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)


@named
@quick
@given(sets=point_sets())
def test_single_precision_points_give_the_same_number(distance, sets):
    x, y = (z.float() for z in sets)
    size = float(x.abs().max() + y.abs().max()) ** DISTANCES[distance]
    assert distance(x, y) == pytest.approx(distance(x.double(), y.double()), abs=1e-4 * size)
    assert x.dtype is torch.float32

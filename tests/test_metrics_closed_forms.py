"""The metrics' estimators equal closed forms and independent implementations."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import hyp1f1
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel

import labcore
from labcore_metrics import pairs
from labcore_metrics.assignment import assignment_distance
from labcore_metrics.classifier import held_out_accuracy
from labcore_metrics.energy_distance import energy_distance, sliced_energy_distance
from labcore_metrics.gaussian import frechet_distance, law_moments, sample_moments
from labcore_metrics.kernel import median_distance, mmd2
from labcore_metrics.likelihood import mode_masses
from labcore_metrics.neighbours import precision_recall_density_coverage
from labcore_metrics.sliced import frames, sliced_distance


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(seed, d):
    a = draw(seed, d, d)
    return a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64)


# Sliced Wasserstein-2


@pytest.mark.parametrize("d", [1, 2, 5, 64])
def test_directions_are_unit_and_orthonormal_within_a_frame(d):
    theta = frames(3 * d, d, torch.Generator().manual_seed(0))
    for frame in theta.split(d):
        torch.testing.assert_close(frame @ frame.T, torch.eye(len(frame)).double())


def test_directions_are_uniform_on_the_sphere():
    theta = torch.cat([frames(7, 3, torch.Generator().manual_seed(s)) for s in range(3000)])
    # for d = 3 each coordinate is uniform on [-1, 1] (Archimedes)
    for column in theta.T:
        worst = (column.sort().values - torch.linspace(-1, 1, len(column))).abs().max()
        assert worst < 2 * 1.95 / math.sqrt(len(column) / 3)


@pytest.mark.parametrize("d", [1, 2, 3, 64])
def test_sliced_w2_of_a_shift_is_its_length_over_root_d(d):
    x, m = draw(0, 200, d), draw(1, d)
    theta = frames(2 * d, d, torch.Generator().manual_seed(0))
    assert sliced_distance(x, x + m, theta) == pytest.approx(m.norm().item() / math.sqrt(d))


def test_sliced_w2_of_isotropic_gaussians_is_the_gap_of_their_widths():
    x, y = draw(0, 200_000, 3), 1.5 * draw(1, 200_000, 3)
    theta = frames(30, 3, torch.Generator().manual_seed(0))
    assert sliced_distance(x, y, theta) == pytest.approx(0.5, abs=0.01)


def test_sliced_w2_is_that_of_pot():
    ot = pytest.importorskip("ot")
    x, y = draw(0, 500, 7), 2 * draw(1, 500, 7) + 1
    theta = frames(40, 7, torch.Generator().manual_seed(0))
    theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.T.numpy())
    assert sliced_distance(x, y, theta) == pytest.approx(theirs, rel=1e-12)
    assert sliced_distance(x.float(), y.float(), theta) == pytest.approx(theirs, rel=1e-5)


# Wasserstein-2


@pytest.mark.parametrize("d", [1, 2, 9])
def test_w2_recovers_a_gradient_of_a_convex_function(d):
    """y = A x + m with A symmetric positive definite is the optimal map (Brenier 1991)."""
    x, A, m = draw(0, 150, d), spd(1, d), draw(2, d)
    y = x @ A + m
    exact = (y - x).square().sum(1).mean().sqrt().item()
    assert assignment_distance(x, y[torch.randperm(150)]) == pytest.approx(exact, rel=1e-12)


def test_w2_is_that_of_pot():
    ot = pytest.importorskip("ot")
    x, y = draw(0, 80, 3), draw(1, 80, 3).exp()
    theirs = math.sqrt(ot.emd2([], [], ot.dist(x.numpy(), y.numpy())))
    assert assignment_distance(x, y) == pytest.approx(theirs, rel=1e-9)


def test_w2_of_gaussian_samples_approaches_bures():
    S, R, m = spd(0, 2), spd(1, 2), torch.tensor([2.0, -1.0], dtype=torch.float64)
    x = draw(2, 1000, 2) @ torch.linalg.cholesky(S).T
    y = draw(3, 1000, 2) @ torch.linalg.cholesky(R).T + m
    bures = math.sqrt(frechet_distance(law_moments(0 * m, S), law_moments(m, R)))
    width = math.sqrt(S.trace() + R.trace())
    assert abs(assignment_distance(x, y) - bures) < width * 3 / math.sqrt(1000)


# Energy distance and MMD


def mean_norm(v, m, d):
    """E|Z| for Z ~ N(m, v I) in d dimensions, |m| = m (noncentral chi)."""
    ratio = math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    return math.sqrt(2 * v) * ratio * float(hyp1f1(-0.5, d / 2, -(m**2) / (2 * v)))


def centred(values, exact):
    """The mean of independent unbiased values is within four standard errors of ``exact``."""
    values = torch.tensor(values, dtype=torch.float64)
    return abs(values.mean() - exact) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("d", [1, 2, 10])
@pytest.mark.parametrize("sliced", [False, True])
def test_energy_distance_of_gaussians_is_unbiased(d, sliced):
    m, s = 0.7, 1.4
    exact = 2 * mean_norm(1 + s**2, m, d) - mean_norm(2, 0, d) - mean_norm(2 * s**2, 0, d)
    values = []
    for seed in range(300):
        x, y = draw(seed, 40, d), s * draw(seed + 10_000, 30, d)
        y[:, 0] += m
        theta = frames(10, d, torch.Generator().manual_seed(seed))
        values.append(sliced_energy_distance(x, y, theta) if sliced else energy_distance(x, y))
    assert centred(values, exact)
    if d == 1:  # the folded normal, written out
        fold = 2 * (math.sqrt(2 * (1 + s**2) / math.pi) * math.exp(-(m**2) / 2 / (1 + s**2)))
        fold += 2 * m * math.erf(m / math.sqrt(2 * (1 + s**2)))
        assert exact == pytest.approx(fold - 2 / math.sqrt(math.pi) * (1 + s))


@pytest.mark.parametrize("d", [1, 4])
def test_mmd_of_gaussians_is_unbiased(d):
    m, s, h = 0.7, 1.4, 1.1

    def kernel(v, m):
        """E exp(-|Z|^2 / (2 h^2)) for Z ~ N(m, v I)."""
        return (h**2 / (h**2 + v)) ** (d / 2) * math.exp(-(m**2) / (2 * (h**2 + v)))

    exact = kernel(2, 0) + kernel(2 * s**2, 0) - 2 * kernel(1 + s**2, m)
    values = []
    for seed in range(300):
        y = s * draw(seed + 10_000, 30, d)
        y[:, 0] += m
        values.append(mmd2(draw(seed, 40, d), y, h))
    assert centred(values, exact)


def u_statistic(xx, yy, xy):
    n, m = xy.shape
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean()


@pytest.mark.parametrize("block", [1, 100, 2**18])
@pytest.mark.parametrize("d", [1, 3])
def test_energy_and_mmd_are_sums_over_all_pairs_for_any_block(monkeypatch, block, d):
    monkeypatch.setattr(pairs, "_BLOCK", block)
    x, y = draw(0, 37, d), 2 * draw(1, 53, d) + 1
    a, b = x.numpy(), y.numpy()
    xx, yy, xy = (pairwise_distances(*p) for p in ((a, a), (b, b), (a, b)))
    assert energy_distance(x, y) == pytest.approx(-u_statistic(xx, yy, xy), rel=1e-12)
    xx, yy, xy = (rbf_kernel(*p, gamma=0.5 / 1.3**2) for p in ((a, a), (b, b), (a, b)))
    assert mmd2(x, y, 1.3) == pytest.approx(u_statistic(xx, yy, xy), rel=1e-12)


def test_energy_by_sorting_is_energy_over_pairs_in_one_dimension():
    x, y = draw(0, 300, 1), draw(1, 200, 1) + 0.3
    one = torch.ones(1, 1, dtype=torch.float64)
    assert sliced_energy_distance(x, y, one) == pytest.approx(energy_distance(x, y), rel=1e-9)


def test_energy_distance_survives_a_large_offset():
    x, y = draw(0, 300, 2), draw(1, 300, 2) + 0.5
    exact = energy_distance(x, y)
    assert energy_distance(x + 1e6, y + 1e6) == pytest.approx(exact, rel=1e-6)
    theta = frames(20, 2, torch.Generator().manual_seed(0))
    exact = sliced_energy_distance(x, y, theta)
    assert sliced_energy_distance(x + 1e6, y + 1e6, theta) == pytest.approx(exact, rel=1e-4)


def test_median_distance_is_the_median_over_pairs():
    y = draw(0, 200, 3)
    distances = pairwise_distances(y.numpy())[np.triu_indices(200, 1)]
    assert median_distance(y) == pytest.approx(np.median(distances))
    many = draw(1, 50_000, 2)  # |Y-Y'|^2 / 4 is exponential with rate 1 in two dimensions
    assert median_distance(many) == pytest.approx(2 * math.sqrt(math.log(2)), rel=0.03)


# Gaussian moments


@pytest.mark.parametrize("d", [1, 2, 8])
def test_frechet_is_the_formula_with_a_matrix_square_root(d):
    S, R, m, n = spd(0, d), spd(1, d), draw(2, d), draw(3, d)
    root = np.real(sqrtm((S @ R).numpy()))
    exact = float((m - n).square().sum() + S.trace() + R.trace()) - 2 * np.trace(root)
    ours = frechet_distance(law_moments(m, S), law_moments(n, R))
    assert ours == pytest.approx(exact, rel=1e-9)


def test_frechet_of_commuting_and_of_singular_gaussians():
    p = law_moments(torch.zeros(3), torch.diag(torch.tensor([4.0, 1.0, 0.0])))
    q = law_moments(torch.ones(3), torch.diag(torch.tensor([1.0, 0.0, 9.0])))
    assert frechet_distance(p, q) == pytest.approx(3 + 1 + 1 + 9)
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_sample_moments_factor_the_sample_covariance(n):
    x = draw(0, n, 5) @ spd(1, 5)
    mean, factor = sample_moments(x)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(factor.T @ factor, torch.cov(x.T))


# Likelihood


def mixture():
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return labcore.Mixture(weights, 20 * draw(0, 3, 2), torch.stack([spd(k, 2) for k in range(3)]))


def test_mode_masses_count_points_when_modes_are_far_apart():
    law = mixture()
    k = torch.tensor([0] * 500 + [1] * 4500 + [2] * 5000)
    x = law.means[k] + 0.1 * draw(5, 10_000, 2)
    masses = mode_masses(law, x)
    torch.testing.assert_close(masses, torch.tensor([0.05, 0.45, 0.5], dtype=torch.float64))


def test_mode_masses_of_overlapping_modes_average_to_the_weights():
    law = labcore.Mixture(mixture().weights, draw(0, 3, 2), mixture().covs)
    x = law.sample(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mode_masses(law, x), law.weights, atol=4e-3, rtol=0)


# Classifier and neighbours


@pytest.mark.parametrize(
    ("classifier", "within"), [("logistic", 0.02), ("knn", 0.03), ("mlp", 0.03)]
)
def test_classifier_accuracy_approaches_that_of_the_bayes_rule(classifier, within):
    """Two unit Gaussians 2 apart: the best rule is right with probability Phi(1)."""
    x, y = draw(0, 2000, 2), draw(1, 2000, 2)
    y[:, 0] += 2
    bayes = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert held_out_accuracy(x, y, classifier, 4, seed=0) == pytest.approx(bayes, abs=within)


def test_neighbour_balls_by_hand():
    y = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    x = torch.tensor([[0.5], [0.6], [-8.0], [50.0]])
    # radii of y for k=1: 1, 1, 2, 4; of x: 0.1, 0.1, 8.5, 49.4
    values = precision_recall_density_coverage(x, y, 1)
    # 0.5 and 0.6 lie in the balls about 0 and 1; y = 0 is within 8.5 of -8, all within 49.4 of 50
    # but 0; the balls of 0 and 1 hold samples, that of 3 reaches 1 and that of 7 reaches 3
    assert values == {"precision": 0.5, "recall": 1.0, "density": 1.0, "coverage": 0.5}


def test_points_on_the_edge_of_a_ball_are_inside_despite_rounding():
    """Points that come in pairs have balls of radius zero, which hold their copies."""
    y = (100 * draw(0, 50, 7)).repeat(2, 1)
    values = precision_recall_density_coverage(y.flip(0), y, 1)
    assert values == {"precision": 1, "recall": 1, "density": 2, "coverage": 1}


@pytest.mark.parametrize("k", [1, 3])
def test_neighbour_balls_follow_their_definitions(k):
    x, y = draw(0, 40, 3), 1.3 * draw(1, 40, 3)
    a, b = x.numpy(), y.numpy()
    cross = pairwise_distances(a, b)
    radius_x, radius_y = (np.sort(pairwise_distances(z), axis=1)[:, k] for z in (a, b))
    inside = cross <= radius_y
    assert precision_recall_density_coverage(x, y, k) == {
        "precision": inside.any(1).mean(),
        "recall": (cross <= radius_x[:, None]).any(0).mean(),
        "density": pytest.approx(inside.sum() / (k * 40)),
        "coverage": inside.any(0).mean(),
    }


def test_density_and_coverage_of_exact_samples_have_their_known_means():
    """Density 1; coverage 1 - prod_{i=1}^k (n-i)/(2n-i) (Naeem et al. 2020, lemma 2)."""
    n, k = 30, 3
    rows = [
        precision_recall_density_coverage(draw(s, n, 2), draw(s + 10_000, n, 2), k)
        for s in range(300)
    ]
    missed = math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert centred([row["density"] for row in rows], 1)
    assert centred([row["coverage"] for row in rows], 1 - missed)

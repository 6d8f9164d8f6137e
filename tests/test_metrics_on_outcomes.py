"""Metrics handed whole outcomes: exact sets, known errors, hard cases, refusals."""

import dataclasses
import math
import statistics

import pytest
import torch

import labcore
import labcore_metrics
from labcore_metrics.energy_distance import energy_distance
from labcore_metrics.kernel import mmd2

METRICS = {
    entry.name: entry
    for entry in labcore_metrics.register_metrics()
    if entry.traits.get("floor", True)  # of samples: those of scores have tests of their own
}
UNBIASED = ["energy", "mmd", "nll.gap", "prdc.density"]
every = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def gaussians(*means, weights=None, scale=1.0):
    """The mixture of N(m, scale^2 I) over the means, equally weighted by default."""
    m = torch.tensor(means, dtype=torch.float64)
    K, d = m.shape
    w = torch.full((K,), 1 / K) if weights is None else torch.tensor(weights)
    return labcore.Mixture(
        w.double(), m, scale**2 * torch.eye(d, dtype=torch.float64).expand(K, d, d)
    )


def outcome(x, y, law=None, seed=0, density=None):
    target = labcore.Target(
        event=tuple(x.shape[1:]), sample=lambda n, g: y[:n], log_prob=density, mixture=law
    )
    return labcore.Outcome(x, y, target, law, seed)


def exact(n, law, seed=0, **moves):
    """Two independent exact sets; ``shift`` and ``spread`` move the first one."""
    g = torch.Generator().manual_seed(seed)
    x, y = law.sample(n, g).float(), law.sample(n, g).float()
    x = x * (1 + moves.get("spread", 0.0))
    x[:, 0] += moves.get("shift", 0.0)
    return outcome(x, y, law, seed)


def flat(metric, *args, **options):
    value = metric(*args, **options)
    if type(value) is dict:
        return {f"{metric.name}.{key}": v for key, v in value.items()}
    return {metric.name: value}


@every
def test_declarations_are_complete(metric):
    assert metric.traits["better"] in ("lower", "higher")
    assert metric.traits["minimum"] >= 1
    assert metric.traits["sees"]
    assert metric.doc
    assert metric.bind({}).keys() == metric.parameters.keys()


# Values


@every
@pytest.mark.parametrize("d", [1, 3])
def test_images_are_compared_as_their_flattened_pixels(metric, d):
    o = exact(60, gaussians([0.0] * 4 * d, [2.0] * 4 * d))
    image = dataclasses.replace(
        o, samples=o.samples.reshape(60, d, 2, 2), reference=o.reference.reshape(60, d, 2, 2)
    )
    values = flat(metric, o)
    assert flat(metric, image) == values
    assert all(type(value) is float for value in values.values())


@every
def test_a_metric_is_a_function_of_the_outcome_alone(metric):
    o = exact(50, gaussians([0.0, 0.0], [3.0, 0.0]))
    copies = o.samples.clone(), o.reference.clone()
    state = torch.get_rng_state()
    first = metric(o)
    torch.manual_seed(123)
    assert metric(o) == first
    torch.set_rng_state(state)
    metric(o)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(o.samples, copies[0])
    assert torch.equal(o.reference, copies[1])


def test_biased_distances_of_a_shift_in_many_dimensions():
    d, shift = 64, 6.0
    o = exact(2000, gaussians([0.0] * d), shift=shift)
    assert METRICS["sliced_w2"](o, directions=128) == pytest.approx(shift / 8, rel=0.02)
    assert METRICS["frechet"](o) == pytest.approx(shift**2, rel=0.05)
    assert METRICS["moments"](o)["mean_error"] == pytest.approx(shift / 8, rel=0.05)


def test_moments_and_frechet_prefer_the_exact_law():
    law = gaussians([1.0, 0.0], scale=2.0)
    x = torch.tensor([[1.0, 2.0], [1.0, -2.0], [3.0, 0.0], [-1.0, 0.0]])  # covariance 8/3 I
    y = torch.tensor([[9.0, 0.0], [9.0, 6.0], [9.0, 0.0], [9.0, 6.0]])
    o = outcome(x, y, law)
    assert METRICS["moments"](o) == pytest.approx({"mean_error": 0.0, "cov_error": 1 / 3})
    assert METRICS["frechet"](o) == pytest.approx(2 * (2 - math.sqrt(8 / 3)) ** 2)
    against = {"against": "reference"}
    # the reference has mean (9, 3) and covariance diag(0, 12)
    assert METRICS["moments"](o, **against)["mean_error"] == pytest.approx(math.sqrt(73 / 12))
    expected = 64 + 9 + 8 / 3 + (math.sqrt(12) - math.sqrt(8 / 3)) ** 2
    assert METRICS["frechet"](o, **against) == pytest.approx(expected)
    no_law = dataclasses.replace(o, law=None)
    assert METRICS["frechet"](no_law) == pytest.approx(expected)
    with pytest.raises(labcore.MetricError, match="against='reference'"):
        METRICS["frechet"](no_law, against="law")


def test_likelihood_gap_of_a_shift_and_of_collapse():
    law = gaussians([0.0, 0.0, 0.0])
    value = METRICS["nll"](exact(50_000, law, shift=1.0))
    assert value["gap"] == pytest.approx(1 / 2, abs=0.05)
    assert value["nll"] == pytest.approx(1.5 * math.log(2 * math.pi * math.e) + 1 / 2, abs=0.05)
    collapsed = METRICS["nll"](exact(50_000, law, spread=-1.0))
    assert collapsed["gap"] == pytest.approx(-3 / 2, abs=0.05)


def test_likelihood_uses_the_target_density_when_the_law_is_no_mixture():
    x, y = torch.rand(100, 2, 3), torch.rand(100, 2, 3)
    density = labcore.Target((2, 3), lambda n, g: y, lambda z: -z.sum((1, 2))).log_prob
    value = METRICS["nll"](outcome(x, y, density=density))
    assert value["nll"] == pytest.approx(x.sum((1, 2)).mean().item(), rel=1e-6)


@pytest.mark.parametrize("K", [2, 5])
def test_mode_weights_is_the_total_variation_of_the_masses(K):
    means = [[10.0 * k, 0.0] for k in range(K)]
    wrong = gaussians(*means, weights=[0.7] + [0.3 / (K - 1)] * (K - 1))
    right = gaussians(*means)
    x = wrong.sample(40_000, torch.Generator().manual_seed(1))
    value = METRICS["mode_weights"](outcome(x, x, right))
    assert value == pytest.approx(0.7 - 1 / K, abs=0.01)


def test_large_sets_take_the_sliced_and_blocked_estimators():
    o = exact(600, gaussians([0.0, 0.0]), shift=1.0)
    energy, mmd = METRICS["energy"], METRICS["mmd"]
    assert energy(o, pairs_up_to=100) == pytest.approx(energy(o), rel=0.02)
    x, y = o.samples, o.reference
    assert energy(o, pairs_up_to=600) == energy_distance(x, y)
    assert energy(o, pairs_up_to=599) != energy_distance(x, y)
    thirds = [mmd2(x[i : i + 200], y[i : i + 200], 1.5) for i in (0, 200, 400)]
    assert mmd(o, block=200, bandwidth=1.5) == pytest.approx(statistics.mean(thirds))
    assert mmd(o, block=200) == pytest.approx(mmd(o), rel=0.2)
    both = mmd(o, scales=(0.5, 2.0), bandwidth=1.0)
    assert both == pytest.approx((mmd2(x, y, 0.5) + mmd2(x, y, 2.0)) / 2)


def test_w2_matches_a_random_part_when_asked():
    o = exact(300, gaussians([0.0, 0.0, 0.0]), shift=3.0)
    assert METRICS["w2"](o, at_most=200) == pytest.approx(METRICS["w2"](o), rel=0.1)
    shifted = outcome(o.reference + 1, o.reference)
    assert METRICS["w2"](shifted, at_most=300) == pytest.approx(math.sqrt(3), rel=1e-6)


# Null and power


@pytest.mark.parametrize("options", [{}, {"pairs_up_to": 1, "directions": 8}])
def test_energy_is_centred_on_exact_sets_pairwise_and_sliced(options):
    law = gaussians([0.0, 0.0, 0.0], [4.0, 0.0, 0.0])
    values = torch.tensor([METRICS["energy"](exact(40, law, s), **options) for s in range(150)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(150)
    assert (values < 0).any()


@pytest.mark.parametrize("label", UNBIASED)
def test_unbiased_metrics_are_centred_on_exact_sets(label):
    law = gaussians([0.0, 0.0], [4.0, 0.0])
    metric, centre = METRICS[label.split(".")[0]], 1 if label == "prdc.density" else 0
    values = torch.tensor([flat(metric, exact(40, law, s))[label] for s in range(150)])
    assert abs(values.mean() - centre) < 4 * values.std() / math.sqrt(150)


@pytest.mark.parametrize("classifier", ["knn", "logistic", "mlp"])
def test_classifiers_are_right_half_the_time_on_exact_sets(classifier):
    law, repeats = gaussians([0.0, 0.0], [4.0, 0.0]), 8 if classifier == "mlp" else 25
    values = [METRICS["c2st"](exact(100, law, s), classifier=classifier) for s in range(repeats)]
    spread = statistics.stdev(values) / math.sqrt(repeats)
    assert statistics.mean(values) == pytest.approx(0.5, abs=4 * spread)


# (metric, d, shift of the mean, relative spread) that 1000 samples of N(0, I) give away
SEEN = [
    ("sliced_w2", 2, 0.23, 0.12),
    ("sliced_w2", 64, 0.32, 0.04),
    ("w2", 2, 0.23, 0.12),
    ("w2", 64, 1.3, 0.015),
    ("energy", 2, 0.23, 0.16),
    ("energy", 64, 0.32, 0.06),
    ("mmd", 2, 0.23, 0.16),
    ("mmd", 64, 0.32, 0.06),
    ("frechet", 2, 0.12, 0.12),
    ("frechet", 64, 0.32, 0.04),
    ("moments.mean_error", 2, 0.12, None),
    ("moments.mean_error", 64, 0.23, None),
    ("moments.cov_error", 2, None, 0.08),
    ("moments.cov_error", 64, None, 0.02),
    ("nll.gap", 2, 0.64, 0.08),
    ("nll.gap", 64, 1.3, 0.015),
    ("prdc.coverage", 2, 0.64, 0.46),
    ("prdc.coverage", 64, 1.3, 0.03),
    ("c2st", 2, 0.46, 0.23),
    ("c2st", 64, 0.64, None),
]


@pytest.mark.parametrize(("label", "d", "shift", "spread"), SEEN)
def test_what_a_metric_is_said_to_see_lies_outside_its_floor(label, d, shift, spread):
    """Twice the stated move is beyond ten values of the floor, each time of three."""
    metric, law = METRICS[label.split(".")[0]], gaussians([0.0] * d)
    floor = [flat(metric, exact(1000, law, s))[label] for s in range(10)]
    for move in ({"shift": shift}, {"spread": spread}):
        if None in move.values():
            continue
        doubled = {key: 2 * size for key, size in move.items()}
        found = [flat(metric, exact(1000, law, 50 + s, **doubled))[label] for s in range(3)]
        if label == "prdc.coverage":
            assert max(found) < min(floor)
        else:
            assert min(found) > max(floor)


@pytest.mark.parametrize("K", [2, 20])
def test_mode_weights_sees_masses_beyond_its_floor(K):
    """For K equal modes apart the floor is near 0.4 sqrt((K-1)/n): binomial errors, halved."""
    law = gaussians(*[[20.0 * k] for k in range(K)])
    values = [METRICS["mode_weights"](exact(1000, law, s)) for s in range(200)]
    spread = statistics.stdev(values) / math.sqrt(200)
    floor = math.sqrt((K - 1) / (2 * math.pi * 1000))
    assert statistics.mean(values) == pytest.approx(floor, abs=4 * spread)

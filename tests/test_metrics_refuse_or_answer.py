"""Hard inputs: every metric gives the right number or one line that says what is wrong."""

import math

import pytest
import torch

import labcore
import labcore_metrics

METRICS = {
    entry.name: entry
    for entry in labcore_metrics.register_metrics()
    if entry.traits.get("floor", True)  # of samples: those of scores have tests of their own
}
every = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def gaussian(d, variance=1.0):
    eye = torch.eye(d, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return labcore.Mixture(one, torch.zeros(1, d, dtype=torch.float64), variance * eye[None])


def outcome(x, y, law=None):
    target = labcore.Target(event=tuple(x.shape[1:]), sample=lambda n, g: y[:n], mixture=law)
    return labcore.Outcome(x, y, target, law, 0)


def exact(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return outcome(torch.randn(n, d, generator=g), torch.randn(n, d, generator=g), gaussian(d))


def numbers(value):
    return list(value.values()) if type(value) is dict else [value]


def refusal(metric, o, **options):
    with pytest.raises(labcore.MetricError) as caught:
        metric(o, **options)
    text = str(caught.value)
    assert text.startswith(f"metric '{metric.name}': ")
    assert "; " in text, "no remedy"
    assert "\n" not in text
    assert caught.value.exit_code == 1
    return text


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e35])
def test_diverged_samples_are_counted_and_refused(metric, bad):
    o = exact(60, 3)
    o.samples[[4, 7]] = bad
    assert "2 of 60 samples" in refusal(metric, o)
    o = exact(60, 3)
    o.reference[5, 1] = bad
    assert "1 of 60 reference points" in refusal(metric, o)


@every
def test_fewer_samples_than_the_minimum_are_refused(metric):
    least = metric.traits["minimum"]
    text = refusal(metric, exact(least - 1, 2))
    assert f"{least - 1} samples" in text
    assert f"needs {least}" in text


@every
@pytest.mark.parametrize("d", [1, 2, 40])
def test_the_minimum_is_enough(metric, d):
    options = {"k": 1} if metric.name == "prdc" else {}
    assert all(map(math.isfinite, numbers(metric(exact(metric.traits["minimum"], d), **options))))


@every
def test_sets_of_different_shapes_are_refused(metric):
    x = torch.randn(60, 2)
    for a, b in ((x, x[:50]), (x, x[:, :1]), (x, x[:, None]), (x[:, :0], x[:, :0])):
        o = outcome(a, b, gaussian(2))
        if a.shape[1:].numel() == b.shape[1:].numel() and len(a) == len(b) and a.shape[1]:
            continue  # the same points under another event shape
        assert "reference" in refusal(metric, o)


@pytest.mark.parametrize("name", ["sliced_w2", "w2", "energy", "frechet", "mmd", "prdc", "c2st"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_four_thousand_dimensions_in_any_precision(name, dtype):
    d = 4096
    o = exact(24, d)
    near = METRICS[name](outcome(o.samples.to(dtype), o.reference.to(dtype)))
    far = METRICS[name](outcome(o.samples.to(dtype) + 10, o.reference.to(dtype)))
    if name == "prdc":
        assert near["density"] > 0
        assert (far["precision"], far["density"], far["coverage"]) == (0, 0, 0)
    elif name == "c2st":
        assert far > 0.95
    elif name == "mmd":
        assert far > near + 0.5
    else:
        exact_values = {"sliced_w2": 10, "w2": 640, "energy": 2 * 647 - 2 * 90.5}
        exact_values["frechet"] = 409_600
        # the distance of a shift m of |m| = 640 between sets of radius 64, which blurs it
        assert far == pytest.approx(exact_values[name], rel=0.05)
        assert near < far / 5


IDENTICAL = {
    "sliced_w2": 0.0,
    "w2": 0.0,
    "energy": 0.0,
    "frechet": 0.0,
    "c2st": 0.5,
    "prdc": {"precision": 1, "recall": 1, "density": 60 / 5, "coverage": 1},
}


@pytest.mark.parametrize("name", IDENTICAL)
@pytest.mark.parametrize("value", [0.0, 3.7])
def test_constant_data_that_are_reproduced(name, value):
    x = torch.full((60, 3), value)
    assert METRICS[name](outcome(x, x.clone())) == pytest.approx(IDENTICAL[name], abs=1e-12)


APART = {"sliced_w2": 2.0, "w2": math.sqrt(12), "energy": 2 * math.sqrt(12), "frechet": 12.0}


@pytest.mark.parametrize("name", APART)
def test_constant_data_that_are_missed(name):
    x = torch.full((60, 3), 1.5)
    options = {"directions": 99} if name == "sliced_w2" else {}  # whole frames
    assert METRICS[name](outcome(x + 2, x), **options) == pytest.approx(APART[name], rel=1e-6)


def test_constant_data_have_no_median_and_no_relative_error():
    x = torch.full((60, 3), 1.5)
    assert "pass bandwidth" in refusal(METRICS["mmd"], outcome(x, x))
    value = METRICS["mmd"](outcome(x + 1, x), bandwidth=1.0)
    assert value == pytest.approx(2 - 2 * math.exp(-1.5))
    assert "single point" in refusal(METRICS["moments"], outcome(x, x))


@pytest.mark.parametrize("name", ["nll", "mode_weights"])
def test_a_law_that_is_unknown_or_without_density_is_refused(name):
    x = torch.randn(60, 2)
    assert "mixture" in refusal(METRICS[name], outcome(x, x))
    with pytest.raises(labcore.LabError, match="positive definite"):
        METRICS[name](outcome(x, x, gaussian(2, variance=0.0)))


def test_samples_where_the_density_vanishes_are_refused():
    x = torch.rand(60, 1)
    log_prob = lambda z: torch.where((z > 0) & (z < 1), 0.0, -torch.inf).squeeze(1)  # noqa: E731
    target = labcore.Target((1,), lambda n, g: x, log_prob)
    assert METRICS["nll"](labcore.Outcome(x, x, target, None, 0))["nll"] == 0
    text = refusal(METRICS["nll"], labcore.Outcome(x + 2, x, target, None, 0))
    assert "density zero" in text


def test_too_many_points_to_match_are_refused_with_the_way_out():
    o = exact(5000, 2)
    assert "at_most=" in refusal(METRICS["w2"], o)
    assert METRICS["w2"](o, at_most=100) < 1.5
    assert METRICS["w2"](exact(200_000, 1)) < 0.05  # sorting has no such limit


def test_options_that_do_not_fit_the_samples_are_refused():
    o = exact(60, 2)
    assert "k < 60" in refusal(METRICS["prdc"], o, k=60)
    assert "folds <= 60" in refusal(METRICS["c2st"], o, folds=61)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sliced_w2", {"directions": 0}),
        ("w2", {"at_most": -1}),
        ("energy", {"pairs_up_to": 2.5}),
        ("mmd", {"bandwidth": 0.0}),
        ("mmd", {"scales": ()}),
        ("mmd", {"scales": (1.0, -1.0)}),
        ("mmd", {"block": 1}),
        ("frechet", {"against": "the truth"}),
        ("c2st", {"classifier": "forest"}),
        ("c2st", {"folds": 1}),
        ("prdc", {"k": 0}),
    ],
)
def test_wrong_options_are_refused_before_any_run(name, options):
    with pytest.raises(labcore.InvalidOption, match=next(iter(options))):
        METRICS[name].bind(options)

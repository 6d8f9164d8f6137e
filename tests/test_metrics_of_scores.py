"""Metrics that judge the score: zero or one at the exact score, known values at known errors."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import labcore
from labcore import Outcome, Process, Score, Target
from labcore_linear import cld, edm, ou, vp
from labcore_metrics import register_metrics
from labcore_scores.empirical import empirical
from labcore_scores.exact import exact
from labcore_scores.perturbed import perturbed
from labcore_targets.mixtures import gaussian, gmm_ring, mixture

METRIC = {entry.name: entry for entry in register_metrics()}
RING, D = gmm_ring(modes=4, std=0.3), 2
CASES = {"vp": vp(), "edm": edm(), "ou": ou(), "cld": cld()}
every = pytest.mark.parametrize("process", CASES.values(), ids=CASES)


def outcome(process: Process, score: Score, target: Target = RING, seed: int = 0) -> Outcome:
    x = torch.zeros(10, *target.event)
    return Outcome(x, x, target, target.mixture, seed, process, score)


def measured(name: str, of: Outcome, **options: Any) -> dict[str, float]:
    got: dict[str, float] = METRIC[name](of, **options)
    return got


def curve(found: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(float(k[2:]), v) for k, v in found.items() if k.startswith("t=")]
    t, values = zip(*pairs, strict=True)
    return torch.tensor(t).double(), torch.tensor(values).double()


@every
def test_the_exact_score_has_no_divergence(process: Process) -> None:
    found = measured("fisher", outcome(process, exact(process, RING)))
    assert found["integral"] < 1e-6 * process.T
    assert max(curve(found)[1]) < 1e-5
    assert found["likelihood"] < 1e-3


@every
def test_a_bias_has_its_stated_divergence_at_every_time(process: Process) -> None:
    b, size = 0.2, math.prod(process.event((2,)))
    found = measured("fisher", outcome(process, perturbed(process, RING, bias=b)), n=200)
    t, values = curve(found)
    assert len(t) == 16
    assert torch.allclose(values, torch.full_like(values, b**2 * size), rtol=2e-3)
    assert found["integral"] == pytest.approx(b**2 * size * (process.T - process.t_eps), rel=2e-3)


def test_the_integrals_of_a_bias_are_those_worked_out_by_hand() -> None:
    process, b = vp(), 0.2
    found = measured("fisher", outcome(process, perturbed(process, RING, bias=b)), n=50)
    ends = process.log_snr(torch.tensor([process.t_eps, process.T]).double())
    # |G^T L^-T e|^2 = g^2/sigma^2 |e|^2, and g^2/sigma^2 = -d log SNR/dt
    bound = b**2 * D / 2 * float(ends[0] - ends[1])
    assert found["likelihood"] == pytest.approx(bound, rel=2e-3)
    t = torch.logspace(math.log10(process.t_eps), 0, 20_001, dtype=torch.float64)
    plain = torch.trapezoid(b**2 * D / process.Sigma(t).param, t)
    assert found["plain"] == pytest.approx(float(plain), rel=5e-3)


def test_a_field_of_errors_has_its_mean_square() -> None:
    process = vp()
    found = measured("fisher", outcome(process, perturbed(process, RING, noise=0.1)), n=4000)
    assert found["integral"] == pytest.approx(0.01 * D * (1 - process.t_eps), rel=0.25)


@every
def test_losses_are_each_other_but_for_constants(process: Process) -> None:
    size = math.prod(process.event((2,)))
    right = measured("score_losses", outcome(process, exact(process, RING)))
    wrong = measured("score_losses", outcome(process, perturbed(process, RING, bias=0.5)))
    assert right["esm"] < 1e-5
    assert wrong["esm"] == pytest.approx(0.25 * size, rel=2e-3)
    # the data are the same in both: what remains of the noise is of the cross term alone
    assert wrong["dsm"] - right["dsm"] == pytest.approx(0.25 * size, abs=0.05 * size)
    for found in (right, wrong):
        assert found["ssm"] + size == pytest.approx(found["dsm"], abs=0.15 * size)


def test_losses_of_a_data_set_know_no_exact_score() -> None:
    points = RING.sample(200, torch.Generator().manual_seed(0))
    data = replace(RING, mixture=None, data=points)
    found = measured("score_losses", outcome(vp(), empirical(vp(), data), data))
    assert set(found) == {"dsm", "ssm"}


@every
def test_the_exact_score_states_its_own_error(process: Process) -> None:
    found = measured("tweedie_calibration", outcome(process, exact(process, RING)), n=8000)
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["slope"] == pytest.approx(1, abs=0.02)
    assert all(v == pytest.approx(1, abs=0.04) for k, v in found.items() if "ratio t" in k)


def test_a_steeper_score_on_a_gaussian_is_as_wrong_as_by_hand() -> None:
    process, c, S = vp(), 0.3, 0.8
    target = gaussian(mean=(0.5,), cov=((S,),))
    score = perturbed(process, target, scale=c)
    found = measured("tweedie_calibration", outcome(process, score, target), n=40_000, times=4)
    for name, value in found.items():
        if "t=" not in name:
            continue
        t = torch.tensor(float(name.split("=")[1])).double()
        a, s2 = float(process.Phi(t, 0 * t).param), float(process.Sigma(t).param)
        V = a**2 * S + s2  # D - m = g (x - a m) with g = (1 - (1 + c) s2 / V) / a
        g = (1 - (1 + c) * s2 / V) / a
        wanted = a * S / (g * V)
        if name.startswith("ratio"):
            wanted = (g * s2 / a) / (S - 2 * g * a * S + g**2 * V)
        assert value == pytest.approx(wanted, rel=0.04, abs=0.01), name


def test_outcomes_without_a_score_or_a_law_are_refused() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(labcore.MetricError, match="no process and score"):
        measured("fisher", Outcome(x, x, RING, RING.mixture, 0))
    bare = replace(RING, mixture=None)
    with pytest.raises(labcore.MetricError, match="use a mixture target, or score_losses"):
        measured("fisher", outcome(vp(), lambda x, t: x, bare))


def test_in_a_study_they_judge_the_cells_score_and_have_no_floor(tmp_path: Any) -> None:
    from labcore.lab import run_study
    from labcore.store import open_store
    from labcore.work import pending

    study = labcore.Study(
        name="judged",
        question="Is it right?",
        target=labcore.use("gmm_ring", std=0.3),
        process="vp",
        score=["exact", labcore.use("perturbed", bias=0.2)],
        grid="log_snr",
        sampler="ddim",
        steps=2,
        n=50,
        floor_repeats=2,
        metrics=["energy", labcore.use("fisher", times=4, n=100)],
    )
    where = tmp_path / "r.sqlite"
    summary = run_study(study, where)
    assert summary.failed == 0
    with open_store(where) as store:
        frame = store.frame("judged")
    floors = frame[frame["kind"] == "floor"]
    assert set(floors["metric"]) == {"metrics:energy"}
    rows = frame[(frame["kind"] == "cell") & frame["metric"].str.endswith(".integral")]
    found = dict(zip(rows["score"], rows["value"], strict=True))
    assert found["scores:exact"] < 1e-6
    assert found["scores:perturbed(bias=0.2)"] == pytest.approx(0.08, rel=0.01)
    registry = study.registry()
    with open_store(where) as store:
        cells, metrics = study.cells(registry), study.metric_uses(registry)
        assert not list(pending(study, cells, metrics, store, registry))


def test_a_mixture_of_full_covariances_agrees_with_the_closed_score() -> None:
    target = mixture(d=4, seed=2)
    found = measured("fisher", outcome(cld(), exact(cld(), target), target), n=100, times=6)
    assert found["integral"] < 1e-6

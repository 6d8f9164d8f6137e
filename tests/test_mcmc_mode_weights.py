"""Annealing finds the weights of modes that a chain at one noise level cannot."""

import math
import re
import runpy
from itertools import groupby
from pathlib import Path

import pytest

import labcore
from labcore.parts import Parts
from labcore.run import run_cells

STUDY = Path(__file__).parent.parent / "studies" / "mode_weights.py"


def test_annealed_chains_recover_weights_that_plain_ones_do_not() -> None:
    """Means of three runs of n = 2000, whose own sampling puts weights 0.01 off: bounds are six
    standard errors of a mean, 0.006, above what many runs give. Basins of attraction: 0.2 off."""
    study = runpy.run_path(str(STUDY))["study"]
    assert isinstance(study, labcore.Study)
    registry = labcore.load_registry()
    parts, error = Parts(registry), {}
    cells = sorted(study.cells(registry), key=lambda cell: str(cell.but_seed))
    for _, group in groupby(cells, key=lambda cell: cell.but_seed):
        batch = list(group)
        name = batch[0].sampler.name.partition(":")[2]
        if name.startswith(("langevin", "mala", "annealed", "oracle")):
            results = run_cells(batch, study.metric_uses(registry), parts)
            assert [result.status for result in results] == ["ok"] * 3
            found = [result.values["metrics:mode_weights"][""] for result in results]
            error[name, results[0].nfe > 500] = sum(found) / 3
    for longer in (False, True):
        assert error["langevin", longer] > 0.17
        assert error["mala", longer] > 0.17
        assert error["oracle", longer] < 0.045
        assert error["annealed_hmc", longer] < (0.055 if longer else 0.08)
        assert error["annealed_mala", longer] < (0.055 if longer else 0.08)
        assert error["annealed_langevin", longer] < (0.06 if longer else 0.1)


def small(**changes: object) -> labcore.Study:
    axes: dict[str, object] = {
        "name": "small",
        "question": "does it fit together?",
        "target": "gmm_ring",
        "process": "vp",
        "grid": "log_snr",
        "sampler": "mala",
        "steps": 5,
        "n": 20,
        "metrics": ["energy"],
    }
    return labcore.Study(**{**axes, **changes})  # type: ignore[arg-type]


def test_a_score_without_a_density_is_refused_before_anything_runs() -> None:
    with pytest.raises(labcore.InvalidStudy, match="'mala': it needs log_p_t, which none of"):
        small(score="perturbed").cells(labcore.load_registry())
    with pytest.raises(labcore.InvalidStudy, match="'oracle': it needs reverse, which none of"):
        small(score="perturbed", sampler="oracle").cells(labcore.load_registry())


def test_acceptance_is_a_row_beside_the_metrics() -> None:
    study, registry = small(), labcore.load_registry()
    (result,) = run_cells(study.cells(registry), study.metric_uses(registry), Parts(registry))
    assert 0 < result.values["diagnostics"]["acceptance"] <= 1
    assert result.nfe == 2 * 5 + 2


def test_budgets_follow_the_options_that_set_the_cost() -> None:
    """5 leapfrog steps and a density a proposal cost 6, and two calls come before the first."""
    samplers = [
        labcore.use("hmc"),
        labcore.use("hmc", leapfrog=9, inner=2),
        labcore.use("annealed_langevin", inner=10),
        labcore.use("predictor_corrector", predictor="heun", inner=3),
        labcore.use("annealed_mala", inner=4),
        labcore.use("annealed_hmc", inner=2, leapfrog=4),
        labcore.use("predictor_metropolis", corrector="hmc", leapfrog=2),
    ]
    registry = labcore.load_registry()
    study = small(sampler=samplers, steps=(), nfe=62)
    parts = Parts(registry)
    steps = []
    for cell in study.cells(registry):
        (result,) = run_cells([cell], study.metric_uses(registry), parts)
        steps.append((cell.steps, result.nfe))
    assert steps == [
        *((10, 62), (3, 62), (6, 60), (12, 60)),
        *((6, 60), (5, 60), (10, 60)),
    ]


@labcore.score(gives=("log_p_t",))
def broken(process: labcore.Process, target: labcore.Target) -> labcore.Score:
    """NaN everywhere, as is its density."""
    return labcore.ScoreWith(lambda x, t: x * math.nan, lambda x, t: x.sum(1) * math.nan)


@pytest.mark.parametrize("sampler", ["mala", "hmc", "metropolis", "langevin"])
def test_nan_is_blamed_on_the_score_and_not_refused_in_silence(sampler: str) -> None:
    study = small(sampler=sampler, score="local:broken", entries=[broken])
    registry = labcore.load_registry([broken])
    (result,) = run_cells(study.cells(registry), study.metric_uses(registry), Parts(registry))
    assert result.status == "failed"
    assert re.search("score.* NaN or Inf at t=0.001", result.reason)

"""Annealing finds the weights of modes that a chain at one noise level cannot."""

import runpy
from pathlib import Path

import labcore
from labcore.parts import Parts
from labcore.run import run_cells

STUDY = Path(__file__).parent.parent / "studies" / "mode_weights.py"


def test_annealed_langevin_recovers_weights_that_plain_langevin_does_not() -> None:
    """At n = 2000 the weights of exact samples are 0.01 off; basins of attraction 0.2."""
    study = runpy.run_path(str(STUDY))["study"]
    assert isinstance(study, labcore.Study)
    registry = labcore.load_registry()
    parts, error = Parts(registry), {}
    for cell in study.cells(registry):
        name = cell.sampler.name.partition(":")[2]
        if name in ("langevin", "mala", "annealed_langevin", "oracle") and cell.seed == 0:
            (result,) = run_cells([cell], study.metric_uses(registry), parts)
            assert result.status == "ok", result.reason
            error[name, result.nfe > 500] = result.values["metrics:mode_weights"][""]
    for longer in (False, True):
        assert error["langevin", longer] > 0.17
        assert error["mala", longer] > 0.17
        assert error["oracle", longer] < 0.035
    assert error["annealed_langevin", False] < 0.1
    assert error["annealed_langevin", True] < 0.04

"""labcore: a lab that measures the samplers of score-based generative models.

The public face. Names are loaded on first use, so that importing the package costs nothing:
``labcore --help`` must not pay for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "adapt": "Levels levels require serving",
    "certification": "certify",
    "entry": "Entry grid metric network objective process reporter sampler score target",
    "errors": "InvalidGrid InvalidOption InvalidProcess InvalidStudy LabError MetricError"
    " PluginError SamplerError ScoreError StoreError TrainingError Unavailable UnknownName",
    "grids": "check_grid",
    "hookspecs": "hookimpl",
    "learn": "Recipe Trained load_trained train",
    "linop": "Diag LinOp Mat Scalar",
    "metrics": "Outcome",
    "models": "Model",
    "noise": "Noise",
    "parameterisations": "At PARAMETERISATIONS",
    "parts": "Parts",
    "processes": "Process",
    "registry": "Registry load_registry",
    "run": "run_cells",
    "scores": "Conditional CountedScore Reverse Score ScoreWith counted eps_from_score"
    " reverse_drift score_from_energy score_from_eps guided score_from_v score_from_x0"
    " v_from_score velocity x0_from_score",
    "study": "Cell Event Study Use read_use use",
    "targets": "Mixture Target data_law from_mixture state_law",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labcore' has no attribute {name!r}")
    value = getattr(import_module(f"labcore.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if TYPE_CHECKING:
    from labcore.adapt import Levels, levels, require, serving
    from labcore.certification import certify
    from labcore.entry import (
        Entry,
        grid,
        metric,
        network,
        objective,
        process,
        reporter,
        sampler,
        score,
        target,
    )
    from labcore.errors import (
        InvalidGrid,
        InvalidOption,
        InvalidProcess,
        InvalidStudy,
        LabError,
        MetricError,
        PluginError,
        SamplerError,
        ScoreError,
        StoreError,
        TrainingError,
        Unavailable,
        UnknownName,
    )
    from labcore.grids import check_grid
    from labcore.hookspecs import hookimpl
    from labcore.learn import Recipe, Trained, load_trained, train
    from labcore.linop import Diag, LinOp, Mat, Scalar
    from labcore.metrics import Outcome
    from labcore.models import Model
    from labcore.noise import Noise
    from labcore.parameterisations import PARAMETERISATIONS, At
    from labcore.parts import Parts
    from labcore.processes import Process
    from labcore.registry import Registry, load_registry
    from labcore.run import run_cells
    from labcore.scores import (
        Conditional,
        CountedScore,
        Reverse,
        Score,
        ScoreWith,
        counted,
        eps_from_score,
        guided,
        reverse_drift,
        score_from_energy,
        score_from_eps,
        score_from_v,
        score_from_x0,
        v_from_score,
        velocity,
        x0_from_score,
    )
    from labcore.study import Cell, Event, Study, Use, read_use, use
    from labcore.targets import Mixture, Target, data_law, from_mixture, state_law

"""Rows of a study that never ran, with values the tests choose."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

DEFAULTS = {
    **{"study": "demo", "kind": "cell", "target": "targets:rings", "process": "linear:vp"},
    **{"score": "scores:exact", "grid": "linear:quadratic", "sampler": "samplers:ddim(eta=0.0)"},
    **{"steps": 10, "nfe": 10, "n": 1000, "seed": 0, "start": "prior", "end": "stop"},
    **{"against": "data", "metric": "metrics:energy", "value": 1.0, "seconds": 0.1},
    **{"status": "ok", "reason": "", "labcore": "0.1.0", "torch": "2.13", "plugins": "{}"},
}
OF_A_FLOOR = {
    **{"kind": "floor", "process": "", "score": "", "grid": "", "sampler": "", "start": ""},
    **{"end": "", "steps": np.nan, "nfe": np.nan},
}


def row(**given: Any) -> dict[str, Any]:
    """One row; its key is told by all that names a cell."""
    made = {**DEFAULTS, **given}
    named = ("target", "process", "score", "grid", "sampler", "steps", "nfe", "n", "seed")
    ends = ("start", "end", "against", "kind")
    return {"key": "|".join(str(made.get(c)) for c in (*named, *ends, "t_eps")), **made}


def failed(**given: Any) -> dict[str, Any]:
    return row(**{"status": "failed", "reason": "score is NaN", "value": np.nan, **given})


def seeds(values: Iterable[float], **given: Any) -> list[dict[str, Any]]:
    """One cell per value, seeds 0, 1, ...; a NaN is a failed cell."""
    makers = [(failed if np.isnan(v) else row, v) for v in values]
    return [make(seed=i, value=v, **given) for i, (make, v) in enumerate(makers)]


def floor(values: Iterable[float], **given: Any) -> list[dict[str, Any]]:
    return [row(seed=i, value=v, **{**OF_A_FLOOR, **given}) for i, v in enumerate(values)]


def frame(*lists: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([r for rows in lists for r in rows])


def curve(law: Any, steps: Iterable[int], factors: Iterable[float], **given: Any) -> list[Any]:
    """Cells at each step count k with values law(k) times each seed's factor."""
    factors = np.asarray(list(factors))
    return [r for k in steps for r in seeds(law(k) * factors, **{"steps": k, "nfe": k, **given})]


def table(columns: dict[str, Any], **given: Any) -> pd.DataFrame:
    """A long frame at once: `columns` hold one value per row, all else is as `row` has it."""
    rows = pd.DataFrame([row(**given)])
    count = len(next(iter(columns.values())))
    rows = rows.loc[[0] * count].reset_index(drop=True).assign(**columns)
    return rows.assign(key=[str(i) for i in range(count)])


def band_of_means(repeats: Iterable[float], k: int, level: float = 0.95) -> tuple[float, float]:
    """Where the mean over k more repeats falls: mean +- t_{R-1} sd sqrt(1/k + 1/R)."""
    x = np.asarray(list(repeats))
    t = float(scipy.stats.t.ppf((1 + level) / 2, len(x) - 1))
    half = t * float(x.std(ddof=1)) * np.sqrt(1 / k + 1 / len(x))
    return float(x.mean()) - half, float(x.mean()) + half

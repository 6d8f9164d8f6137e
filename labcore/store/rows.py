"""What a run hands to the store: one row a cell, or one a repeat of a noise floor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labcore.run import Result
    from labcore.study import Cell, Floor, Use

Values = Mapping[str, Mapping[str, float]]
"""Metric label -> sub name ("" for a metric of one number) -> value."""


@dataclass(frozen=True)
class Versions:
    """What a result was computed with; ``plugins`` is JSON text, {plugin: version}."""

    labcore: str = ""
    torch: str = ""
    plugins: str = "{}"


@dataclass(frozen=True)
class CellRow:
    """One cell as it ended, or one repeat of a noise floor.

    ``columns`` are its labels and numbers (target ... dtype, steps, n, seed), ``spec`` the JSON
    of its parts with every option, and of the t_eps it is compared at. ``status`` "ok" comes with
    ``values``, and in ``unmeasured`` the reason of each metric that failed; any other status
    comes with a ``reason``.
    """

    key: str
    study: str
    columns: Mapping[str, Any]
    status: str = "ok"
    values: Values = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""
    nfe: float = math.nan
    seconds: float = math.nan
    versions: Versions = Versions()
    kind: str = "cell"
    repeat: int = 0
    spec: str = "{}"

    def measured(self) -> Iterator[tuple[str, str, float, str, str]]:
        """Its results: (metric, sub, value, status, reason); one without metric if it failed."""
        if self.status != "ok":
            yield "", "", math.nan, self.status, self.reason
            return
        for metric, named in self.values.items():
            for sub, value in named.items():
                yield metric, sub, float(value), "ok", ""
        for metric, reason in self.unmeasured.items():
            yield metric, "", math.nan, "failed", reason


def cell_row(
    study: str, result: Result, versions: Versions, t_eps: float | None = None
) -> CellRow:
    """The row of one result of ``run_cells``; ``t_eps`` where it was compared with p_{t_eps}."""
    cell: Cell = result.cell
    return CellRow(
        cell.key,
        study,
        cell.columns(),
        status=result.status,
        values=result.values,
        unmeasured=result.unmeasured,
        reason=result.reason,
        traceback=result.traceback,
        nfe=result.nfe,
        seconds=result.seconds,
        versions=versions,
        spec=_spec(t_eps, cell.target, cell.process, cell.score, cell.grid, cell.sampler),
    )


def floor_rows(
    study: str, floor: Floor, repeats: Sequence[Values], versions: Versions, seconds: float
) -> list[CellRow]:
    """The rows of one noise floor, one a repeat, from the first on."""
    process = "" if floor.process is None else str(floor.process)
    columns = {
        "target": str(floor.target),
        "process": process,
        "n": floor.n,
        "against": floor.against,
    }
    return [
        CellRow(
            floor.key,
            study,
            columns,
            values=values,
            seconds=seconds / len(repeats),
            versions=versions,
            kind="floor",
            repeat=repeat,
            spec=_spec(floor.t_eps, floor.target, floor.process),
        )
        for repeat, values in enumerate(repeats)
    ]


@lru_cache(maxsize=4096)
def _spec(t_eps: float | None, *uses: Use | None) -> str:
    parts = [(use.name, dict(use.options)) for use in uses if use is not None]
    data = parts if t_eps is None else [t_eps, *parts]
    return json.dumps(data, separators=(",", ":"), default=str)


def read_spec(spec: str) -> tuple[list[Any], float]:
    """The parts of a row and the t_eps of the law it was compared with, NaN for the data's."""
    parts = list(json.loads(spec))
    t_eps = parts.pop(0) if parts and isinstance(parts[0], float) else math.nan
    return parts, t_eps

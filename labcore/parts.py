"""Building the parts of cells once each: targets, processes, grids and scores by their Use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from labcore.errors import LabError
from labcore.grids import check_grid
from labcore.processes import Process
from labcore.registry import Registry
from labcore.scores import Score
from labcore.study import Cell, Use
from labcore.targets import Target


@dataclass(frozen=True)
class Parts:
    """What a registry makes of the uses in cells, kept so that equal uses share one object.

    ``folder`` is where scores that take long to make are kept and ``tell`` is told how they go;
    without ``make`` they are only loaded, and NotMade is raised where there is nothing to load.
    """

    registry: Registry
    folder: Path = Path("scores")
    tell: Callable[[str], None] = lambda message: None
    make: bool = True
    _built: dict[Any, Any] = field(default_factory=dict)

    def _once(self, kind: str, use: Use, *args: Any, key: Any = ()) -> Any:
        name = (kind, use, key)
        if name not in self._built:
            entry = self.registry.get(kind, use.name)
            try:
                self._built[name] = entry(*args, **dict(use.options))
            except LabError:
                raise
            except Exception as error:
                raise LabError(
                    f"{kind} '{use}': {type(error).__name__}: {error}; check its options"
                ) from error
        return self._built[name]

    def target(self, use: Use) -> Target:
        """The target ``use`` names."""
        target: Target = self._once("target", use)
        return target

    def process(self, use: Use) -> Process:
        """The process ``use`` names."""
        process: Process = self._once("process", use)
        return process

    def score(self, use: Use, process: Use, target: Use) -> Score:
        """The score ``use`` names, of this target under this process.

        An entry with the trait from_uses is made of what names them: it is called with these
        Parts and the uses (process, target), as a score that is trained by a recipe is.
        """
        if self.registry.get("score", use.name).traits.get("from_uses"):
            named: Score = self._once("score", use, self, (process, target), key=(process, target))
            return named
        parts = self.process(process), self.target(target)
        score: Score = self._once("score", use, *parts, key=(process, target))
        return score

    def grid(self, use: Use, process: Use, steps: int) -> Tensor:
        """The checked times (steps + 1,) of a grid; InvalidGrid."""
        made = self.process(process)
        ts = self._once("grid", use, made, steps, key=(process, steps))
        return check_grid(ts, made, steps, f"grid '{use}'")

    def times(self, cell: Cell) -> Tensor:
        """The grid of a cell."""
        return self.grid(cell.grid, cell.process, cell.steps)

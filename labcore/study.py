"""A study: axes of plain data that expand to cells, all checked before the first one runs."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral
from typing import Any

from labcore.errors import InvalidOption
from labcore.registry import Registry, load_registry
from labcore.text import reason_of

CHOICES = {
    "start": ("prior", "exact"),
    "end": ("stop", "denoise", "extrapolate"),
    "against": ("data", "t_eps"),
    "dtype": ("float32", "float64"),
}
"""The axes that are a choice of words, with the words they know."""

PARTS = ("target", "process", "score", "grid", "sampler")
"""The axes that are entries of plugins."""


@dataclass(frozen=True)
class Use:
    """An entry with options: ``use("ddim", eta=0.5)``.

    Made by :func:`use`; a study resolves it to the qualified name and all options, defaults
    included, so that a cell's key changes when, and only when, what it computes does.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    label: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.label or _label(self.name, dict(self.options))

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Name and options as JSON has them; the label is left out."""
        return {"name": self.name, "options": dict(self.options)}

    def resolve(self, kind: str, registry: Registry) -> Use:
        """The same with a qualified name and every option; UnknownName or InvalidOption."""
        entry = registry.get(kind, self.name)
        name = registry.qualified(kind, self.name)
        bound = entry.bind(dict(self.options))
        defaults = {key: p.default for key, p in entry.parameters.items()}
        shown = {key: value for key, value in bound.items() if value != defaults[key]}
        return Use(name, _freeze(bound), _label(name, shown))


def use(name: str, /, **options: Any) -> Use:
    """The entry ``name`` with these options, for an axis of a study."""
    return Use(name, _freeze(options))


def read_use(text: str) -> Use:
    """The use that ``text`` writes: ``ddim`` or ``ddim(eta=0.5)``, options as Python literals.

    Raises InvalidOption for anything else, such as a call or an operation inside.
    """
    name, bracket, rest = text.strip().partition("(")
    try:
        call = ast.parse(f"use({rest if bracket else ')'}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(k.arg for k in call.keywords):
            raise ValueError("options must be named")
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return Use(name.strip(), _freeze(options))
    except (SyntaxError, ValueError) as error:
        raise InvalidOption(
            f"{text!r}: its options cannot be read ({reason_of(error)}); write name or "
            "name(option=value), such as ddim(eta=0.5)"
        ) from error


def _freeze(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    def freeze(value: Any) -> Any:
        return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value

    return tuple(sorted((key, freeze(value)) for key, value in options.items()))


def _label(name: str, options: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{key}={_short(value)}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:24]}..#{digest(value)[:6]}"


def digest(data: Any) -> str:
    """sha256 of the canonical JSON of plain data, in hex."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One run, as plain data; ``key`` is the hash of its JSON.

    start: x_T from the process's "prior" or from the "exact" p_T. end: "stop" at t_eps, or go on
    to 0 by one more score call, counted: "denoise" to E[x0 | x] (Tweedie) or "extrapolate" along
    the probability flow (Process.extrapolate). against: compare with p_0 ("data") or with
    p_{t_eps} ("t_eps"). Each switches one cause of error off.
    """

    target: Use
    process: Use
    score: Use
    grid: Use
    sampler: Use
    steps: int
    n: int
    seed: int
    start: str = "prior"
    end: str = "stop"
    against: str = "data"
    dtype: str = "float32"

    @cached_property
    def key(self) -> str:
        """32 hex digits that name this computation."""
        return digest(_plain(self))[:32]

    @cached_property
    def but_seed(self) -> tuple[Any, ...]:
        """Equal for cells that differ in their seed alone, which run as one batch."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "seed")

    def columns(self) -> dict[str, Any]:
        """What identifies the cell in a row of results: labels and numbers."""
        return {f.name: _column(getattr(self, f.name)) for f in fields(self)}

    def __str__(self) -> str:
        return (
            f"{self.sampler} x {self.grid}, {self.steps} steps, seed {self.seed}, "
            f"{self.process} on {self.target}"
        )


@dataclass(frozen=True)
class Floor:
    """A noise floor: a metric between two independent exact sample sets, ``repeats`` times.

    ``process`` and ``t_eps`` are set where cells are compared with p_{t_eps}.
    """

    target: Use
    n: int
    repeats: int
    process: Use | None = None
    t_eps: float | None = None

    @cached_property
    def key(self) -> str:
        """32 hex digits; the repeats do not enter, so that more of them only add rows.

        Rows of old that were held against p_{t_eps} do not tell t_eps, and keep their own key.
        """
        tells = {} if self.t_eps is None else {"tells": "t_eps"}
        return digest({**_plain(self), "repeats": None, **tells})[:32]

    @property
    def against(self) -> str:
        return "data" if self.process is None else "t_eps"

    def __str__(self) -> str:
        return f"noise floor of {self.target}, n={self.n}"


def _plain(cell: Any) -> dict[str, Any]:
    values = {f.name: getattr(cell, f.name) for f in fields(cell)}
    return {k: v.plain if isinstance(v, Use) else v for k, v in values.items()}


def _column(value: Any) -> Any:
    return str(value) if isinstance(value, Use) else value


@dataclass(frozen=True)
class Event:
    """What a reporter is handed: where the study stands.

    kind: "start"; "cell" with the finished cell in ``rows``; "note" with a ``message`` about
    something that is not a cell, such as a noise floor that failed; "finish".
    """

    kind: str
    done: int
    total: int
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    message: str = ""
    rows: tuple[Mapping[str, Any], ...] = ()


Axis = Any
"""One value or a sequence of them."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and the axes whose product answers it.

    Every axis takes one value or a sequence. ``steps`` or ``nfe`` gives the budget: at an equal
    NFE a sampler of k evaluations a step gets (nfe - extra) // k steps. ``where(cell)`` keeps a
    cell of the product. ``floor_repeats`` exact pairs measure each metric's noise floor.
    ``entries`` are this script's own plugins, known to the study as ``local:name``.
    """

    name: str
    question: str
    target: Axis
    process: Axis
    score: Axis = "scores:exact"
    grid: Axis
    sampler: Axis
    steps: Axis = ()
    nfe: Axis = ()
    seed: Axis = (0,)
    n: Axis = 2000
    start: Axis = "prior"
    end: Axis = "stop"
    against: Axis = "data"
    dtype: Axis = "float32"
    metrics: Axis
    floor_repeats: int = 10
    where: Callable[[Cell], bool] | None = None
    entries: Sequence[Any] = ()
    limit: int = 1_000_000

    @cached_property
    def _axes(self) -> dict[str, Sequence[Any]]:
        """Every axis, walked through once: a generator has no second time."""
        return {f.name: _values(getattr(self, f.name)) for f in fields(self) if f.type == "Axis"}

    def axis(self, name: str) -> Sequence[Any]:
        """The values of one axis; a range stays one, so that a long one costs nothing."""
        return self._axes[name]

    def registry(self) -> Registry:
        """The installed plugins and this study's own entries; PluginError for what is none."""
        return load_registry(_values(self.entries))

    def cells(self, registry: Registry) -> list[Cell]:
        """Every cell, names qualified and options checked; InvalidStudy lists all that is wrong.

        Processes, targets and grids are built once each to see that they fit together.
        """
        from labcore.expand import expand

        return expand(self, registry)

    def metric_uses(self, registry: Registry) -> list[Use]:
        """The metrics, resolved."""
        return [as_use(m).resolve("metric", registry) for m in self.axis("metrics")]

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run as a script: --workers, --store, --filter, --dry-run and the rest; see --help."""
        from labcore.cli.study import study_command

        study_command(self)(args=None if arguments is None else list(arguments))


def _values(value: Any) -> Sequence[Any]:
    if isinstance(value, range):
        return value
    if isinstance(value, str | Use | Mapping) or not isinstance(value, Iterable):
        return (_plain_number(value),)
    return tuple(map(_plain_number, value))


def _plain_number(value: Any) -> Any:
    """numpy's whole numbers as Python's, which JSON knows."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def as_use(value: Any) -> Use:
    """A name or a Use as a Use."""
    if isinstance(value, Use):
        return value
    if isinstance(value, str):
        return Use(value)
    raise InvalidOption(f"{value!r}: it names no entry; write a name or use('name', option=...)")

"""What a plugin registers: an Entry, made by the decorator of its kind.

    @labcore.sampler(order=1, evals=1, cite="Euler (1768)")
    def euler(process, score, x, ts, noise, *, lam: float = 0.0): ...

The positional parameters are those of the kind; every keyword-only parameter with its type hint
and default is an option, checked by pydantic before anything runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, get_type_hints

from labcore.errors import InvalidOption, PluginError

KINDS: dict[str, tuple[str, ...]] = {
    "process": (),
    "target": (),
    "score": ("process", "target"),
    "network": ("event",),
    "objective": ("process",),
    "grid": ("process", "n"),
    "sampler": ("process", "score", "x", "ts", "noise"),
    "metric": ("outcome",),
    "reporter": (),
}
"""The kinds of entry and the positional parameters a function of each kind takes."""


TRAITS: dict[str, tuple[str, ...]] = {
    "process": ("gives",),
    "target": ("gives",),
    "score": ("gives", "cost", "from_uses"),
    "sampler": (
        *("order", "strong", "stochastic", "coupled"),
        *("evals", "extra", "evals_of", "nfe_of"),
    ),
    "metric": ("better", "minimum", "sees", "floor"),
}
"""The traits that are read, by kind, beside those of every kind; plugins may add their own."""

COMMON = ("name", "needs", "cite")
"""What entries of every kind may declare."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A named function of one kind with the facts it declares about itself.

    ``traits`` by kind (all optional unless a study needs them):
      sampler   order (of the law), strong (order on one path), evals (score calls a step),
                extra (calls beyond them), stochastic, needs, coupled (rows of a batch act on
                each other, as in adaptive step control), cite
                evals_of, a function of the options by name, overrules evals where those decide it;
                nfe_of(steps, **options), the calls of a whole run, where they are no multiple
      process, score, target   gives (what others may need), needs, cite; cost of a score (what
                one call counts for, default 1); from_uses, for a score that is handed
                (parts, (process use, target use)) instead of what these name (see labcore.parts)
      metric    better ("lower" or "higher"), minimum (fewest samples), sees, needs; floor=False
                where it judges the score and two exact sample sets have no distance by it
    """

    kind: str
    name: str
    fn: Callable[..., Any]
    traits: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.fn(*args, **options)

    @property
    def doc(self) -> str:
        """The docstring, dedented; empty when there is none."""
        return inspect.getdoc(self.fn) or ""

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        first = self.doc.split("\n\n")[0].replace("\n", " ")
        return re.split(r"(?<=[a-z)\]])\.\s", first + " ")[0].strip().rstrip(".")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.traits.get("needs", ()))

    @property
    def gives(self) -> frozenset[str]:
        return frozenset(self.traits.get("gives", ()))

    def evals(self, options: Mapping[str, Any]) -> int | None:
        """Score calls a step of a sampler with these (bound) options; None where not fixed."""
        of = self.traits.get("evals_of")
        return of(**options) if of else self.traits.get("evals")

    def nfe(self, steps: int, options: Mapping[str, Any]) -> int | None:
        """Score calls of a run of a sampler with these (bound) options; None where not fixed."""
        of = self.traits.get("nfe_of")
        if of:
            return int(of(steps=steps, **options))
        evals = self.evals(options)
        return evals * steps + int(self.traits.get("extra", 0)) if evals else None

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The options: keyword-only parameters by name."""
        parameters = inspect.signature(self.fn).parameters.values()
        fixed = ("t_eps",) if self.kind == "grid" else ()
        return MappingProxyType(
            {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed}
        )

    @cached_property
    def _model(self) -> Any:
        from pydantic import ConfigDict, Field, create_model

        try:
            hints = get_type_hints(self.fn, include_extras=True)
        except NameError as error:
            raise PluginError(
                f"{self.kind} '{self.name}': the type of an option is unknown ({error}); import "
                "it where the function is defined"
            ) from error
        # Behind an alias, since a model has attributes of its own, such as copy and json.
        fields: dict[str, Any] = {
            f"option_{name}": (
                hints.get(name, Any),
                Field(... if p.default is p.empty else p.default, alias=name),
            )
            for name, p in self.parameters.items()
        }
        config = ConfigDict(
            extra="forbid",
            allow_inf_nan=False,
            arbitrary_types_allowed=True,
            validate_default=True,  # lam: float = 0 and lam=0.0 are one option
        )
        return create_model(self.name, __config__=config, **fields)

    def bind(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, checked and with the defaults filled in.

        Raises InvalidOption with every unknown name, missing one and wrong value at once.
        """
        from pydantic import ValidationError

        booleans = [
            f"{key}={value} is a boolean where {self._annotation(key)} is wanted"
            for key, value in options.items()
            if isinstance(value, bool) and "bool" not in self._annotation(key)
        ]
        try:
            model = self._model(**options)
        except ValidationError as error:
            booleans += [_explain(self, e, options) for e in error.errors()]
        if booleans:
            known = ", ".join(self.parameters) or "none"
            raise InvalidOption(
                f"{self.kind} '{self.name}': {'; '.join(booleans)}; its options are: {known}"
            )
        return {name: getattr(model, f"option_{name}") for name in self.parameters}

    def _annotation(self, name: str) -> str:
        parameter = self.parameters.get(name)
        return "bool" if parameter is None else inspect.formatannotation(parameter.annotation)


def _explain(entry: Entry, error: Any, options: Mapping[str, Any]) -> str:
    """One pydantic error in a line, with the nearest option where a name is unknown."""
    from difflib import get_close_matches

    name, *inside = error["loc"]
    if error["type"] == "extra_forbidden" and not inside:
        near = get_close_matches(name, list(entry.parameters), n=1)
        return f"no option '{name}'" + (f" (did you mean '{near[0]}'?)" if near else "")
    missing = error["type"] == "missing"
    if missing and not inside:
        return f"option '{name}' must be given"
    place = name + _place(options.get(name), inside)
    takes = f"(it takes {inspect.formatannotation(get_type_hints(entry.fn).get(name, Any))})"
    if missing:
        return f"{place}: its item {inside[-1]!r} is missing {takes}"
    return f"{place}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]} {takes}"


def _place(value: Any, inside: Sequence[Any]) -> str:
    """`[0]['key']` of what is there; other parts name branches of a union."""
    place = ""
    for part in inside:
        try:
            value = value[part]
        except (LookupError, TypeError):
            continue
        place += f"[{part!r}]"
    return place


def _decorator(kind: str) -> Callable[..., Any]:
    def decorate(fn: Callable[..., Any] | None = None, /, **traits: Any) -> Any:
        if fn is not None:
            return _entry(kind, fn, {})
        return lambda f: _entry(kind, f, traits)

    decorate.__name__ = kind
    decorate.__doc__ = (
        f"Make a {kind} Entry of fn({', '.join((*KINDS[kind], '*', 'options'))}); "
        "``name=`` overrides the function's name, other keywords are its traits."
    )
    return decorate


def _entry(kind: str, fn: Callable[..., Any], traits: Mapping[str, Any]) -> Entry:
    name = str(traits.get("name", getattr(fn, "__name__", "")))
    rest = MappingProxyType({key: value for key, value in traits.items() if key != "name"})
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.+-]*", name):
        raise PluginError(
            f"{kind} {name!r}: not a usable name; use letters, digits and _ . + -, letter first"
        )
    _check_signature(kind, name, fn)
    _check_traits(kind, name, rest)
    return Entry(kind, name, fn, rest)


def _check_signature(kind: str, name: str, fn: Callable[..., Any]) -> None:
    parameters = inspect.signature(fn).parameters.values()
    positional = tuple(
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    wanted = KINDS[kind]
    others = [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if len(positional) != len(wanted) or others:
        raise PluginError(
            f"{kind} '{name}': its parameters are ({', '.join(map(str, parameters))}), a {kind} "
            f"takes ({', '.join(wanted)}) and options after a bare *"
        )
    if kind == "grid" and "t_eps" not in {p.name for p in parameters}:
        raise PluginError(f"grid '{name}': no t_eps; a grid takes (process, n, *, t_eps)")


NEAR = 0.75
"""A trait as like a known one as this is taken for a misspelt one; 1 is the same."""


def _check_traits(kind: str, name: str, traits: Mapping[str, Any]) -> None:
    """Refuse misspelt traits, which nothing would read, and values that would break runs later."""
    from difflib import get_close_matches

    known = (*COMMON, *TRAITS.get(kind, ()))
    for trait in traits:
        near = get_close_matches(trait, known, n=1, cutoff=NEAR)
        if trait not in known and near:
            raise PluginError(
                f"{kind} '{name}': no trait '{trait}'; did you mean '{near[0]}'? A trait of your "
                "own needs a name less like it"
            )
    if kind != "sampler":
        return
    for trait, (allowed, wanted) in _ALLOWED.items():
        value = traits.get(trait)
        if value is not None and not allowed(value):
            raise PluginError(
                f"{kind} '{name}': {trait}={value!r}, it must be {wanted}; leave it out where "
                "there is none"
            )


def _is_order(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < inf


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "order": (_is_order, "a positive number"),
    "strong": (_is_order, "a positive number"),
    "evals": (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more"),
    "extra": (_is_whole, "a whole number"),
}
"""What a sampler may declare of numbers."""


process = _decorator("process")
target = _decorator("target")
score = _decorator("score")
network = _decorator("network")
objective = _decorator("objective")
grid = _decorator("grid")
sampler = _decorator("sampler")
metric = _decorator("metric")
reporter = _decorator("reporter")

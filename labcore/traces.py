"""What samplers do on fixed problems: the raw material of fingerprints.

A setting is a sampler with its options. Its trace has its last states on every problem, from one
x_T with one noise, in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from labcore.entry import Entry
from labcore.errors import InvalidOption
from labcore.registry import Registry
from labcore.study import Use, use
from labcore.testing.problems import ends


@dataclass(frozen=True)
class Trace:
    """What a setting did: its flattened last states by problem, and why there are none."""

    setting: str
    sampler: str
    default: bool = True
    ends: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    noisy: bool = False
    own_noise: bool = False
    adaptive: bool = False

    @property
    def reason(self) -> str:
        """Why it ran nowhere, or ""."""
        return "" if self.ends else next(iter(self.failed.values()), "no problem was given")


def variants(entry: Entry) -> list[dict[str, Any]]:
    """Options that make another algorithm of it, one changed at a time.

    Every other choice of words, switch and bounded count; 0 and 1 of rates that are one of them.
    """
    found: list[dict[str, Any]] = []
    hints = get_type_hints(entry.fn, include_extras=True)
    for name, p in entry.parameters.items():
        for value in _choices(hints.get(name), p.default):
            with suppress(InvalidOption):
                entry.bind({name: value})
                if value != p.default:
                    found.append({name: value})
    return found


def _choices(annotation: Any, default: Any) -> Sequence[Any]:
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if isinstance(default, bool):
        return (False, True)
    if isinstance(default, int):
        bounds = {type(m).__name__: m for m in getattr(annotation, "__metadata__", ())}
        if {"Ge", "Le"} <= bounds.keys():
            low, high = bounds["Ge"].ge, bounds["Le"].le
            return range(low, high + 1) if high - low < 8 else ()
        return ()
    return (0.0, 1.0) if isinstance(default, float) and default in (0.0, 1.0) else ()


def settings(registry: Registry, samplers: Iterable[str | Use] = ()) -> list[tuple[Use, bool]]:
    """Those named, or all samplers, with their variants; and which have their default options.

    A sampler named with options, as use("ddim", eta=1.0), is taken as it is.
    """
    given: list[str | Use] = list(samplers) or [name for name, _ in registry.all("sampler")]
    found: dict[Use, bool] = {}
    for one in given:
        named = one if isinstance(one, Use) else Use(one)
        found.setdefault(named.resolve("sampler", registry), not named.options)
        if not named.options:
            entry = registry.get("sampler", named.name)
            for options in variants(entry):
                found.setdefault(use(named.name, **options).resolve("sampler", registry), False)
    return list(found.items())


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs a setting on every problem, in whatever process it is sent to."""

    registry: Registry

    def __call__(self, setting: tuple[Use, bool]) -> Trace:
        of, default = setting
        entry = self.registry.get("sampler", of.name)
        return trace(entry, dict(of.options), str(of), of.name, default)


def trace(
    entry: Entry,
    options: dict[str, Any],
    setting: str = "",
    sampler: str = "",
    default: bool = True,
) -> Trace:
    """What an entry does on the problems; nothing that it raises on one ends the others."""
    name = sampler or entry.name
    adaptive = bool(entry.traits.get("coupled"))
    return Trace(setting or name, name, default, *ends(entry, options), adaptive)

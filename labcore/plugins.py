"""Plugins: found by their entry points, loaded one at a time, each with a verdict.

A plugin is an entry point of the group ``labcore`` naming a module (or an object) whose hooks
return lists of entries. One that cannot be used is recorded with the reason, never fatal to the
others. This module imports neither torch nor any plugin until ``load`` is called.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import metadata
from typing import Any

import pluggy

from labcore import hookspecs
from labcore.entry import Entry
from labcore.errors import PluginError, Unavailable
from labcore.text import one_line, reason_of

GROUP = "labcore"
DISABLE = "LABCORE_DISABLE"
LOCAL = "local"
"""The plugin name of entries a script defines itself; no installed plugin may take it."""

_KIND_OF = {hook: kind for kind, hook in hookspecs.HOOK_OF.items()}


@dataclass(frozen=True)
class PluginRecord:
    """One entry point and what became of it.

    ``status`` is "found" (listed, not imported), "loaded", "disabled" (by LABCORE_DISABLE),
    "failed", "unavailable" (it raised Unavailable: an optional library is not installed) or
    "shadowed" (another distribution has the name). ``reason`` is one line; a loaded plugin has one
    when it changed process-wide state while it was imported.
    """

    name: str
    distribution: str
    version: str
    value: str
    status: str = "found"
    reason: str = ""
    traceback: str = ""
    entries: tuple[Entry, ...] = ()


def discover() -> tuple[PluginRecord, ...]:
    """Every entry point of the group, sorted by name, without importing any.

    Of two distributions with one plugin name labcore's own, then the first in alphabetical order,
    has it. LABCORE_DISABLE is a comma-separated list of plugin or distribution names.
    """
    disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
    holders: dict[str, PluginRecord] = {}
    records = []
    for record in sorted(_listed(), key=lambda r: (r.name, r.distribution != GROUP, _order(r))):
        if not {record.name, record.distribution}.isdisjoint(disabled):
            record = replace(record, status="disabled", reason=f"disabled by {DISABLE}")
        elif record.status == "found" and (holder := holders.setdefault(record.name, record)):
            record = _against(holder, record)
        records.append(record)
    return tuple(records)


def load() -> tuple[PluginRecord, ...]:
    """Import every plugin that is found, and record what it registers or why it failed."""
    return tuple(_load(r) if r.status == "found" else r for r in discover())


def _order(record: PluginRecord) -> tuple[str, str]:
    return record.distribution.lower(), record.value


def _against(holder: PluginRecord, record: PluginRecord) -> PluginRecord:
    if holder is record:
        return record
    reason = (
        f"distribution '{holder.distribution}' has a plugin of this name; uninstall one of the "
        f"two or set {DISABLE}={holder.distribution}"
    )
    return replace(record, status="shadowed", reason=reason)


def _listed() -> Iterator[PluginRecord]:
    """The entry points of each distribution; the first copy on the path counts, as in Python.

    importlib.metadata.entry_points() is not used: one malformed file anywhere makes it raise.
    """
    seen = set()
    for dist in metadata.distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
        except UnicodeDecodeError:
            continue
        if GROUP not in text:
            continue
        name, version = _identity(dist)
        if name in seen:
            continue
        seen.add(name)
        try:
            points = sorted(set(dist.entry_points.select(group=GROUP)))
        except Exception as error:
            reason = f"its entry_points.txt cannot be read ({reason_of(error)}); reinstall it"
            yield PluginRecord(name, name, version, "", "failed", reason)
            continue
        yield from (_record(point, name, version) for point in points)


def _identity(dist: metadata.Distribution) -> tuple[str, str]:
    try:
        name, version = dist.metadata["Name"] or "unknown", dist.metadata["Version"] or "unknown"
    except Exception:  # METADATA is missing or garbled: the entry points may still be sound
        return "unknown", "unknown"
    return one_line(re.sub(r"[-_.]+", "-", name).lower(), 80), one_line(version, 40)


def _record(point: metadata.EntryPoint, distribution: str, version: str) -> PluginRecord:
    name, value = one_line(point.name, 80), one_line(point.value, 200)
    record = PluginRecord(name, distribution, version, value)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", point.name):
        reason = "not a usable plugin name; use letters, digits and _ . -"
    elif name == LOCAL:
        reason = f"the name '{LOCAL}' is kept for entries that scripts define; choose another"
    elif not re.fullmatch(r"[\w.]+(\s*:\s*[\w.]+)?(\s*\[.*\])?", point.value):
        reason = f"'{value}' is not of the form module or module:object"
    else:
        return record
    return replace(record, status="failed", reason=reason)


def _load(record: PluginRecord) -> PluginRecord:
    from labcore.guards import undisturbed

    try:
        # What a plugin prints must not land in output that another program reads.
        with undisturbed() as changed, redirect_stdout(sys.stderr):
            plugin = metadata.EntryPoint(record.name, record.value, GROUP).load()
            entries = tuple(_entries(record.name, plugin))
    except KeyboardInterrupt:
        raise
    except Unavailable as error:
        return replace(record, status="unavailable", reason=one_line(str(error)))
    except BaseException as error:  # a plugin may call sys.exit, or worse
        trace = traceback.format_exc()
        return replace(record, status="failed", reason=_explain(error), traceback=trace)
    note = f"changed {', '.join(changed)} while it was imported; put back" if changed else ""
    return replace(record, status="loaded", reason=note, entries=entries)


def _explain(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"needs the module '{error.name}', which is not installed; install it"
    return reason_of(error)


def _entries(name: str, plugin: Any) -> Iterator[Entry]:
    """What the hooks of one plugin return, checked. Raises PluginError."""
    if inspect.isclass(plugin):
        raise PluginError(f"'{plugin.__name__}' is a class; name a module or an instance")
    # One manager per plugin: a hook that raises or does not fit concerns nobody else.
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        found = one_line(str(error)).partition("declared in")[0]
        raise PluginError(f"a hook does not fit ({found}); hooks take no arguments") from error
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    _check_hooks(plugin, marked)
    seen: set[tuple[str, str]] = set()
    for hook in sorted(marked):
        returned = getattr(manager.hook, hook)()
        for entry in _checked(hook, _KIND_OF[hook], returned[0] if returned else None):
            if (entry.kind, entry.name) in seen:
                raise PluginError(f"{hook} returned two entries named '{entry.name}'; rename one")
            seen.add((entry.kind, entry.name))
            yield entry


def _check_hooks(plugin: Any, marked: set[str]) -> None:
    likely = {n for n in dir(plugin) if get_close_matches(n, _KIND_OF, n=1, cutoff=0.85)}
    for name in sorted(marked | likely):
        near = get_close_matches(name, _KIND_OF, n=1, cutoff=0.0)[0]
        if name not in _KIND_OF:
            raise PluginError(f"there is no hook '{name}'; did you mean '{near}'?")
        if name not in marked:
            raise PluginError(f"{name} is not marked as a hook; put @labcore.hookimpl above it")
    if not marked:
        hooks = ", ".join(_KIND_OF)
        raise PluginError(f"it has no hook; define one of {hooks}, marked @labcore.hookimpl")


def _checked(hook: str, kind: str, returned: Any) -> Iterator[Entry]:
    if not isinstance(returned, list | tuple):
        raise PluginError(f"{hook} returned {_what(returned)}; return a list of entries")
    for item in returned:
        if not isinstance(item, Entry):
            raise PluginError(
                f"{hook} returned {_what(item)} in its list; decorate it @labcore.{kind}"
            )
        if item.kind != kind:
            right = hookspecs.HOOK_OF[item.kind]
            raise PluginError(
                f"{hook} returned the {item.kind} '{item.name}'; return it from {right}"
            )
        yield item


def _what(value: Any) -> str:
    if value is None:
        return "None"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    name = getattr(value, "__name__", "")
    return f"a {type(value).__name__}" + (f" '{name}'" if name else "")

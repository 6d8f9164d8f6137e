"""Names to entries.

``plugin:name`` always works; the short ``name`` works while one plugin has it. Nothing is renamed
or skipped: an ambiguous name is an error that lists both, a typo one that lists the nearest.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from labcore import plugins
from labcore.entry import KINDS, Entry
from labcore.errors import PluginError, UnknownName
from labcore.plugins import LOCAL, PluginRecord

_Named = tuple[str, Entry]


@dataclass(frozen=True, eq=False)
class Registry:
    """The entries of all plugins, by kind and name.

    Pickles as "the plugins installed where it is opened, and the script's own entries".
    """

    records: tuple[PluginRecord, ...]

    def get(self, kind: str, name: str) -> Entry:
        """The entry. Raises UnknownName, or PluginError when its plugin cannot be used."""
        return self._find(kind, name)[1]

    def qualified(self, kind: str, name: str) -> str:
        """The full name ``plugin:name``; the same errors as ``get``."""
        return self._find(kind, name)[0]

    def all(self, kind: str) -> list[tuple[str, Entry]]:
        """Every (full name, entry) of a kind, sorted by full name."""
        self._check_kind(kind)
        return sorted(
            (named for hits in self._index[kind].values() for named in hits), key=lambda n: n[0]
        )

    def plugin(self, name: str) -> PluginRecord:
        """The record of a plugin: the one in use where several distributions have the name."""
        records = [r for r in self.records if r.name == name]
        if not records:
            raise UnknownName(f"plugin '{name}': not installed{self._near_plugins(name)}")
        return min(records, key=lambda r: r.status not in ("loaded", "failed"))

    @cached_property
    def _index(self) -> Mapping[str, dict[str, list[_Named]]]:
        index: dict[str, dict[str, list[_Named]]] = {kind: {} for kind in KINDS}
        for record in self.records:
            for entry in record.entries:
                named = (f"{record.name}:{entry.name}", entry)
                index[entry.kind].setdefault(entry.name, []).append(named)
        return index

    def _find(self, kind: str, name: str) -> _Named:
        self._check_kind(kind)
        plugin, colon, short = name.rpartition(":")
        hits = self._index[kind].get(short, [])
        if colon:
            hits = [named for named in hits if named[0] == name]
        if len(hits) == 1:
            return hits[0]
        if hits:
            names = " or ".join(full for full, _ in hits)
            raise UnknownName(f"{kind} '{name}': several plugins have it; write {names}")
        if colon:
            self._refuse_plugin(kind, name, plugin)
        raise UnknownName(f"{kind} '{name}': {self._why_not(kind, plugin, short)}")

    def _check_kind(self, kind: str) -> None:
        if kind not in KINDS:
            raise UnknownName(f"kind '{kind}': there is none; the kinds are {', '.join(KINDS)}")

    def _refuse_plugin(self, kind: str, name: str, plugin: str) -> None:
        """Raise where the plugin itself is the reason that a full name is not found."""
        if plugin not in {r.name for r in self.records}:
            raise UnknownName(
                f"{kind} '{name}': no plugin '{plugin}' is installed{self._near_plugins(plugin)}"
            )
        record = self.plugin(plugin)
        if record.status != "loaded":
            raise PluginError(f"{kind} '{name}': plugin '{plugin}' {_verdict(record)}")

    def _near_plugins(self, name: str) -> str:
        near = get_close_matches(name, [r.name for r in self.records], n=3)
        return f"; did you mean {' or '.join(near)}?" if near else "; see `labcore plugins`"

    def _why_not(self, kind: str, plugin: str, short: str) -> str:
        known = [
            full for full, _ in self.all(kind) if full.startswith(f"{plugin}:" if plugin else "")
        ]
        by_short = {full.rpartition(":")[2]: full for full in known}
        near = [by_short[n] for n in get_close_matches(short, by_short, n=3)]
        others = [k for k in KINDS if short in self._index[k]]
        lost = [r for r in self.records if r.status in ("failed", "shadowed", "unavailable")]
        unusable = [r for r in lost if plugin in ("", r.name)]
        where = f"plugin '{plugin}' has none of that name" if plugin else "no plugin has it"
        parts = [
            where,
            f"did you mean {' or '.join(near)}?" if near else "",
            f"'{short}' is a {others[0]}" if others else "",
            *(f"plugin '{r.name}' {_verdict(r)}" for r in unusable[:3]),
        ]
        if not near and not others:
            parts.append(f"there are {', '.join(known) or 'none'}")
        return "; ".join(part for part in parts if part)

    def __reduce__(self) -> tuple[Callable[..., Registry], tuple[Any, ...]]:
        mine = [e for r in self.records if r.name == LOCAL for e in r.entries]
        for entry in mine:
            _travel_by_value(entry)
        return _reopen, ([(e.kind, e.name, e.fn, dict(e.traits)) for e in mine],)


def _travel_by_value(entry: Entry) -> None:
    """What a script defines must travel whole where other processes cannot import the script."""
    import cloudpickle

    module = sys.modules.get(entry.fn.__module__)
    if module is None or module.__name__ == "__main__":
        return
    top = module.__name__.partition(".")[0]
    if not any(finder.find_spec(top, None) for finder in sys.meta_path):
        cloudpickle.register_pickle_by_value(module)


def _verdict(record: PluginRecord) -> str:
    said = {
        "failed": "failed to load: ",
        "shadowed": "is shadowed: ",
        "disabled": "is ",
        "unavailable": "is not available: ",
    }
    return said[record.status] + record.reason


def load_registry(extra: Sequence[Entry] = ()) -> Registry:
    """The registry of the installed plugins, loaded once in a process.

    ``extra`` entries, such as a script's own sampler, appear under the plugin name "local".
    """
    return _registry(tuple(extra))


@cache
def _installed() -> tuple[PluginRecord, ...]:
    return plugins.load()


@cache
def _registry(extra: tuple[Entry, ...]) -> Registry:
    names = set()
    for entry in extra:
        if not isinstance(entry, Entry):
            raise PluginError(f"extra: {entry!r} is no entry; decorate it with @labcore.<kind>")
        if (entry.kind, entry.name) in names:
            raise PluginError(f"extra: two {entry.kind} entries named '{entry.name}'; rename one")
        names.add((entry.kind, entry.name))
    made = PluginRecord(LOCAL, "", source_version(extra), "", "loaded", entries=extra)
    local = (made,) if extra else ()
    return Registry(_installed() + local)


def source_version(entries: Iterable[Entry]) -> str:
    """The version of a script's own entries: 12 hex digits of the files that define them.

    Empty where no source is found, as for what is typed at a prompt of Python.
    """
    files = set()
    for entry in entries:
        with suppress(TypeError, OSError):  # what is not written in Python has no source
            files.add(inspect.getsourcefile(entry.fn) or "")
    found = b"".join(sorted(Path(f).read_bytes() for f in files if Path(f).is_file()))
    return hashlib.sha256(found).hexdigest()[:12] if found else ""


def _reopen(mine: Sequence[tuple[Any, ...]]) -> Registry:
    return load_registry([Entry(*parts) for parts in mine])

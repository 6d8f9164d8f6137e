"""Results in a store that another version of a plugin made: they stay, and are told of.

What is finished never runs again, so that code that was changed since stands beside the new.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence

from labcore.store import Store, Versions
from labcore.study import Cell


def told(cells: Sequence[Cell], store: Store, versions: Versions) -> Iterator[str]:
    """A line for each plugin that made some of the cells, or their metrics, in another version.

    A script's own entries are the plugin "local", whose version is that of their files.
    """
    now: dict[str, str] = json.loads(versions.plugins)
    used = {cell.key: plugins_of(cell) for cell in cells}
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key, metric, text in store.made_with(used):
        then: dict[str, str] = json.loads(text or "{}")
        for plugin in used[key] | {metric.partition(":")[0]}:
            if plugin in now and then.get(plugin, now[plugin]) != now[plugin]:
                found[plugin, then[plugin]].add(key)
    for (plugin, then_it_was), keys in sorted(found.items()):
        yield (
            f"{len(keys)} cells here were made by version {then_it_was} of '{plugin}', which is "
            f"now {now[plugin]}; they stay as they are: another --store runs all of them again"
        )


def plugins_of(cell: Cell) -> set[str]:
    """The plugins whose entries a cell is made of."""
    parts = (cell.target, cell.process, cell.score, cell.grid, cell.sampler)
    return {part.name.partition(":")[0] for part in parts}

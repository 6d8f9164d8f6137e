"""Reading a store, every row verified against its hash."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from labcore.certificates import BATTERY, canonical, told
from labcore.store.rows import read_spec
from labcore.store.tables import (
    COUNTS,
    LABELS,
    RUN,
    TABLES,
    cells,
    certificates,
    content,
    hashes,
    members,
    metadata,
    results,
    texts,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("key", "study", "kind", "target", "process", "score", "grid", "sampler", "steps", "nfe"),
    *("n", "seed", "start", "end", "against", "t_eps", "dtype", "metric", "value", "seconds"),
    *("status", "reason", "labcore", "torch", "plugins", "certificate"),
)
"""The columns of the frame: a row per cell and metric value, or per repeat of a noise floor.

``t_eps`` is the time of the law p_{t_eps} that the row is compared with, NaN for the data's.
``certificate`` is what the store's certificates say of the row's sampler with its options, in the
version it ran in, on the row's process (labcore.certificates.told); empty for a noise floor.
"""


@dataclass(frozen=True)
class Table:
    """The rows of a table as columns, and which of them match their hash."""

    columns: Mapping[str, np.ndarray]
    sound: np.ndarray

    def rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positions of the rows of these numbers, and which of them exist."""
        known = self.columns["id"]
        if not len(known):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return at, known[at] == ids

    def digests(self, ids: np.ndarray) -> np.ndarray:
        """The hashes of the rows of these numbers, 0 where a row is missing or damaged."""
        at, exist = self.rows(ids)
        if not exist.any():
            return np.zeros(len(ids), np.int64)
        return np.where(exist & self.sound[at], self.columns["hash"][at], 0)

    def take(self, name: str, ids: np.ndarray) -> np.ndarray:
        """One column at the rows of these numbers."""
        taken: np.ndarray = self.columns[name][self.rows(ids)[0]]
        return taken


def load(
    connection: sa.Connection, study: str | None = None, torn: bool = False
) -> dict[str, Table]:
    """All tables; of cells and results only those of ``study`` where one is named.

    ``torn`` reads around what the database cannot read instead of raising.
    """
    read = _torn if torn else _whole
    tables: dict[str, Table] = {}
    lookup: dict[str, Any] = {}
    for table in TABLES:
        dtype = _dtype(table)
        query = sa.select(*table.columns).where(_of_study(table, study, tables))
        if table is certificates and not torn and not has_certificates(connection):
            rows = np.zeros(0, dtype)
        else:
            rows = read(connection, query, list(table.primary_key), dtype)
        if study is not None and table is results:
            rows = rows[tables["cells"].rows(rows["cell"])[1]]
        tables[table.name] = _verified(table, rows, lookup)
        lookup[table.name] = tables[table.name].digests
    return tables


def load_certificates(connection: sa.Connection) -> Table:
    """The certificates alone; Damage where one is damaged."""
    rows = np.zeros(0, _dtype(certificates))
    if has_certificates(connection):
        key = list(certificates.primary_key)
        rows = _whole(connection, sa.select(*certificates.columns), key, rows.dtype)
    table = _verified(certificates, rows, {})
    refuse_damage({certificates.name: table})
    return table


def _dtype(table: sa.Table) -> np.dtype[Any]:
    forms = {sa.Text: "O", sa.Double: "f8"}
    return np.dtype([(c.name, forms.get(type(c.type), "i8")) for c in table.columns])


def _verified(table: sa.Table, rows: np.ndarray, lookup: Mapping[str, Any]) -> Table:
    columns = {c.name: rows[c.name] for c in table.columns}
    return Table(columns, hashes(table, columns, lookup) == columns["hash"])


def _of_study(table: sa.Table, study: str | None, tables: Mapping[str, Table]) -> Any:
    """The condition that keeps a study's cells, and the results from its first to its last."""
    if study is None or table not in (cells, members, results):
        return sa.true()
    if table is results:
        ids = tables["cells"].columns["id"]
        return results.c.cell.between(int(ids[0]), int(ids[-1])) if len(ids) else sa.false()
    mine = sa.select(texts.c.id).where(texts.c.text == study).scalar_subquery()
    if table is members:
        return members.c.study == mine
    shared = sa.select(members.c.cell).where(members.c.study == mine)
    return sa.or_(cells.c.study == mine, cells.c.id.in_(shared))


def has_certificates(connection: sa.Connection) -> bool:
    """Whether the store is of a schema that has certificates."""
    return bool(sa.inspect(connection).has_table(certificates.name))


Key = list[sa.Column[Any]]


def _whole(
    connection: sa.Connection, query: sa.Select[Any], key: Key, dtype: np.dtype[Any]
) -> np.ndarray:
    try:
        return np.fromiter(map(tuple, connection.execute(query.order_by(*key))), dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise Damage(f"a value of table '{key[0].table.name}' is not of its type") from error


def _torn(
    connection: sa.Connection, query: sa.Select[Any], key: Key, dtype: np.dtype[Any]
) -> np.ndarray:
    """What can be read from the front, and past a tear from the back."""
    kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for order in (key, [column.desc() for column in key]):
        with suppress(sa.exc.DBAPIError, sqlite3.Error):
            for row in map(tuple, connection.execute(query.order_by(*order))):
                with suppress(TypeError, ValueError, OverflowError):
                    np.array(row, dtype)
                    kept[row[: len(key)]] = row
            break
    return np.array([kept[number] for number in sorted(kept)], dtype)


class Damage(Exception):
    """Rows that are not as they were written."""


def refuse_damage(tables: Mapping[str, Table]) -> None:
    """Raise Damage that counts and names the rows that do not match their hash."""
    named = [f"{name} {i}" for name in tables for i in _unsound(tables, name)]
    if named:
        count = f"{len(named)} rows are damaged" if len(named) > 1 else "a row is damaged"
        more = ", ..." if len(named) > 3 else ""
        raise Damage(f"{count} ({', '.join(named[:3])}{more})")


def _unsound(tables: Mapping[str, Table], name: str) -> Iterator[str]:
    table = tables[name]
    for i in np.flatnonzero(~table.sound):
        if name == "results":
            cell = table.columns["cell"][i : i + 1]
            metric = tables["texts"].take("text", table.columns["metric"][i : i + 1])[0]
            yield f"'{metric}' of cell {tables['cells'].take('key', cell)[0]}"
        else:
            yield str(table.columns[content(metadata.tables[name])[0]][i])


def frame(tables: Mapping[str, Table], study: str | None) -> pd.DataFrame:
    """The tidy frame of loaded tables."""
    import pandas as pd

    results, cells = tables["results"].columns, tables["cells"]
    text = tables["texts"].take
    at = cells.rows(results["cell"])[0]
    setting = tables["settings"].rows(cells.columns["setting"])[0][at]
    settings = tables["settings"].columns
    columns: dict[str, Any] = {name: settings[name][setting] for name in COUNTS}
    columns |= {name: text("text", settings[name])[setting] for name in LABELS}
    columns["t_eps"] = _compared_at(settings, text)[setting]
    run, runs = tables["runs"].rows(results["run"])[0], tables["runs"].columns
    columns |= {name: text("text", runs[name])[run] for name in RUN}
    columns |= {name: text("text", results[name]) for name in ("status", "reason")}
    columns |= {name: results[name] for name in ("value", "nfe", "seconds")}
    columns["key"] = cells.columns["key"][at]
    columns["study"] = text("text", cells.columns["study"][at]) if study is None else study
    columns["seed"] = np.where(
        columns["kind"] == "floor", results["repeat"], cells.columns["seed"][at]
    )
    columns["metric"] = _metric_labels(results["metric"], results["sub"], text)
    columns["certificate"] = _certificate_states(tables, setting, run)
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def _compared_at(settings: Mapping[str, np.ndarray], text: Any) -> np.ndarray:
    """The t_eps of each setting; those of old do not tell it, and have that of their grid."""
    import pandas as pd

    names = ("kind", "process", "grid", "against")
    of = pd.DataFrame({name: text("text", settings[name]) for name in names})
    of["steps"] = settings["steps"]
    of["t_eps"] = [read_spec(spec)[1] for spec in text("text", settings["spec"])]
    grids = of[of["kind"] == "cell"].groupby([*names, "steps"])["t_eps"].transform("first")
    return np.asarray(of["t_eps"].fillna(grids), float)


def _metric_labels(metric: np.ndarray, sub: np.ndarray, text: Any) -> np.ndarray:
    """``metric`` or ``metric.sub``, made once for each pair."""
    pairs, which = np.unique(metric << 32 | sub, return_inverse=True)
    names = zip(text("text", pairs >> 32), text("text", pairs & 0xFFFFFFFF), strict=True)
    labels = [f"{name}.{part}" if part else name for name, part in names]
    return np.array([*labels, ""], object)[which]


def _certificate_states(
    tables: Mapping[str, Table], setting: np.ndarray, run: np.ndarray
) -> np.ndarray:
    """What the certificates say of each row, by its setting and run; made once for each pair."""
    held: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    of = tables["certificates"].columns
    names = (of[name].tolist() for name in ("sampler", "options", "distribution", "process"))
    for sampler, options, distribution, process, failed in zip(
        *names, of["failed"].tolist(), strict=True
    ):
        if failed == BATTERY:  # stores of old hold them; without a verdict nothing is said
            continue
        speaks_for = sampler, options, distribution.rpartition(" ")[2]
        held.setdefault(speaks_for, {})[process] = failed.split(", ") if failed else []
    text, settings = tables["texts"].take, tables["settings"].columns
    pairs, which = np.unique(setting << 32 | run, return_inverse=True)
    at, by = pairs >> 32, pairs & 0xFFFFFFFF
    given = zip(
        text("text", settings["kind"][at]),
        text("text", settings["spec"][at]),
        text("text", tables["runs"].columns["plugins"][by]),
        text("text", settings["process"][at]),
        strict=True,
    )
    states = [
        told(held.get(_ran(spec, plugins), {}), process) if kind == "cell" else ""
        for kind, spec, plugins, process in given
    ]
    return np.array([*states, ""], object)[which]


def _ran(spec: str, plugins: str) -> tuple[str, str, str]:
    """Sampler, options and plugin version that a row ran with."""
    parts, versions = read_spec(spec)[0], json.loads(plugins)
    name, options = parts[-1] if parts else ("", {})
    return name, canonical(options), str(versions.get(name.partition(":")[0], ""))

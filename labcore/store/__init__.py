"""Results, kept: a store that a crash cannot harm and that knows when it was harmed.

One SQLite file (or a PostgreSQL database) with one writer at a time and any number of readers.
Every call of ``put`` is one durable transaction, and every row carries a hash of what it says.

    with open_store("out/study.sqlite", write=True) as store:
        missing = store.todo([cell.key for cell in cells], labels)
        store.put(cell_row("study", result, versions))
        frame = store.frame("study")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from labcore.certificates import Certificate, from_json
from labcore.errors import InvalidOption, StoreError
from labcore.store import connect, reading
from labcore.store.rows import CellRow, Values, Versions, cell_row, floor_rows
from labcore.store.tables import TABLES, cells, members, results, runs, texts
from labcore.store.writing import Writer, chunks
from labcore.text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CellRow",
    "Store",
    "Values",
    "Versions",
    "cell_row",
    "floor_rows",
    "open_store",
    "salvage",
]


_METRIC, _STATUS = aliased(texts), aliased(texts)
_STANDING = (
    sa.select(cells.c.key, _METRIC.c.text, _STATUS.c.text)
    .join(results, results.c.cell == cells.c.id)
    .join(_METRIC, _METRIC.c.id == results.c.metric)
    .join(_STATUS, _STATUS.c.id == results.c.status)
)
"""How each result of each cell ended: cell, metric label ("" for a cell that failed), status."""


@dataclass
class Store:
    """An open store. Every method raises StoreError, in one line, when the database fails."""

    where: str | Path
    engine: sa.Engine
    write: bool = False
    _writer: Writer | None = None

    def put(self, row: CellRow) -> None:
        """Add one cell, durably; a metric it has anew is added to those it had."""
        self.put_many([row])

    def put_many(self, rows: Iterable[CellRow]) -> None:
        """Add many cells, or repeats of noise floors, in one durable transaction."""
        given = list(rows)
        if given:
            self._change(lambda writer, connection: writer.put(connection, given))

    def join(self, study: str, keys: Iterable[str]) -> None:
        """Count stored cells, which another study may have run, to this one."""
        given = list(keys)
        self._change(lambda writer, connection: writer.join(connection, study, given))

    def keep(self, certificates: Iterable[Certificate]) -> None:
        """Keep certificates, durably; each takes the place of the one of its key.

        Raises InvalidOption for one that is not of the whole battery.
        """
        given = list(certificates)
        for part in (c for c in given if not c.complete):
            raise InvalidOption(
                f"certificate of '{part.sampler}': only {', '.join(c.name for c in part.checks)} "
                "of the battery ran; run all checks to keep it"
            )
        if given:
            self._change(lambda writer, connection: writer.keep(connection, given))

    def certificates(self) -> list[Certificate]:
        """All certificates, by sampler, process and options; damaged ones are refused by name."""
        with self._told(), self.engine.begin() as connection:
            table = reading.load_certificates(connection)
        return sorted(
            map(from_json, table.columns["body"].tolist()),
            key=lambda c: (c.sampler, c.process, str(dict(c.options)), c.made),
        )

    def done(self, keys: Iterable[str]) -> dict[str, set[str]]:
        """The labels of the metrics that each stored cell has values of."""
        standing = self._standing(keys)
        return {k: {m for m, status in of.items() if status == "ok"} for k, of in standing.items()}

    def todo(
        self, keys: Iterable[str], metrics: Sequence[str], retry_failed: bool = False
    ) -> dict[str, list[str]]:
        """The metrics that each cell lacks, for those cells that lack any.

        A cell or metric that failed is not tried again unless ``retry_failed``.
        """
        asked = list(keys)
        standing = self._standing(asked)
        missing = {}
        for key in asked:
            of = standing.get(key, {})
            if "" in of and not retry_failed:
                continue
            ended = {m for m, status in of.items() if status == "ok" or not retry_failed}
            missing[key] = [m for m in metrics if m not in ended]
        return {key: lacks for key, lacks in missing.items() if lacks}

    def failed(self, keys: Iterable[str], metrics: Iterable[str]) -> list[str]:
        """Those of these cells that failed, or that one of the metrics failed on."""
        asked = {"", *metrics}
        broken = self._of_keys(_STANDING.where(_STATUS.c.text != "ok"), keys)
        return list(dict.fromkeys(key for key, label, _ in broken if label in asked))

    def floor_done(self, keys: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many repeats each stored noise floor has, by metric label."""
        metric = aliased(texts)
        repeats = sa.func.count(results.c.repeat.distinct())
        query = (
            sa.select(cells.c.key, metric.c.text, repeats)
            .join(results, results.c.cell == cells.c.id)
            .join(metric, metric.c.id == results.c.metric)
            .group_by(cells.c.key, metric.c.text)
        )
        counted: dict[str, dict[str, int]] = {}
        for key, label, count in self._of_keys(query, keys):
            counted.setdefault(key, {})[label] = count
        return counted

    def made_with(self, keys: Iterable[str]) -> Iterator[tuple[str, str, str]]:
        """(cell, metric label, JSON of plugin versions) of all values that the cells have."""
        metric, made = aliased(texts), aliased(texts)
        query = (
            sa.select(cells.c.key, metric.c.text, made.c.text)
            .distinct()
            .join(results, results.c.cell == cells.c.id)
            .join(metric, metric.c.id == results.c.metric)
            .join(runs, runs.c.id == results.c.run)
            .join(made, made.c.id == runs.c.plugins)
        )
        yield from self._of_keys(query, keys)

    def studies(self) -> list[str]:
        """The names of the studies that have cells here."""
        used = sa.union(sa.select(cells.c.study), sa.select(members.c.study))
        query = sa.select(texts.c.text).where(texts.c.id.in_(used)).order_by(texts.c.text)
        return [name for (name,) in self._read(query)]

    def traceback(self, key: str) -> str:
        """The traceback of a cell that failed; empty where there is none."""
        query = (
            sa.select(texts.c.text)
            .join(results, results.c.traceback == texts.c.id)
            .join(cells, cells.c.id == results.c.cell)
            .where(cells.c.key == key, texts.c.text != "")
        )
        return next((trace for (trace,) in self._read(query)), "")

    def frame(self, study: str | None = None) -> pd.DataFrame:
        """All results, or those of a study, as a tidy frame; damaged rows are refused by name.

        One row per cell and metric value and one per repeat of a noise floor, whose number is its
        seed. A cell that failed has one row with its status, without a metric or value.
        """
        with self._told(), self.engine.begin() as connection:
            tables = reading.load(connection, study)
            reading.refuse_damage(tables)
        return reading.frame(tables, study)

    def check(self) -> int:
        """Verify the whole store, structure and hashes; the number of results it has."""
        with self._told(), self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
                if found != ["ok"]:
                    raise reading.Damage(f"the file's structure is damaged ({found[0]})")
            tables = reading.load(connection)
            reading.refuse_damage(tables)
        return len(tables["results"].sound)

    def _change(self, change: Callable[[Writer, sa.Connection], None]) -> None:
        """One transaction; whatever breaks it, the store is as it was before."""
        if not self.write:
            raise StoreError(f"store '{self.where}': open for reading; open it with write=True")
        writer, self._writer = self._writer, None
        with self._told(), self.engine.begin() as connection:
            writer = writer or Writer(connection)
            change(writer, connection)
        self._writer = writer

    def _standing(self, keys: Iterable[str]) -> dict[str, dict[str, str]]:
        """Cell -> metric label ("" for a cell that failed) -> status."""
        standing: dict[str, dict[str, str]] = {}
        for key, label, ended in self._of_keys(_STANDING, keys):
            standing.setdefault(key, {})[label] = ended
        return standing

    def _of_keys(self, query: sa.Select[Any], keys: Iterable[str]) -> Iterator[Any]:
        for some in chunks(keys):
            yield from self._read(query.where(cells.c.key.in_(some)))

    def _read(self, query: sa.Select[Any]) -> Sequence[Any]:
        with self._told(), self.engine.begin() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with connect.told(self.where):
                yield
        except reading.Damage as error:
            raise StoreError(
                f"store '{connect.shown(self.where)}': {one_line(str(error))}; restore a copy, or "
                "save what is sound with labcore salvage"
            ) from error


@contextmanager
def open_store(where: str | Path, write: bool = False) -> Iterator[Store]:
    """Open a store, a file or a database URL, to read it or to ``write`` (made if missing).

    Raises StoreError (exit code 3) when another run is writing to it, when it is damaged, is of a
    newer schema or no store at all, or cannot be reached.
    """
    engine, close = connect.open_engine(where, write)
    try:
        yield Store(where, engine, write)
    finally:
        with connect.told(where):
            close()


def salvage(damaged: str | Path, fresh: str | Path) -> int:
    """Copy the rows of a damaged store that are sound into a new one; the number of results."""
    if Path(fresh).exists():
        raise StoreError(f"store '{fresh}': it exists; name a new file to save the rows in")
    engine, close = connect.open_engine(damaged, write=False, torn=True)
    try:
        with connect.told(damaged), engine.connect() as connection:
            tables = reading.load(connection, torn=True)
    finally:
        close()
    with open_store(fresh, write=True) as copy, copy.engine.begin() as connection:
        for table in TABLES:
            kept = tables[table.name]
            names = list(kept.columns)
            rows = zip(*(kept.columns[n][kept.sound].tolist() for n in names), strict=True)
            found = [dict(zip(names, row, strict=True)) for row in rows]
            if found:
                connection.execute(table.insert(), found)
    return int(tables["results"].sound.sum())

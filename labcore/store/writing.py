"""Adding rows to a store."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from labcore.certificates import Certificate, canonical
from labcore.store.rows import CellRow
from labcore.store.tables import (
    COUNTS,
    LABELS,
    cells,
    certificates,
    content,
    hashes,
    members,
    results,
    runs,
    settings,
    texts,
)

CHUNK = 5000
"""Values in one query; SQLite takes 32766."""

Rows = list[dict[str, Any]]
Place = tuple[int, int, int]
"""Where the values of a metric stand: cell, metric and repeat."""


class Shared:
    """The rows of one table that others refer to by number, each held once."""

    def __init__(self, connection: sa.Connection, table: sa.Table) -> None:
        self.table, self.parts = table, content(table)
        columns = [table.c[name] for name in ("id", "hash", *self.parts)]
        found = connection.execute(sa.select(*columns)).all()
        self.numbers = {tuple(row[2:]): row[0] for row in found}
        self.hashes = {row[0]: row[1] for row in found}
        self.next = max(self.hashes, default=0) + 1
        self.new: Rows = []

    def number(self, *values: Any) -> int:
        """The number of the row of these values, which is made if there is none."""
        known = self.numbers.get(values)
        if known is None:
            known = self.numbers[values] = self.next
            self.next += 1
            self.new.append({"id": known, **dict(zip(self.parts, values, strict=True))})
        return known


class Writer:
    """Rows to tables, inside its caller's transactions; to be dropped when one fails."""

    def __init__(self, connection: sa.Connection) -> None:
        self.shared = {table.name: Shared(connection, table) for table in (texts, settings, runs)}
        self.texts: dict[str, int] = {}  # what was given -> number, so that a row is quick
        self.settings: dict[tuple[Any, ...], int] = {}
        self.hashes = {name: shared.hashes for name, shared in self.shared.items()}
        self.lookup = {
            name: lambda numbers, of=name: np.array([self.hashes[of][n] for n in numbers.tolist()])
            for name in (*self.shared, "cells")
        }
        self.next = (connection.execute(sa.select(sa.func.max(cells.c.id))).scalar() or 0) + 1

    def put(self, connection: sa.Connection, rows: Sequence[CellRow]) -> None:
        """Add cells and their results. A failure never replaces a value that is there."""
        number = self._known(connection, {row.key for row in rows})
        old = set(number)
        before = self._standing(connection, number.values())
        new = [self._cell(row, number) for row in rows if row.key not in number]
        made: dict[tuple[int, ...], dict[str, Any]] = {}
        stale: set[Place] = set()
        now = time.time()
        for row in rows:
            for result in self._results(row, number[row.key], before):
                place = (result["cell"], result["metric"], result["repeat"])
                stale.add(place)
                made[(*place, result["sub"])] = {**result, "created": now}
            if row.status == "ok":
                stale.add((number[row.key], self._text(""), row.repeat))
        _delete(connection, stale & set(before))
        self._insert(connection, cells, new)
        self._insert(connection, results, list(made.values()))
        for study in {row.study for row in rows if row.key in old}:
            self.join(connection, study, {row.key for row in rows if row.study == study} & old)

    def join(self, connection: sa.Connection, study: str, keys: Iterable[str]) -> None:
        """Make stored cells members of a study."""
        mine = self._text(study)
        wanted = set(self._known(connection, set(keys)).values())
        for cell, of in ((cells.c.id, cells.c.study), (members.c.cell, members.c.study)):
            for some in chunks(wanted):
                found = sa.select(cell).where(of == mine, cell.in_(some))
                wanted.difference_update(connection.execute(found).scalars())
        self._insert(connection, members, [{"study": mine, "cell": cell} for cell in wanted])

    def keep(self, connection: sa.Connection, given: Sequence[Certificate]) -> None:
        """Add certificates, each in the place of the one of its key."""
        newest = {certificate.key: certificate for certificate in given}
        for some in chunks(newest):
            connection.execute(certificates.delete().where(certificates.c.key.in_(some)))
        last = connection.execute(sa.select(sa.func.max(certificates.c.id))).scalar() or 0
        rows = [
            {
                "id": last + i,
                "key": key,
                "sampler": _clean(made.sampler),
                "options": canonical(dict(made.options)),
                "distribution": _clean(made.distribution),
                "process": _clean(made.process),
                "failed": _clean(", ".join(check.name for check in made.failed)),
                "made": _clean(made.made),
                "body": made.to_json(),
            }
            for i, (key, made) in enumerate(newest.items(), 1)
        ]
        self._insert(connection, certificates, rows)

    def _text(self, text: str) -> int:
        known = self.texts.get(text)
        if known is None:
            known = self.texts[text] = self.shared["texts"].number(_clean(text))
        return known

    def _known(self, connection: sa.Connection, keys: Collection[str]) -> dict[str, int]:
        """The numbers of those of these cells that are stored; their hashes are noted."""
        number = {}
        known = self.hashes["cells"] = {}
        for some in chunks(keys):
            wanted = sa.select(cells.c.key, cells.c.id, cells.c.hash).where(cells.c.key.in_(some))
            for key, cell, digest in connection.execute(wanted):
                number[key], known[cell] = cell, digest
        return number

    def _cell(self, row: CellRow, number: dict[str, int]) -> dict[str, Any]:
        """A new cell, whose number is put into ``number``."""
        labels = {"kind": row.kind, "spec": row.spec, **row.columns}
        given = tuple(labels.get(name, "") for name in (*LABELS, *COUNTS))
        setting = self.settings.get(given)
        if setting is None:
            names = (self._text(str(label)) for label in given[: len(LABELS)])
            counts = (int(count or 0) for count in given[len(LABELS) :])
            setting = self.shared["settings"].number(*names, *counts)
            self.settings[given] = setting
        number[row.key] = self.next
        self.next += 1
        return {
            "id": number[row.key],
            "key": row.key,
            "study": self._text(row.study),
            "setting": setting,
            "seed": int(labels.get("seed", 0)),
        }

    def _results(
        self, row: CellRow, cell: int, before: Mapping[Place, bool]
    ) -> Iterator[dict[str, Any]]:
        used = row.versions
        run = self.shared["runs"].number(
            *map(self._text, (used.labcore, used.torch, used.plugins))
        )
        trace = self._text(row.traceback)
        for metric, sub, value, status, reason in row.measured():
            name = self._text(metric)
            if status != "ok" and before.get((cell, name, row.repeat)):
                continue
            yield {
                "cell": cell,
                "metric": name,
                "sub": self._text(sub),
                "repeat": row.repeat,
                "value": value,
                "status": self._text(status),
                "reason": self._text(reason),
                "traceback": trace,
                "run": run,
                "nfe": float(row.nfe),
                "seconds": float(row.seconds),
            }

    def _standing(self, connection: sa.Connection, numbers: Iterable[int]) -> dict[Place, bool]:
        """What the store has of these cells, and whether it is a value."""
        ok = self._text("ok")
        standing = {}
        place = (results.c.cell, results.c.metric, results.c.repeat)
        for some in chunks(numbers):
            wanted = sa.select(*place, results.c.status).where(results.c.cell.in_(some))
            for cell, metric, repeat, status in connection.execute(wanted):
                standing[cell, metric, repeat] = status == ok
        return standing

    def _insert(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        """Insert rows, and before them the shared rows they refer to."""
        for shared in self.shared.values():
            fresh, shared.new = shared.new, []
            self._hashed(connection, shared.table, fresh)
        self._hashed(connection, table, rows)

    def _hashed(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        if not rows:
            return
        columns = {name: np.array([row[name] for row in rows]) for name in content(table)}
        digests = hashes(table, columns, self.lookup).tolist()
        known = self.hashes.get(table.name, {})
        for row, digest in zip(rows, digests, strict=True):
            row["hash"] = digest
            known[row.get("id", 0)] = digest
        connection.execute(table.insert(), rows)


def _clean(text: str) -> str:
    """A lone surrogate or a NUL is text to Python and to no database."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    """The values in lists that fit a query."""
    every = list(values)
    yield from (every[i : i + CHUNK] for i in range(0, len(every), CHUNK))


def _delete(connection: sa.Connection, places: Iterable[Place]) -> None:
    stale = [dict(zip(("_cell", "_metric", "_repeat"), place, strict=True)) for place in places]
    if stale:
        names = ("cell", "metric", "repeat")
        where = [results.c[name] == sa.bindparam(f"_{name}") for name in names]
        connection.execute(results.delete().where(*where), stale)

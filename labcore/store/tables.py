"""The tables of a store, and the hash that every row carries.

What many rows share (labels, settings, versions) is stored once and referred to by number. A
hash covers the row as it is read, the shared text included, so that damage anywhere shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

SCHEMA = 2
"""1 had no certificates; a store of it is read as having none, and gets the table when written."""

metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _table(name: str, keys: Sequence[str], *columns: sa.Column[Any]) -> sa.Table:
    """Columns named in ``keys`` are integers and make the primary key; all tables end in hash."""
    key = [sa.Column(k, _number, primary_key=True, autoincrement=False) for k in keys]
    last = sa.Column("hash", _number, nullable=False)
    rowid = len(keys) == 1  # a sole integer key is SQLite's own row number
    return sa.Table(name, metadata, *key, *columns, last, sqlite_with_rowid=rowid)


def _of(name: str, type_: Any = _number, **given: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False, **given)


meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
texts = _table("texts", ["id"], _of("text", sa.Text))

LABELS = (
    *("kind", "target", "process", "score", "grid", "sampler"),
    *("start", "end", "against", "dtype", "spec"),
)
COUNTS = ("steps", "n")
settings = _table("settings", ["id"], *map(_of, LABELS), *map(_of, COUNTS))
"""What cells that differ in their seed alone share; labels are numbers of texts."""

cells = _table(
    "cells", ["id"], _of("key", sa.Text, unique=True), _of("study"), _of("setting"), _of("seed")
)
members = _table("members", ["study", "cell"])
"""The cells a study shares with the one that ran them first, which is the one in ``cells``."""

RUN = ("labcore", "torch", "plugins")
runs = _table("runs", ["id"], *map(_of, RUN))
"""The versions that a result was made with."""

results = _table(
    "results",
    ["cell", "metric", "sub", "repeat"],
    sa.Column("value", sa.Double),
    *map(_of, ("status", "reason", "traceback", "run")),
    *(sa.Column(name, sa.Double) for name in ("nfe", "seconds")),
    _of("created", sa.Double),
)
"""One value of one metric. A cell that failed has one with the metric "" and no value."""

certificates = _table(
    "certificates",
    ["id"],
    *(_of(name, sa.Text) for name in ("sampler", "options", "distribution", "process")),
    _of("key", sa.Text, unique=True),
    *(_of(name, sa.Text) for name in ("failed", "made", "body")),
)
"""The newest certificate of each key; ``failed`` names its failed checks, ``body`` is its JSON."""

TABLES = (texts, settings, runs, cells, members, results, certificates)
"""In the order in which they refer to each other."""

_REFERS = {
    "settings": dict.fromkeys(LABELS, "texts"),
    "runs": dict.fromkeys(RUN, "texts"),
    "cells": {"study": "texts", "setting": "settings"},
    "members": {"study": "texts", "cell": "cells"},
    "results": {
        "cell": "cells",
        "run": "runs",
        **dict.fromkeys(("metric", "sub", "status", "reason", "traceback"), "texts"),
    },
}
"""The table that a column's numbers are rows of."""

Lookup = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""For each table, the hashes of the rows of given numbers."""


def content(table: sa.Table) -> list[str]:
    """The columns that a row's hash covers: all but the hash, and its own number."""
    return [c.name for c in table.columns if c.name not in ("hash", "id")]


def hashes(table: sa.Table, columns: Mapping[str, np.ndarray], lookup: Lookup) -> np.ndarray:
    """The hash of each row, int64. What a row refers to enters by its own hash.

    Each column is folded in by the finaliser of splitmix64 (Steele et al., 2014), a bijection:
    two rows that differ in one column never share a hash.
    """
    refers = _REFERS.get(table.name, {})
    folded = np.zeros(1, np.uint64)
    for name in content(table):
        values = columns[name]
        bits = lookup[refers[name]](values) if name in refers else _bits(values)
        folded = _mix((folded + np.uint64(0x9E3779B97F4A7C15)) ^ bits.view(np.uint64))
    return folded.view(np.int64)


def _bits(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, one zero
    if values.dtype.kind == "i":
        return values.astype(np.int64)
    return np.fromiter(map(_text_bits, values), np.int64, len(values))


def _text_bits(text: object) -> int:  # a damaged text may come as bytes
    digest = hashlib.blake2b(str(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

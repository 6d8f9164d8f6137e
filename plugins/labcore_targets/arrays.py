"""Readers of .npy, .npz and .parquet. Sizes are read from headers before anything is unpacked,
and nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from labcore import LabError
from labcore_targets.limits import refuse, within

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npy(path: Path, key: str, limit: int) -> np.ndarray:
    """The array of a .npy file."""
    if key:
        raise refuse(path, f"a .npy file holds one array, not a '{key}'", "leave key out")
    with path.open("rb") as stream:
        return _array(path, stream, limit)


def npz(path: Path, key: str, limit: int) -> np.ndarray:
    """The array ``key`` of a .npz file, or its only one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            key = key or (names[0] if len(names) == 1 else "")
            if key not in names:
                raise refuse(path, f"no array '{key}' in it", f"key is one of: {', '.join(names)}")
            with archive.open(f"{key}.npy") as stream:
                return _array(path, stream, limit)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise refuse(path, f"not a readable .npz archive ({error})", "save it anew") from error


def _array(path: Path, stream: IO[bytes], limit: int) -> np.ndarray:
    """The array in a stream at its start, checked by its header before memory is taken for it."""
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
        if dtype.kind not in "biuf":
            raise refuse(path, f"its dtype is {_named(dtype)}", "save an array of numbers")
        within(path, prod(shape), limit)
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except (ValueError, KeyError, EOFError, zlib.error) as error:
        line = str(error).splitlines()[0][:120]
        raise refuse(path, f"not a whole array ({line})", "save it anew") from error


def _named(dtype: np.dtype[Any]) -> str:
    return "object, which would need unpickling" if dtype.hasobject else str(dtype)


def parquet(path: Path, key: str, limit: int) -> np.ndarray:
    """Columns of a .parquet file: those named in ``key``, or all numeric ones; or one of lists."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise LabError(
            "target 'file': reading parquet needs pyarrow; pip install 'labcore[parquet]'"
        ) from error
    try:
        source = pq.ParquetFile(path)
        schema = source.schema_arrow
        names = [n.strip() for n in key.split(",")] if key else _numeric(pa, schema)
        missing = [n for n in names if n not in schema.names]
        if missing or not names:
            raise refuse(
                path,
                f"no column {', '.join(missing) or 'of numbers'}",
                f"key names columns of: {', '.join(schema.names)}",
            )
        within(path, _numbers(source.metadata, names), limit)
        table = source.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0][:120]
        raise refuse(path, f"not a readable parquet file ({line})", "write it anew") from error
    if len(names) == 1 and pa.types.is_nested(schema.field(names[0]).type):
        return _lists(path, table.column(0))
    bad = [n for n in names if n not in _numeric(pa, schema)]
    if bad:
        raise refuse(path, f"column {bad[0]} is not of numbers", "name numeric columns in key")
    columns = [table.column(n).to_numpy() for n in names]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], 1)


def _numeric(pa: Any, schema: Any) -> list[str]:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return [field.name for field in schema if any(kind(field.type) for kind in kinds)]


def _numbers(metadata: Any, names: list[str]) -> int:
    """How many values the columns hold, by the file's footer; lists count their items."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(j) for group in groups for j in range(group.num_columns)]
    return sum(c.num_values for c in chunks if c.path_in_schema.split(".")[0] in names)


def _lists(path: Path, column: Any) -> np.ndarray:
    rows = [np.asarray(row) for row in column.to_pylist()]
    lengths = {row.shape for row in rows}
    if len(lengths) > 1:
        raise refuse(path, f"its lists have lengths {sorted(lengths)[:4]}", "make them equal")
    stacked = np.stack(rows) if rows else np.empty((0, 1))
    if stacked.dtype.kind not in "biuf":
        raise refuse(path, "its lists are not of numbers", "write lists of numbers")
    return stacked

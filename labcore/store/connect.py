"""Opening a store: the file, its one writer, and errors in words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from labcore.errors import StoreError
from labcore.store.tables import SCHEMA, meta, metadata
from labcore.text import one_line

_REMEDIES = {
    "SQLITE_FULL": "the disk is full; free some space and run again, what is finished is kept",
    "SQLITE_BUSY": "another program holds it locked; close that program and run again",
    "SQLITE_LOCKED": "another program holds it locked; close that program and run again",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the permissions of the file and its folder",
    "SQLITE_PERM": "it cannot be opened; check the permissions of the file and its folder",
    "SQLITE_NOTADB": "the file is no results store or is damaged; restore a copy or name another",
    "SQLITE_CORRUPT": "the file is damaged; restore a copy, or save what is sound with "
    "labcore salvage",
    "SQLITE_IOERR": "the disk failed to read or write; check it, and that it is not full",
    "SQLITE_TOOBIG": "a text is too large for the database; shorten it",
}

_LOCK = 0x1ABC0DE
"""The number of a server's advisory lock."""


def is_url(where: str | Path) -> bool:
    return "://" in str(where)


def shown(where: str | Path) -> str:
    """The store's name for messages, without a password."""
    text = str(where)
    return sa.make_url(text).render_as_string(hide_password=True) if is_url(text) else text


@contextmanager
def told(where: str | Path) -> Iterator[None]:
    """Turn what the database raises into a StoreError of one line."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise StoreError(f"store '{shown(where)}': {_remedy(error.orig)}") from error
    except sqlite3.Error as error:
        raise StoreError(f"store '{shown(where)}': {_remedy(error)}") from error
    except UnicodeDecodeError as error:  # in the database's own words for what is wrong
        raise StoreError(f"store '{shown(where)}': {_REMEDIES['SQLITE_CORRUPT']}") from error
    except OSError as error:
        raise StoreError(
            f"store '{shown(where)}': {error.strerror}; check the folder's permissions and space"
        ) from error


def _remedy(error: BaseException | None) -> str:
    name = str(getattr(error, "sqlite_errorname", ""))
    for code, remedy in _REMEDIES.items():
        if name.startswith(code):
            return remedy
    if "decode" in str(error):
        return _REMEDIES["SQLITE_CORRUPT"]
    return f"{one_line(str(error))}; check that it is a results store and can be reached"


def open_engine(
    where: str | Path, write: bool, torn: bool = False
) -> tuple[sa.Engine, Callable[[], None]]:
    """An engine on a store, and what closes it; a file's structure is checked unless ``torn``."""
    with told(where), ExitStack() as stack:
        url = sa.make_url(str(where)) if is_url(where) else None
        if url is None or url.get_backend_name() == "sqlite":
            path = Path(where if url is None else url.database or "")
            engine = _open_file(stack, path, write, torn)
        else:
            engine = _open_server(stack, url, write)
        if _check_schema(engine, where) < SCHEMA and write:
            _upgrade(engine)
        return engine, stack.pop_all().close


def _open_file(stack: ExitStack, path: Path, write: bool, torn: bool) -> sa.Engine:
    _check_file(path)
    if write:
        stack.callback(_lock(path))
    if write and not path.exists():
        _create(path)
    if not path.exists():
        raise StoreError(f"store '{path}': there is none; run a study with this store first")
    engine = _sqlite_engine(path, write)
    stack.callback(engine.dispose)
    if not torn:  # rows may be lost without a trace, and adding to a damaged file makes it worse
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise StoreError(f"store '{path}': {_REMEDIES['SQLITE_CORRUPT']}")
    return engine


def _open_server(stack: ExitStack, url: sa.URL, write: bool) -> sa.Engine:
    try:
        engine = sa.create_engine(url, pool_size=2, isolation_level="REPEATABLE READ")
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise StoreError(
            f"store '{shown(str(url))}': {one_line(str(error))}; give a file, or install the "
            "driver and write postgresql+psycopg://user@host/name"
        ) from error
    stack.callback(engine.dispose)
    if write:
        holder = stack.enter_context(engine.connect())  # the lock lasts as long as it does
        if not holder.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar():
            raise StoreError(
                f"store '{shown(str(url))}': busy, another run is writing to it; wait for it to "
                "end, or name another store"
            )
        if not sa.inspect(engine).has_table("meta"):
            with engine.connect() as connection:
                _fill(connection)
    return engine


def _sqlite_engine(path: Path, write: bool) -> sa.Engine:
    """An engine on an existing SQLite file: WAL, durable commits, whole-snapshot reads."""
    # A folder that cannot be written cannot hold what WAL needs; a store at rest needs none.
    at_rest = not Path(f"{path}-wal").exists() and not os.access(path.parent, os.W_OK)
    mode = "mode=ro&immutable=1" if at_rest else "mode=rw"
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=20, isolation_level=None)
        for pragma in ("synchronous=FULL", f"query_only={int(not write)}", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.StaticPool)
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check_file(path: Path) -> None:
    """Refuse what cannot be a store before SQLite makes something else of it."""
    if path.is_dir():
        raise StoreError(f"store '{path}': it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise StoreError(f"store '{path}': there is no folder '{path.parent}'; make it first")
    if path.exists() and path.stat().st_size == 0:
        raise StoreError(
            f"store '{path}': the file is empty, so it was cut off or is none; restore a copy, or "
            "delete it to start anew"
        )


def _check_schema(engine: sa.Engine, where: str | Path) -> int:
    """The schema; a database of another program or of a newer labcore is refused."""
    if not sa.inspect(engine).has_table("meta"):
        raise StoreError(f"store '{shown(where)}': it is no results store; name another file")
    with engine.connect() as connection:
        found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema")).scalar()
    if found is None or not found.isdecimal():
        raise StoreError(f"store '{shown(where)}': {_REMEDIES['SQLITE_CORRUPT']}")
    if int(found) > SCHEMA:
        raise StoreError(
            f"store '{shown(where)}': it has schema {found}, this labcore reads up to {SCHEMA}; "
            "upgrade labcore or name another store"
        )
    return int(found)


def _upgrade(engine: sa.Engine) -> None:
    """Give an older store the tables it lacks, in one transaction; nothing it has changes."""
    with engine.begin() as connection:
        metadata.create_all(connection)
        given = meta.update().where(meta.c.name == "schema").values(value=str(SCHEMA))
        connection.execute(given)


def _create(path: Path) -> None:
    """Make an empty store: complete under another name first, so that no half of one is seen."""
    fresh = path.with_name(f".new-{os.getpid()}.sqlite")
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(fresh))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _fill(connection)
        engine.dispose()
        os.replace(fresh, path)
    finally:
        engine.dispose()
        for rest in ("", "-wal", "-shm", "-journal"):
            Path(f"{fresh}{rest}").unlink(missing_ok=True)


def _fill(connection: sa.Connection) -> None:
    """Create the tables."""
    metadata.create_all(connection)
    connection.execute(meta.insert(), {"name": "schema", "value": str(SCHEMA)})
    connection.commit()


def _lock(path: Path) -> Callable[[], None]:
    """Become the only writer of ``path``; returns what ends it. Raises StoreError when busy.

    The lock is the kernel's and goes with its process, however that ends; the file beside the
    store only says whose it is.
    """
    beside = Path(f"{path}.lock")
    while True:
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(beside).st_ino:
                break
        except BlockingIOError as error:
            holder = one_line(os.read(handle, 200).decode(errors="replace")) or "another process"
            os.close(handle)
            raise StoreError(
                f"store '{path}': busy, {holder} is writing to it; wait for that run to end, or "
                "name another store"
            ) from error
        except FileNotFoundError:
            pass
        os.close(handle)  # the last writer removed the file between our two looks; try again
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} ({Path(sys.argv[0]).name})".encode())

    def release() -> None:
        beside.unlink(missing_ok=True)
        os.close(handle)

    return release

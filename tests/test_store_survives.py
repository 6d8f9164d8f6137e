"""A store that was cut off, flipped, filled up or fought over says so and loses nothing else."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest
from test_store_keeps_results import failed, row

from labcore.errors import StoreError
from labcore.store import open_store, salvage


def filled(path: Path, count: int = 150) -> pd.DataFrame:
    with open_store(path, write=True) as store:
        store.put_many(
            row(i, values={"m": {"a": i * 0.3, "b": 1 / (i + 1)}}) for i in range(count)
        )
        store.put(failed(999))
        store.join("second", [row(3).key])
        return store.frame()


def refusal(path: Path, write: bool = False) -> str:
    """The one line that opening and reading a store is refused with."""
    with pytest.raises(StoreError) as caught, open_store(path, write=write) as store:
        store.frame()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.exit_code == 3
    return message


def test_every_flipped_bit_is_told_or_harmless(tmp_path: Path) -> None:
    path, copy = tmp_path / "s.sqlite", tmp_path / "copy.sqlite"
    whole = filled(path)
    data = path.read_bytes()
    draw = random.Random(0)
    flips = [(draw.randrange(len(data)), draw.randrange(8)) for _ in range(250)]
    # page headers, where a flip can lose rows and leave every other one sound
    flips += [(page + 4, bit) for page in range(4096, len(data), 4096) for bit in (0, 3, 6)]
    told = []
    for position, bit in flips:
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        copy.write_bytes(flipped)
        try:
            with open_store(copy) as store:
                pd.testing.assert_frame_equal(store.frame(), whole)
                assert len(store.frame("second")) == 2
        except StoreError as error:
            told.append(str(error))
    assert len(told) > len(flips) / 4
    assert all(re.search("damaged|no results store|schema", message) for message in told)


def test_a_damaged_row_is_named_and_the_sound_ones_can_be_saved(tmp_path: Path) -> None:
    path, saved = tmp_path / "s.sqlite", tmp_path / "saved.sqlite"
    whole = filled(path)
    connection = sqlite3.connect(path)
    connection.execute("update results set value = value + 1e-9 where cell = 8 and value > 1")
    connection.commit()
    connection.close()
    message = refusal(path)
    assert f"a row is damaged (results 'm' of cell {row(7).key})" in message
    assert "restore a copy" in message
    assert salvage(path, saved) == len(whole) - 1
    with open_store(saved, write=True) as store:
        lost = whole[(whole["key"] == row(7).key) & (whole["metric"] == "m.a")].index
        pd.testing.assert_frame_equal(store.frame(), whole.drop(lost).reset_index(drop=True))
        store.put(row(7, values={"again": {"": 1.0}}))
        assert store.check() == len(whole)
    with pytest.raises(StoreError, match="name a new file"):
        salvage(path, saved)


def test_rows_beyond_a_torn_page_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    count = len(filled(path, 2000))
    data = bytearray(path.read_bytes())
    connection = sqlite3.connect(path)
    (root,) = connection.execute(
        "select rootpage from sqlite_master where name='results'"
    ).fetchone()
    connection.close()
    middle = next(
        page
        for page in range(len(data) // 4096 // 2, len(data) // 4096)
        if data[page * 4096] == 10 and page + 1 != root  # a leaf of an index-organised table
    )
    data[middle * 4096 : middle * 4096 + 4096] = bytes(4096)
    path.write_bytes(data)
    assert "damaged" in refusal(path)
    assert count * 0.8 < salvage(path, tmp_path / "saved.sqlite") < count
    with open_store(tmp_path / "saved.sqlite") as store:
        assert store.check() > count * 0.8


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: data[:50], "damaged"),
        (lambda data: b"", "the file is empty"),
        (lambda data: bytes(len(data)), "no results store or is damaged"),
        (lambda data: data[:4096] + bytes(len(data) - 4096), "damaged"),
        (lambda data: b"key,value\n1,2\n" * 400, "no results store"),
    ],
)
def test_what_is_cut_off_or_zeroed_is_refused_and_left_alone(
    tmp_path: Path, harm, said: str, write: bool
) -> None:
    path = tmp_path / "s.sqlite"
    filled(path)
    path.write_bytes(harm(path.read_bytes()))
    before = path.read_bytes()
    assert said in refusal(path, write)
    assert path.read_bytes() == before
    assert not Path(f"{path}.lock").exists()


def test_other_databases_newer_schemas_and_wrong_places_are_refused(tmp_path: Path) -> None:
    other, newer = tmp_path / "other.sqlite", tmp_path / "newer.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()
    assert "it is no results store" in refusal(other, write=True)
    filled(newer)
    connection = sqlite3.connect(newer)
    connection.execute("update meta set value = '7'")
    connection.commit()
    connection.close()
    assert "it has schema 7, this labcore reads up to 2; upgrade" in refusal(newer)
    assert "there is no folder" in refusal(tmp_path / "no" / "s.sqlite", write=True)
    assert "it is a folder" in refusal(tmp_path)
    assert "run a study with this store first" in refusal(tmp_path / "none.sqlite")
    assert "check the folder" in refusal(tmp_path / ("x" * 300), write=True)
    with pytest.raises(StoreError, match="install the driver"), open_store("nosuchdb://host/x"):
        pass


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path, write=True) as store:
        message = refusal(path, write=True)
        assert f"busy, process {os.getpid()}" in message
        assert "wait for that run to end" in message
        store.put(row(1))
    with open_store(path, write=True) as store:
        store.put(row(2))
        assert len(store.frame()) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_full_disk_is_told_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path, write=True) as store:
        store.put(row(0))
        with store.engine.connect() as connection:
            connection.exec_driver_sql("pragma max_page_count = 40")
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            store.put_many(row(i) for i in range(1, 5000))
        assert list(store.frame()["seed"]) == [0]
        with store.engine.connect() as connection:
            connection.exec_driver_sql("pragma max_page_count = 100000")
        store.put_many(row(i) for i in range(1, 5000))
        assert store.check() == 5000


def test_an_interrupt_within_a_transaction_undoes_it(tmp_path: Path) -> None:
    def rows():
        yield from (row(i) for i in range(1, 50))
        raise KeyboardInterrupt

    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(row(0))
        with pytest.raises(KeyboardInterrupt):
            store.put_many(rows())
        with pytest.raises(ValueError, match="xxx"):
            store.put_many([row(1), row(2, values={"m": {"": "x" * 3}, "n": 5})])  # type: ignore
        store.put(row(3))
        assert list(store.frame()["seed"]) == [0, 3]
        assert store.check() == 2


WRITER = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_store_keeps_results import row
    from labcore.store import open_store
    with open_store({path!r}, write=True) as store:
        for i in range({first}, 100000):
            store.put(row(i))
            print(i, flush=True)
"""


def test_a_killed_writer_loses_at_most_the_cell_it_was_at(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    first = 0
    for wait in (0.0, 0.013, 0.031, 0.07):
        code = WRITER.format(tests=str(Path(__file__).parent), path=str(path), first=first)
        process = subprocess.Popen(
            [sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
        committed = max(int(line) for line in said if line.strip())
        with open_store(path) as store:
            stored = sorted(store.frame()["seed"])
            assert store.check() == len(stored)
        assert stored in (list(range(committed + 1)), list(range(committed + 2)))
        first = len(stored)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_cannot_be_written_is_told_and_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        filled(folder / "s.sqlite", 5)
        lines = read_as_nobody(folder)
    assert lines[0] == "11"
    assert len(lines) == 3
    assert all("Permission denied" in line for line in lines[1:])


def read_as_nobody(folder: Path) -> list[str]:
    path, new = str(folder / "s.sqlite"), str(folder / "new.sqlite")
    code = f"""
        import os, sys
        from labcore.errors import StoreError
        from labcore.store import open_store
        import pandas, sqlalchemy.dialects.sqlite
        os.setuid(65534)
        with open_store({path!r}) as store:
            print(len(store.frame()))
        for name in ({path!r}, {new!r}):
            try:
                with open_store(name, write=True): pass
            except StoreError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

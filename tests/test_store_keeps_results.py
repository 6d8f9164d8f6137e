"""What goes into a store comes out, each finished (cell, metric) once, whatever the values."""

import math
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.errors import StoreError
from labcore.store import CellRow, Versions, open_store
from labcore.store.reading import COLUMNS

VERSIONS = Versions("0.1.0", "2.13.0", '{"samplers": "1.0"}')
LABELS = {
    **{"target": "targets:rings", "process": "linear:vp(beta_max=10)", "score": "scores:exact"},
    **{"grid": "linear:karras", "sampler": "samplers:ddim(eta=0.5)", "start": "prior"},
    **{"end": "stop", "against": "data", "dtype": "float32"},
}


def row(i: int = 0, study: str = "demo", **given: Any) -> CellRow:
    columns = {**LABELS, "steps": 10, "n": 500, "seed": i}
    values = {"metrics:energy": {"": 0.25 * i}}
    defaults = {"values": values, "nfe": 20.0, "seconds": 0.125, "versions": VERSIONS}
    return CellRow(f"{i:032x}", study, columns, **{**defaults, **given})


def failed(i: int = 0, **given: Any) -> CellRow:
    return row(i, **{"status": "failed", "values": {}, "reason": "NaN at t=0.1", **given})


def test_a_row_comes_back_in_every_column(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(row(3, values={"metrics:mmd": {"biased": 1.5, "unbiased": -0.5}}))
        frame = store.frame("demo")
    expected = {
        **LABELS,
        **{"key": f"{3:032x}", "study": "demo", "kind": "cell", "steps": 10, "n": 500, "seed": 3},
        **{"nfe": 20.0, "seconds": 0.125, "status": "ok", "reason": "", "labcore": "0.1.0"},
        "t_eps": float("nan"),
        **{"torch": "2.13.0", "plugins": '{"samplers": "1.0"}'},
        "certificate": "uncertified",
    }
    rows = [
        {**expected, "metric": "metrics:mmd.biased", "value": 1.5},
        {**expected, "metric": "metrics:mmd.unbiased", "value": -0.5},
    ]
    pd.testing.assert_frame_equal(frame, pd.DataFrame(rows)[list(COLUMNS)])


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True), min_size=1, max_size=8),
    reason=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_any_float_and_any_text_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], reason: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "s.sqlite"
    with open_store(path, write=True) as store:
        store.put_many(row(i, values={"m": {"": v}}) for i, v in enumerate(values))
        store.put(failed(99, reason=reason))
    with open_store(path) as store:
        frame = store.frame()
        assert store.check() == len(values) + 1
    assert np.array_equal(frame["value"][:-1].to_numpy(), values, equal_nan=True)
    assert frame["reason"].iloc[-1] == reason
    assert math.isnan(frame["value"].iloc[-1])


def test_text_that_no_database_takes_is_made_so_that_it_does(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(failed(reason="a\0b\ud800c"))
        assert list(store.frame()["reason"]) == ["ab?c"]


def test_a_metric_added_later_joins_those_a_cell_has(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(row(1))
        store.put(row(1, values={"metrics:mmd": {"": 7.0}}, versions=replace(VERSIONS, torch="3")))
        frame = store.frame()
        assert store.done([row(1).key]) == {row(1).key: {"metrics:energy", "metrics:mmd"}}
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == {
        "metrics:energy": 0.25,
        "metrics:mmd": 7.0,
    }
    assert dict(zip(frame["metric"], frame["torch"], strict=True))["metrics:mmd"] == "3"


def test_what_is_to_do_is_what_has_not_ended(tmp_path: Path) -> None:
    keys = [row(i).key for i in range(4)]
    metrics = ["metrics:energy", "metrics:mmd"]
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put_many([row(0), failed(1), row(2, unmeasured={"metrics:mmd": "too few samples"})])
        assert store.todo(keys, metrics) == {keys[0]: metrics[1:], keys[3]: metrics}
        assert store.todo(keys, metrics, retry_failed=True) == {
            keys[0]: metrics[1:],
            keys[1]: metrics,
            keys[2]: metrics[1:],
            keys[3]: metrics,
        }


def test_a_retry_that_succeeds_replaces_the_failure(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put_many([failed(0, traceback="deep"), row(1, unmeasured={"m": "no"})])
        assert store.traceback(row(0).key) == "deep"
        store.put_many([row(0), row(1, values={"m": {"a": 1.0, "b": 2.0}})])
        frame = store.frame()
        assert store.traceback(row(0).key) == ""
        assert store.check() == 4
    assert list(frame["status"].unique()) == ["ok"]
    assert sorted(frame["metric"]) == ["m.a", "m.b", "metrics:energy", "metrics:energy"]


def test_a_failure_never_replaces_a_value(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(row(1))
        store.put(failed(1))
        store.put(row(1, values={}, unmeasured={"metrics:energy": "worse luck"}))
        frame = store.frame()
    values = frame[frame["metric"] == "metrics:energy"]
    assert list(values["value"]) == [0.25]
    assert list(values["status"]) == ["ok"]


def test_a_cell_of_two_studies_is_stored_once_and_seen_by_both(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put_many(row(i, "first") for i in range(6))
        store.join("second", [row(i).key for i in (2, 3)])
        store.join("second", [row(i).key for i in (3, 4, 77)])
        store.put_many([row(5, "second"), row(6, "second")])
        assert store.studies() == ["first", "second"]
        second = store.frame("second")
        assert list(second["seed"]) == [2, 3, 4, 5, 6]
        assert set(second["study"]) == {"second"}
        assert list(store.frame("first")["seed"]) == [0, 1, 2, 3, 4, 5]
        assert len(store.frame()) == 7
        assert list(store.frame().columns) == list(store.frame("nobody").columns)
        assert store.check() == 7


def test_noise_floors_are_rows_with_their_repeat_as_seed(tmp_path: Path) -> None:
    columns = {"target": "targets:rings", "n": 500, "against": "data"}

    def floor(repeat: int, value: float, metric: str = "m") -> CellRow:
        return CellRow(
            "f" * 32, "demo", columns, kind="floor", repeat=repeat, values={metric: {"": value}}
        )

    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put_many([floor(r, float(r)) for r in range(3)])
        store.put_many([floor(r, 10.0 * r, "other") for r in range(2)])
        assert store.floor_done(["f" * 32, "0" * 32]) == {"f" * 32: {"m": 3, "other": 2}}
        frame = store.frame("demo")
    assert set(frame["kind"]) == {"floor"}
    assert set(frame["sampler"]) == {""}
    got = frame.sort_values(["metric", "seed"])[["metric", "seed", "value"]].values.tolist()
    assert got == [
        ["m", 0, 0.0],
        ["m", 1, 1.0],
        ["m", 2, 2.0],
        ["other", 0, 0.0],
        ["other", 1, 10],
    ]


def test_a_reader_sees_what_is_committed_while_a_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path, write=True) as writer:
        writer.put(row(0))
        with open_store(path) as reader:
            assert len(reader.frame()) == 1
            writer.put(row(1))
            assert len(reader.frame()) == 2
            with pytest.raises(StoreError, match="open it with write=True"):
                reader.put(row(2))


@pytest.mark.parametrize(
    "name", ["with space and ü 漢.sqlite", "x" * 243 + ".sqlite", "a?b#c%20.sqlite", "no suffix"]
)
def test_any_file_name_will_do_and_nothing_is_left_beside(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_store(path, write=True) as store:
        store.put(row(1))
    with open_store(path) as store:
        assert len(store.frame()) == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_store_is_plain_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(f"sqlite:///{path}", write=True) as store:
        store.put(row(4))
        with store.engine.connect() as connection:  # what survives a power cut; 2 is FULL
            assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
    file = sqlite3.connect(path)
    query = (
        "select cells.key, texts.text, results.value from results "
        "join cells on cells.id = results.cell join texts on texts.id = results.metric"
    )
    assert file.execute(query).fetchall() == [(row(4).key, "metrics:energy", 1.0)]
    assert file.execute("pragma journal_mode").fetchone() == ("wal",)
    file.close()


def test_rows_are_added_in_microseconds(tmp_path: Path) -> None:
    # Relative to the same rows as bare JSON text, so that a busy machine does not matter.
    code = f"""
import json, time, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store_keeps_results import row
from labcore.store import open_store
rows = [row(i) for i in range(4000)]
begun = time.process_time()
for _ in range(4): text = [json.dumps([r.key, dict(r.columns), dict(r.values)]) for r in rows]
plain = time.process_time() - begun
with open_store({str(tmp_path / "s.sqlite")!r}, write=True) as store:
    begun = time.process_time()
    for i in range(0, len(rows), 200): store.put_many(rows[i:i + 200])
    print((time.process_time() - begun) / plain)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.5


SERVER = os.environ.get("LABCORE_TEST_DATABASE", "")


@pytest.mark.skipif(not SERVER, reason="LABCORE_TEST_DATABASE names no empty PostgreSQL database")
def test_a_server_keeps_the_same_and_has_one_writer() -> None:
    with open_store(SERVER, write=True) as store:
        store.put_many(row(i) for i in range(1000))
        store.put(row(2000, values={"m": {"": math.nan, "a": math.inf}}))
        store.put(failed(3000, reason="a\0b"))
        with pytest.raises(StoreError, match="busy"), open_store(SERVER, write=True):
            pass
        with open_store(SERVER) as reader:
            assert len(reader.frame("demo")) == store.check() == 1003
        store.put(row(3000))
        assert list(store.frame()["status"].unique()) == ["ok"]

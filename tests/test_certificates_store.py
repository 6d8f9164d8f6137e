"""Certificates in a store: what goes in comes out, and each row says what they mean for it."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labcore.certificates import Certificate, Check, from_json, severity, state_of, told
from labcore.errors import InvalidOption, StoreError
from labcore.store import CellRow, Versions, open_store, salvage

HOSTILE = "<script>alert(1)</script> `|x` $y$ \x1b[31m \0 \ud800 =cmd()"

CHECKS = (
    Check("pure", "passed", "nothing is written to"),
    Check("order", "passed", "1.00", figures={"slope": 1.0, "interval": [0.9, 1.1]}),
    Check("strong", "skipped", "none declared"),
)
WRONG = Check("order", "failed", "0.85, declared 2", "mend it", {"slope": float("nan")})


def certificate(**given: Any) -> Certificate:
    options = {"eta": 0.5, "stages": (1, 2)}
    made: dict[str, Any] = {
        **{"sampler": "acme:ab2", "options": options, "process": "linear:vp", "checks": CHECKS},
        **{"distribution": "acme 1.2", "versions": {"labcore": "0.1"}, "made": "2026-11-21"},
    }
    return Certificate(**{**made, **given})


def stopped(**given: Any) -> Certificate:
    return certificate(checks=(Check("battery", "failed", "no verdict (timeout)"),), **given)


def broken(**given: Any) -> Certificate:
    return certificate(checks=(CHECKS[0], WRONG), **given)


def row(i: int = 0, process: str = "linear:vp", plugins: str = '{"acme": "1.2"}') -> CellRow:
    spec = '[["targets:rings",{}],["linear:vp",{}],["acme:ab2",{"stages":[1,2],"eta":0.5}]]'
    columns = {"target": "targets:rings", "process": process, "sampler": "acme:ab2(eta=0.5)"}
    return CellRow(
        f"{i:032x}",
        "demo",
        {**columns, "steps": 10, "n": 50, "seed": i},
        values={"m": {"": 1.0}},
        versions=Versions("0.1", "2", plugins),
        spec=spec,
    )


def test_a_certificate_comes_back_whole_but_for_what_no_json_holds(tmp_path: Path) -> None:
    plot = {"kind": "lines", "series": [{"label": "a", "x": [1, 2], "y": [float("inf"), 0.5]}]}
    given = broken(made=HOSTILE, distribution=HOSTILE + " 1.2")
    given = replace(given, checks=(*given.checks, Check("x", "passed", HOSTILE, plots=(plot,))))
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.keep([given])
    with open_store(tmp_path / "s.sqlite") as store:
        (back,) = store.certificates()
    assert back.key == given.key
    assert back == from_json(given.to_json())
    assert [c.found for c in back.checks] == [c.found for c in given.checks]
    assert back["order"].figures["slope"] is None
    assert back["x"].plots[0]["series"][0]["y"] == [None, 0.5]
    assert (back.state, [c.name for c in back.failed]) == ("failed", ["order"])


def test_the_key_is_of_sampler_options_version_and_process_alone() -> None:
    key = certificate().key
    same = [
        broken(made="2027-01-01", seconds=9.0, seed=3, versions={}),
        certificate(options={"stages": [1, 2], "eta": 0.5}),
    ]
    other = [
        certificate(sampler="acme:ab3"),
        certificate(options={"eta": 0.0, "stages": (1, 2)}),
        certificate(distribution="acme 1.3"),
        certificate(process="linear:vp(b1=10)"),
    ]
    assert {c.key for c in same} == {key}
    assert len({key, *(c.key for c in other)}) == 5


def test_the_newest_of_a_key_is_kept(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.keep([broken(), certificate(process="linear:edm")])
        store.keep([certificate(made="2027")])
        store.keep([broken(made="2028"), certificate(made="2029")])
        held = store.certificates()
        store.check()
    assert [(c.process, c.state, c.made) for c in held] == [
        ("linear:edm", "certified", "2026-11-21"),
        ("linear:vp", "certified", "2029"),
    ]


def test_a_part_of_the_battery_is_not_kept_and_certifies_nothing(tmp_path: Path) -> None:
    part = certificate(complete=False)
    assert part.state == "uncertified"
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        with pytest.raises(InvalidOption, match=r"only pure, order, strong of the battery"):
            store.keep([certificate(process="linear:edm"), part])
        assert store.certificates() == []


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([], "uncertified"),
        ([certificate()], "certified"),
        ([broken()], "failed: order"),
        ([certificate(distribution="acme 1.3")], "uncertified"),
        ([certificate(options={"eta": 0.0, "stages": (1, 2)})], "uncertified"),
        ([certificate(sampler="acme:ab3")], "uncertified"),
        (
            [certificate(process="linear:edm")],
            "uncertified on linear:vp, certified on linear:edm",
        ),
        ([broken(process="linear:edm")], "failed: order on linear:edm"),
        ([certificate(), broken(process="linear:edm")], "certified"),
        ([stopped()], "uncertified"),
        ([broken(), stopped(process="linear:edm")], "failed: order"),
        (
            [certificate(process="linear:edm"), stopped(process="linear:ve")],
            "uncertified on linear:vp, certified on linear:edm",
        ),
        ([broken(), certificate(process="linear:edm")], "failed: order"),
        (
            [certificate(process="linear:ve"), broken(process="linear:edm")],
            "failed: order on linear:edm",
        ),
    ],
)
def test_a_row_is_certified_as_it_ran_and_no_otherwise(
    tmp_path: Path, held: list[Certificate], said: str
) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put(row())
        store.keep(held)
        assert list(store.frame()["certificate"]) == [said]


def test_rows_of_one_sampler_differ_by_version_and_process(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.put_many(
            [row(0), row(1, process="linear:edm"), row(2, plugins='{"acme": "1.3"}'), row(3)]
        )
        store.put(CellRow("f" * 32, "demo", {"n": 50}, kind="floor", values={"m": {"": 1.0}}))
        store.keep([certificate(), broken(process="linear:edm")])
        frame = store.frame("demo")
    said = {(r.kind, r.seed): r.certificate for r in frame.itertuples()}
    assert said == {
        ("cell", 0): "certified",
        ("cell", 1): "failed: order",
        ("cell", 2): "uncertified",
        ("cell", 3): "certified",
        ("floor", 0): "",
    }


def test_states_go_from_the_best_to_the_worst() -> None:
    process = "linear:vp"
    texts = [
        told({process: ()}, process),
        told({}, process),
        told({"linear:edm": ()}, process),
        told({process: ("order", "nfe")}, process),
    ]
    assert sorted(texts, key=severity) == texts
    assert [state_of(text) for text in texts] == [
        *("certified", "uncertified", "uncertified", "failed")
    ]


def older(path: Path) -> None:
    """A store of schema 1, which had no certificates."""
    with open_store(path, write=True) as store:
        store.put(row())
    connection = sqlite3.connect(path)
    connection.execute("drop table certificates")
    connection.execute("update meta set value = '1' where name = 'schema'")
    connection.commit()
    connection.close()


def test_an_older_store_is_read_as_it_is_and_gets_the_table_when_written(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    older(path)
    with open_store(path) as store:
        assert store.certificates() == []
        assert list(store.frame()["certificate"]) == ["uncertified"]
        assert store.check() == 1
    assert salvage(path, tmp_path / "copy.sqlite") == 1
    with open_store(path, write=True) as store:
        store.keep([certificate()])
        assert list(store.frame()["certificate"]) == ["certified"]
    connection = sqlite3.connect(path)
    assert connection.execute("select value from meta").fetchall() == [("2",)]
    connection.close()


@pytest.mark.parametrize("column", ["failed", "options", "sampler", "body", "distribution"])
def test_a_damaged_certificate_is_refused_by_name_and_the_others_are_saved(
    tmp_path: Path, column: str
) -> None:
    path, fresh = tmp_path / "s.sqlite", tmp_path / "fresh.sqlite"
    with open_store(path, write=True) as store:
        store.put(row())
        store.keep([broken(), certificate(process="linear:edm")])
    connection = sqlite3.connect(path)
    connection.execute(
        f"update certificates set {column} = 'certified' where process = 'linear:vp'"
    )
    connection.commit()
    connection.close()
    with open_store(path) as store:
        for read in (store.certificates, store.frame, store.check):
            with pytest.raises(StoreError, match=r"a row is damaged \(certificates .*salvage"):
                read()
    assert salvage(path, fresh) == 1
    with open_store(fresh) as store:
        assert [c.process for c in store.certificates()] == ["linear:edm"]
        assert list(store.frame()["value"]) == [1.0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9, "checks": []}', "null", "{"])
def test_a_text_that_is_no_certificate_is_a_store_error(text: str) -> None:
    with pytest.raises(StoreError, match="make it again"):
        from_json(text)


def test_figures_come_back_in_the_order_they_were_given(tmp_path: Path) -> None:
    from labcore import pages

    given = certificate(checks=(Check("order", "passed", "1", figures={"z": 1, "a": 2}),))
    with open_store(tmp_path / "s.sqlite", write=True) as store:
        store.keep([given])
        (back,) = store.certificates()
    assert list(back["order"].figures) == ["z", "a"]
    assert pages.html(back) == pages.html(replace(given, options=dict(back.options)))

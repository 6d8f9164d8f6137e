"""Results that an older version of a plugin made stay in a store, and are told of."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from toy_lab import study

import labcore
from labcore import stale
from labcore.lab import run_study, versions_of
from labcore.store import Versions, open_store
from labcore.study import Cell


def run(where: Path, made: labcore.Study) -> tuple[Sequence[Cell], Versions]:
    run_study(made, where)
    registry = made.registry()
    return made.cells(registry), versions_of(registry)


@pytest.mark.parametrize(("plugin", "told"), [("local", True), ("torchsde", False)])
def test_a_store_tells_of_plugins_that_have_changed_since(
    tmp_path: Path, plugin: str, told: bool
) -> None:
    where = tmp_path / "s.sqlite"
    cells, versions = run(where, study())
    now = json.loads(versions.plugins)
    changed = Versions("", "", json.dumps({**now, plugin: "another"}))
    with open_store(where) as store:
        assert list(stale.told(cells, store, versions)) == []
        lines = list(stale.told(cells, store, changed))
    assert len(lines) == told
    for line in lines:
        assert line.startswith(f"{len(cells)} cells here were made by version {now[plugin]} of")
        assert "which is now another" in line


def test_a_run_says_so_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "s.sqlite"
    run(where, study())
    monkeypatch.setattr("labcore.lab.versions_of", lambda registry: Versions("", "", changed))
    changed = json.dumps({"local": "another"})
    events = list[labcore.Event]()
    run_study(study(), where, reporters=[events.append])
    assert [e.kind for e in events] == ["start", "note", "finish"]
    assert "of 'local', which is now another" in events[1].message

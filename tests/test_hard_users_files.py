"""Where results go and how they are shown: odd names, odd locales, places that refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_cli import STUDY
from toy_lab import study

from labcore import lab
from labcore.store import open_store

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    lab.run_study(study(steps=4, seed=0), tmp_path / "s.sqlite")
    return tmp_path / "s.sqlite"


def command(folder: Path, *given: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "labcore", *given]
    env = {**os.environ, **more}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, timeout=100)


def test_a_locale_without_letters_shows_results_all_the_same(store: Path) -> None:
    named = store.with_name("ü ñ.sqlite")
    store.rename(named)
    done = command(store.parent, "results", named.name, **ASCII)
    assert done.returncode == 0, done.stderr
    assert b"toy_em" in done.stdout
    assert done.stdout.isascii()


def test_a_locale_without_letters_writes_stores_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(STUDY.format(steps="5", seeds=1, n=50))
    done = command(tmp_path, "run", "s.py", "--store", "ü.sqlite", **ASCII)
    assert done.returncode == 0, done.stderr
    with open_store(tmp_path / "ü.sqlite") as opened:
        assert opened.check() > 0


def test_stores_may_have_names_that_are_no_text(store: Path) -> None:
    named = store.with_name(os.fsdecode(b"\xff\xfe"))
    store.rename(named)
    with open_store(named) as opened:
        assert opened.check() > 0


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", f"{'v' * 250}.csv"])
def test_exports_have_any_name_the_system_takes(store: Path, name: str) -> None:
    done = command(store.parent, "results", store.name, "--csv", name)
    assert done.returncode == 0, done.stderr
    with open_store(store) as opened:
        assert len(pd.read_csv(store.parent / name)) == len(opened.frame())
    assert not list(store.parent.glob(".new*"))


def test_an_export_to_no_folder_names_it(store: Path) -> None:
    done = command(store.parent, "results", store.name, "--csv", "no/x.csv")
    assert done.returncode == 2
    assert b"non-existent directory: 'no'; name a place" in done.stderr

"""The command line: exit codes, errors in one line, exports, and nothing heavy for --help."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from distributions import environment, labcore_cli
from synthetic_rows import frame, seeds

from labcore.cli.results import _show_failed

STUDY = """
import labcore
from labcore import use

study = labcore.Study(
    name="small", question="does it run?",
    target=use("gmm_ring"), process=use("vp"), grid=use("quadratic"),
    sampler=["ddim", "samplers:euler"], steps=[{steps}], seed=range({seeds}), n={n},
    metrics=["sliced_w2"], floor_repeats=3,
)
if __name__ == "__main__":
    study.main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "a study ü.py"
    path.write_text(STUDY.format(steps="5, 10", seeds=3, n=100))
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "none"


def error_line(site: Path, *arguments: str, code: int = 2) -> str:
    """What is said on stderr; one line without a traceback."""
    err = labcore_cli(site, *arguments, code=code).stderr
    assert "Traceback" not in err
    return err


def test_run_results_plot_in_that_order(site: Path, script: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "a store ü.sqlite")
    out = labcore_cli(site, "run", str(script), "--store", store).stdout
    assert "12 cells run, 0 were there, 0 failed" in out
    table = labcore_cli(site, "results", store).stdout
    assert " ddim " in table
    assert "noise floor" in table
    for kind in ("csv", "parquet"):
        path = tmp_path / f"rows.{kind}"
        labcore_cli(site, "results", store, f"--{kind}", str(path))
    csv, parquet = pd.read_csv(tmp_path / "rows.csv"), pd.read_parquet(tmp_path / "rows.parquet")
    assert len(csv) == len(parquet) == 12 + 3
    assert csv.value.to_numpy() == pytest.approx(parquet.value.to_numpy())
    plots = labcore_cli(site, "plot", store, "--out", str(tmp_path / "plots")).stdout.split()
    assert [Path(p).suffix for p in plots] == [".png", ".svg"] * 2
    assert all(Path(p).stat().st_size > 1000 for p in plots)


def test_a_script_is_its_own_command(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "small: 12 cells, about" in done.stdout
    assert not (tmp_path / "out").exists()


def test_formulas_are_disarmed_in_csv(site: Path, tmp_path: Path) -> None:
    from labcore.cli.results import _csv

    frame = pd.DataFrame({"reason": ["=cmd()", "+1", "-1", "@x", "fine"], "value": [-1.0] * 5})
    _csv(frame, tmp_path / "x.csv")
    back = pd.read_csv(tmp_path / "x.csv")
    assert list(back.reason) == ["'=cmd()", "'+1", "'-1", "'@x", "fine"]
    assert (back.value == -1).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["show", "dddim"], "did you mean ddim"),
        (["show", "hean"], "did you mean heun, heun3, heun2?"),
        (["show", "heun"], "write samplers:heun or torchsde:heun"),
        (["list", "smplers"], "is not one of"),
        (["run", "nowhere.py"], "does not exist"),
    ],
)
def test_typos_leave_with_two(site: Path, arguments: list[str], said: str) -> None:
    assert said in error_line(site, *arguments)


def test_a_store_that_is_none_leaves_with_three(site: Path, tmp_path: Path) -> None:
    assert "there is none" in error_line(site, "results", str(tmp_path / "x"), code=3)
    (tmp_path / "bad").write_bytes(b"nonsense" * 1000)
    assert "damaged" in error_line(site, "results", str(tmp_path / "bad"), code=3)


def test_what_is_sound_in_a_damaged_store_is_salvaged(
    site: Path, script: Path, tmp_path: Path
) -> None:
    store, new = tmp_path / "r.sqlite", tmp_path / "new.sqlite"
    labcore_cli(site, "run", str(script), "--store", str(store))
    whole = len(store.read_bytes())
    damaged = bytearray(store.read_bytes())
    at = damaged.rfind(b"linear:quadratic")
    damaged[at] ^= 1
    store.write_bytes(damaged)
    assert len(damaged) == whole
    assert "salvage" in error_line(site, "results", str(store), code=3)
    assert "results in" in labcore_cli(site, "salvage", str(store), str(new)).stdout


def test_scripts_that_define_no_study(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    for source, said in (
        ("x = 1", "defines no study"),
        ("1/0", "ZeroDivisionError"),
        ("import sys; sys.exit(0)", "sys.exit"),
        (STUDY.format(steps="0", seeds=3, n=100), "steps=0"),
        (STUDY.format(steps="5", seeds=3, n=100).replace("ddim", "ddimm"), "did you mean"),
    ):
        path.write_text(source)
        store = str(tmp_path / "r.sqlite")
        assert said in error_line(site, "run", str(path), "--store", store)
        assert not Path(store).exists()


def test_failed_cells_leave_with_one_and_are_listed(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    bad = """
@labcore.sampler(order=1, evals=1)
def ill(process, score, x, ts, noise):
    raise ValueError("=boom \\x1b[31m")
    yield x
"""
    source = STUDY.format(steps="5", seeds=2, n=100).replace("study =", bad + "\nstudy =")
    source = source.replace('"samplers:euler"', '"ill"').replace("n=100", "n=100, entries=[ill]")
    path.write_text(source)
    store = str(tmp_path / "r.sqlite")
    done = labcore_cli(site, "run", str(path), "--store", store, code=1)
    assert "4 cells run, 0 were there, 2 failed, " in done.stdout
    again = labcore_cli(site, "run", str(path), "--store", store, code=1).stdout
    said = "0 cells run, 4 were there, 0 failed, 2 failed before (--retry-failed runs them again)"
    assert said in again
    once = ("run", str(path), "--store", store, "--filter", "sampler=ddim")
    assert "2 were there, 0 failed, 0" in labcore_cli(site, *once).stdout
    retried = labcore_cli(site, "run", str(path), "--store", store, "--retry-failed", code=1)
    assert "2 cells run, 2 were there, 2 failed, " in retried.stdout
    assert "failed before" not in retried.stdout
    failed = labcore_cli(site, "results", store, "--failed").stdout
    assert "ValueError: =boom" in failed
    assert "\x1b" not in failed
    key = failed.split()[0]
    assert "in ill" in labcore_cli(site, "results", store, "--traceback", key).stdout


def test_failed_cells_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """By all that differs between cells, also where what failed has but one value of it."""
    ill = {"status": "failed", "reason": "ValueError: no", "metric": ""}
    cells = [
        seeds([0.5], sampler="a:ill", process=process, grid=grid, **ill)
        for process in ("linear:vp", "linear:edm")
        for grid in ("linear:karras", "linear:uniform")
    ]
    _show_failed(frame(*cells, seeds([0.5], sampler="a:ill", score="scores:mine")))
    lines = capsys.readouterr().out.splitlines()
    assert len({line.partition(" failed ")[2] for line in lines}) == len(lines) == 4
    said = (
        "failed a:ill 10 steps seed 0, process linear:vp, score scores:exact, grid linear:karras"
    )
    assert f"{said}: ValueError: no" in lines[0]


def test_interrupt_leaves_with_130_and_a_store_that_continues(site: Path, tmp_path: Path) -> None:
    path, store = tmp_path / "s.py", str(tmp_path / "r.sqlite")
    path.write_text(STUDY.format(steps="200", seeds=60, n=2000).replace("n=2000", "n=40000"))
    command = [sys.executable, "-m", "labcore", "run", str(path), "--store", store]
    run = subprocess.Popen(
        command, env=environment(site), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not Path(store).exists():
        time.sleep(0.1)
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    from labcore.store import open_store

    with open_store(store) as opened:
        opened.check()


def test_head_may_close_the_pipe(site: Path) -> None:
    command = f"{sys.executable} -m labcore list grids | head -1"
    done = subprocess.run(
        command, shell=True, env=environment(site), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("linear:")
    assert "Traceback" not in done.stderr


COMMANDS = [
    "",
    "plugins",
    "list",
    "show",
    "check",
    "certificates",
    "fingerprint",
    "run",
    "train",
    "likelihood",
    "results",
    "reversals",
    "plot",
    "salvage",
    "completion",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from labcore.cli import cli\n"
        f"try: cli.main({[*command.split(), '--help']!r}, standalone_mode=False)\n"
        "finally: print([m for m in ('torch','pandas','seaborn','numpy','distributed','pydantic',"
        "'sqlalchemy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in out.stdout
    assert out.stdout.splitlines()[-1] == "[]"


def test_plugins_are_listed_without_loading_them(site: Path) -> None:
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "labcore", "plugins"], env=env, capture_output=True, text=True
    )
    assert "linear           labcore_linear" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not modules & {"torch", "pandas", "seaborn", "labcore_linear"}


def test_completion_scripts_and_names(site: Path) -> None:
    assert "_LABCORE_COMPLETE" in labcore_cli(site, "completion", "bash").stdout
    env = {"COMP_WORDS": "labcore show samplers:h", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "from labcore.cli import cli; cli.main(prog_name='labcore')"],
        env={**environment(site), **env, "_LABCORE_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "samplers:heun" in done.stdout

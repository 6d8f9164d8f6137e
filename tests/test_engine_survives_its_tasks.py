"""Whatever a block does to its process, it becomes a Failure and every other has its payload."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from labcore.engine import Failure, execute
from labcore.errors import InvalidOption


def refuse(seed: int) -> None:
    raise ValueError(f"seed {seed}\nis wrong")


DEEDS: dict[str, Callable[[], Any]] = {
    "raises": lambda: refuse(7),
    "exits": lambda: sys.exit(3),
    "vanishes": lambda: os._exit(5),
    "crashes": lambda: ctypes.string_at(0),
    "hangs": lambda: time.sleep(1000),
    # C code that neither returns nor lets go of the interpreter: no signal would stop it
    "spins": lambda: re.match("(a+)+$", "a" * 64 + "b"),
    "allocates": lambda: torch.empty(10**11).fill_(1.0),
    "interrupts": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "unpicklable": lambda: (i for i in "abc"),
}


def task(block: tuple[Any, ...]) -> list[Any]:
    """Plain numbers become sums whose last digits depend on the thread count; words are done."""
    print("what a plugin prints")
    return [DEEDS[cell]() if cell in DEEDS else heavy(cell) for cell in block]


def heavy(seed: int) -> tuple[float, float]:
    x = torch.randn(300_000, generator=torch.Generator().manual_seed(seed))
    y = x.numpy().reshape(600, 500)
    return float(x.sum()), float((y @ y.T).sum() + np.linalg.norm(y))


def one_by_one(block: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [(cell,) for cell in block]


NUMBERS = [(i,) for i in range(12)]


@pytest.fixture(scope="module")
def ended() -> dict[Any, Any]:
    """Every deed, two of them amid innocents, and numbers, on two workers."""
    alone = [(deed,) for deed in DEEDS if deed not in ("crashes", "hangs")]
    blocks = [(0, "crashes", 1), (2, "hangs", 3), *alone, *NUMBERS[4:]]
    open_ports, found = set(), {}
    run = execute(blocks, task, workers=2, timeout=5.0, memory=2**30, split=one_by_one)
    for block, payload in run:
        assert block not in found
        found[block] = payload
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                ports = process.net_connections(kind="inet")
                open_ports |= {c.laddr.ip for c in ports if c.status == psutil.CONN_LISTEN}
    found["hosts"] = open_ports
    return found


@pytest.mark.parametrize(
    ("deed", "status", "said"),
    [
        ("raises", "failed", "ValueError: seed 7 is wrong"),
        ("exits", "failed", "called sys.exit(3)"),
        ("vanishes", "killed", "its process ended itself twice with exit code 5"),
        ("crashes", "killed", "its process crashed twice (SIGSEGV)"),
        ("hangs", "timeout", "ran longer than 5 s"),
        ("spins", "timeout", "ran longer than 5 s"),
        ("allocates", "failed", "can't allocate memory"),
        ("interrupts", "failed", "KeyboardInterrupt"),
        ("unpicklable", "failed", "cannot pickle 'generator' object"),
    ],
)
def test_a_bad_block_is_a_failure_with_its_reason(
    ended: dict[Any, Any], deed: str, status: str, said: str
) -> None:
    failure = ended[(deed,)]
    assert failure.status == status
    assert said in failure.reason
    assert failure.reason.isprintable()


def test_payloads_are_those_of_this_process(ended: dict[Any, Any]) -> None:
    here = dict(execute(NUMBERS, task))
    assert {block: ended[block] for block in NUMBERS} == here
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert dict(execute(NUMBERS, task)) == here
        assert torch.get_num_threads() == 2
        assert heavy(1) != here[(1,)][0], "the sums are the same on any number of threads"
    finally:
        torch.set_num_threads(threads)


def test_innocents_in_a_block_with_a_guilty_cell_are_run_alone(ended: dict[Any, Any]) -> None:
    for innocent, payload in execute(NUMBERS[:4], task):
        assert ended[innocent] == payload
    assert (0, "crashes", 1) not in ended


def test_nothing_listens_beyond_loopback(ended: dict[Any, Any]) -> None:
    assert ended["hosts"] == {"127.0.0.1"}


def test_no_worker_is_left_behind(ended: dict[Any, Any]) -> None:
    left = [p.cmdline() for p in psutil.Process().children(recursive=True)]
    assert not [line for line in left if "spawn_main" in " ".join(line)]


def test_tracebacks_lead_to_the_line(ended: dict[Any, Any]) -> None:
    assert "in refuse" in ended[("raises",)].traceback


def test_failures_in_this_process_are_the_same() -> None:
    blocks = [("raises",), (1,), ("exits",)]
    found = dict(execute(blocks, task))
    assert found[("raises",)].reason == "ValueError: seed 7 is wrong"
    assert found[("exits",)] == Failure(
        "failed", "called sys.exit(3)", found[("exits",)].traceback
    )
    assert found[(1,)] == dict(execute([(1,)], task))[(1,)]


def test_what_a_block_prints_is_not_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    list(execute([(1,)], task))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "what a plugin prints" in captured.err


def test_blocks_are_taken_as_they_are_needed_and_none_is_fine() -> None:
    taken: list[int] = []

    def blocks() -> Any:
        for i in range(5):
            taken.append(i)
            yield (i,)

    run = execute(blocks(), task)
    next(run)
    assert taken == [0]
    assert list(execute([], task, workers=2)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": -1}, "workers=-1"),
        ({"workers": True}, "workers=True"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"timeout": 5.0}, "use workers=1"),
        ({"timeout": 0.0, "workers": 1}, "must be positive"),
        ({"timeout": float("nan"), "workers": 1}, "must be positive"),
        ({"memory": -1, "workers": 1}, "must be positive"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(given: dict, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        execute([(1,)], task, **given)


SCRIPT = """
    import os, sys, time
    from labcore.engine import execute

    SCALE = 3.0  # a script's own function and its globals travel by value

    def task(block):
        print("printed by the task")
        if block == "hang":
            time.sleep(1000)
        return SCALE * block

    def blocks():
        yield from (1, 2)
        yield "hang"
        yield "hang"

    for block, payload in execute(blocks(), task, workers=2):
        print(block, payload, flush=True)
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an unguarded script in a group of its own; what is left of it ends with the test."""
    started = []

    def run(source: str) -> subprocess.Popen[str]:
        script = tmp_path / "unguarded script.py"
        script.write_text(dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            # these tests may themselves run in the background, where Ctrl-C is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def up_to_its_second_payload(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until both workers hang; the processes there are."""
    assert process.stdout is not None
    lines = sorted(process.stdout.readline() for _ in range(2))
    assert lines == ["1 3.0\n", "2 6.0\n"], process.communicate()[1]
    return family(process)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_control_c_ends_every_process_and_leaves_no_file(tmp_path: Path, launch: Any) -> None:
    process = launch(SCRIPT)
    children = up_to_its_second_payload(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group is interrupted
    time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
    assert "printed by the task" not in out
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert [p.name for p in tmp_path.iterdir()] == ["unguarded script.py"]


def test_control_c_while_workers_start_leaves_none(launch: Any) -> None:
    process = launch(SCRIPT.replace("1, 2", '"hang", "hang"'))
    deadline = time.monotonic() + 60
    while len(family(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = family(process)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=90)[1]
    assert "KeyboardInterrupt" in err
    assert err.count("Traceback") == 1, "the workers complain as well"
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_a_killed_driver_takes_its_workers_along(launch: Any) -> None:
    process = launch(SCRIPT)
    children = up_to_its_second_payload(process)
    assert len(children) >= 2
    process.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []


LOCKED = """
    from labcore.engine import execute

    def task(block):
        import multiprocessing

        task.lock = multiprocessing.RLock()  # kept until the worker ends, as tqdm's is
        return block

    print(sorted(execute([1, 2], task, workers=2)))
"""


def test_locks_of_tasks_leave_nothing_behind(launch: Any) -> None:
    out, err = launch(LOCKED).communicate(timeout=60)
    assert (out, err) == ("[(1, 1), (2, 2)]\n", "")

"""Reporters: every event is told, in any terminal or none, and nothing in it steers one."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import labcore
from labcore import Event, LabError
from labcore_reporters.progress import NAMED, bar, lines

EVIL = "\x1b[2J[red]boom[/red]\x07"


def cell(done: int, failed: int = 0, **given: Any) -> Event:
    row = {"key": "k", "cell": "euler, seed 1", "status": "ok", "reason": "", "nfe": 20.0, **given}
    return Event("cell", done, 40, failed=failed, skipped=10, seconds=2.0, rows=(row,))


def story() -> list[Event]:
    return [
        Event("start", 0, 40, skipped=10, message="which is best?"),
        cell(1),
        cell(2, failed=1, status="failed", reason=EVIL, nfe=float("nan")),
        Event("note", 2, 40, failed=1, skipped=10, message="noise floor failed"),
        cell(20, failed=1),
        Event("finish", 30, 40, failed=1, skipped=10, seconds=3.0),
    ]


def test_plain_lines_tell_counts_rate_time_left_and_failures() -> None:
    out = io.StringIO()
    follow = lines(out, every=0.0)
    for event in story():
        follow(event)
    told = out.getvalue().splitlines()
    assert told[0] == "0/30 cells, 10 were there"
    assert told[1] == "1/30 cells, 0.5/s, 58s left, 10 were there"
    assert "failed: euler, seed 1: [2J[red]boom[/red]" in told
    assert "noise floor failed" in told
    assert "20/30 cells, 10/s, 1s left, 1 failed, 10 were there" in told
    assert told[-1] == "30/30 cells, 10/s, 1 failed, 10 were there"
    assert "\x1b" not in out.getvalue()


def test_plain_lines_are_rare() -> None:
    out = io.StringIO()
    follow = lines(out, every=1000.0)
    for event in (story()[0], *(cell(i) for i in range(1, 1000)), story()[-1]):
        follow(event)
    assert len(out.getvalue().splitlines()) == 2


@pytest.mark.parametrize("width", [40, 100])
def test_the_bar_fits_the_terminal_and_gives_the_cursor_back(width: int) -> None:
    out = io.StringIO()
    follow = bar(Console(file=out, force_terminal=True, width=width, color_system=None))
    for event in story():
        follow(event)
    text = out.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "\x1b[2J" not in text
    assert "boom" in text
    shown = Console(file=io.StringIO(), width=width)
    drawn = [line for line in text.replace("\r", "\n").split("\n") if "cells" in line]
    assert drawn
    assert all(shown.render_str(line.split("\x1b[")[0]).cell_len <= width for line in drawn)


def test_a_flood_of_failures_is_not_a_flood_of_lines() -> None:
    out = io.StringIO()
    follow = lines(out, every=1000.0)
    for i in range(1, 1000):
        follow(cell(i, failed=i, status="failed", reason="no"))
    told = out.getvalue().splitlines()
    assert len(told) == NAMED + 1
    assert told[-1] == "more cells failed; the store has the reason of each"


def test_a_closed_stream_does_not_stop_the_study() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    follow = lines(Closed(), every=0.0)
    for event in story():
        follow(event)


def test_json_lines_are_json_one_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "cut sho')
    follow = labcore.load_registry().get("reporter", "jsonl")(path=str(path))
    for event in story():
        follow(event)
    first, *rest = path.read_text().splitlines()
    assert first == '{"kind": "cut sho'
    events = [json.loads(line, parse_constant=pytest.fail) for line in rest]
    assert [e["kind"] for e in events] == [e.kind for e in story()]
    assert events[2]["rows"][0] == {
        **{"key": "k", "cell": "euler, seed 1", "status": "failed", "reason": EVIL, "nfe": None}
    }


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    follow = labcore.load_registry().get("reporter", "jsonl")(path=str(tmp_path))
    with pytest.raises(LabError, match="give a path= that can be written"):
        follow(story()[0])

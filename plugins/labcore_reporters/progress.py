"""Progress on stderr: done, failed, skipped, rate and time left."""

import atexit
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

import labcore
from labcore import Event

Reporter = Callable[[Event], None]

WIDE = 60
"""Columns below which the bar itself is left out."""

NAMED = 20
"""Failed cells that are named; the store has them all."""


@labcore.reporter
def progress(*, every: float = 5.0) -> Reporter:
    """A progress bar; without a terminal one line every ``every`` seconds. Failures are named."""
    console = Console(stderr=True)
    return bar(console) if console.is_terminal else lines(sys.stderr, every)


@labcore.reporter
def quiet() -> Reporter:
    """Says nothing."""
    return lambda event: None


def bar(console: Console) -> Reporter:
    """The bar of a terminal; narrow ones get the numbers alone."""
    numbers = TextColumn("{task.fields[numbers]}", markup=False)
    shown = (BarColumn(bar_width=None), numbers) if console.width >= WIDE else (numbers,)
    drawn = Progress(*shown, console=console, transient=True, expand=True)
    task = drawn.add_task("cells", total=1, numbers="")

    def follow(event: Event) -> None:
        if event.kind == "start":
            drawn.update(task, total=max(event.total - event.skipped, 1))
            drawn.start()
            atexit.register(drawn.stop)  # an interrupted run must give the cursor back
        style = "" if event.kind == "note" else "red"
        for text in remarks(event):
            drawn.console.print(Text(text, style=style), soft_wrap=True)
        drawn.update(task, completed=event.done, numbers=standing(event))
        if event.kind == "finish":
            drawn.stop()
            atexit.unregister(drawn.stop)

    return follow


def lines(out: TextIO, every: float) -> Reporter:
    """Plain lines: at the start, the end and once in ``every`` seconds, and for failed cells."""
    last = time.monotonic()

    def follow(event: Event) -> None:
        nonlocal last
        told = remarks(event)
        if event.kind in ("start", "finish") or time.monotonic() - last >= every:
            last = time.monotonic()
            told.append(standing(event))
        with suppress(OSError):  # nobody listens any more: no reason to stop the study
            for text in told:
                print(text, file=out, flush=True)

    return follow


def remarks(event: Event) -> list[str]:
    """A line for each cell that failed, up to ``NAMED`` of them, and for each note."""
    if event.kind == "note":
        return [plain(event.message)]
    bad = [row for row in event.rows if row["status"] != "ok" or row["reason"]]
    if not bad or event.failed > NAMED + len(bad):
        return []
    if event.failed > NAMED:
        return ["more cells failed; the store has the reason of each"]
    return [plain(f"{row['status']}: {row['cell']}: {row['reason']}") for row in bad]


def standing(event: Event) -> str:
    """``30/100 cells, 12.5/s, 6s left, 2 failed, 10 were there``, without what is zero."""
    parts = [f"{event.done}/{event.total - event.skipped} cells"]
    if event.done and event.seconds > 0:
        parts.append(f"{event.done / event.seconds:.3g}/s")
    if event.done and event.kind != "finish":
        parts.append(f"{left(event)} left")
    parts += [f"{event.failed} failed"] if event.failed else []
    parts += [f"{event.skipped} were there"] if event.skipped else []
    return ", ".join(parts)


def left(event: Event) -> str:
    """Time left at the rate so far."""
    seconds = event.seconds / event.done * (event.total - event.skipped - event.done)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def plain(text: str) -> str:
    """Text from elsewhere without what would steer the terminal."""
    return "".join(c for c in text if c.isprintable())

"""A progress bar on stderr: done, failed, skipped, rate and time left."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import labcore
from labcore import Event

Reporter = Callable[[Event], None]

WIDE = 60
"""Columns below which the bar itself is left out."""


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
    columns = (TextColumn("{task.completed:.0f}/{task.total:.0f} cells"),)
    wide = (BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    drawn = Progress(
        *columns,
        *(wide if console.width >= WIDE else wide[1:]),
        TextColumn("{task.fields[failed]}", style="red"),
        console=console,
        transient=True,
    )
    task = drawn.add_task("cells", total=1, rate="", failed="")

    def follow(event: Event) -> None:
        if event.kind == "start":
            drawn.update(task, total=max(event.total - event.skipped, 1))
            drawn.start()
        for text in failures(event):
            drawn.console.print(escape(text), style="red", highlight=False)
        failed = f"{event.failed} failed" if event.failed else ""
        drawn.update(task, completed=event.done, rate=rate(event), failed=failed)
        if event.kind == "finish":
            drawn.stop()

    return follow


def lines(out: TextIO, every: float) -> Reporter:
    """Plain lines, at most one in ``every`` seconds, and one for each failed cell."""
    last = time.monotonic()

    def follow(event: Event) -> None:
        nonlocal last
        for text in failures(event):
            print(text, file=out, flush=True)
        if time.monotonic() - last < every:
            return
        last = time.monotonic()
        open_ = event.total - event.skipped
        failed = f", {event.failed} failed" if event.failed else ""
        print(
            f"{event.done}/{open_} cells, {rate(event)}{failed}, {left(event)} left",
            file=out,
            flush=True,
        )

    return follow


def failures(event: Event) -> list[str]:
    """A line for each cell of the event that failed."""
    bad = [row for row in event.rows if row["status"] != "ok" or row["reason"]]
    named = [f"{row['status']}: {row['cell']}: {row['reason']}" for row in bad]
    return [*named, event.message] if event.kind == "note" else named


def rate(event: Event) -> str:
    """Cells a second so far."""
    return f"{event.done / event.seconds:.3g} cells/s" if event.seconds > 0 and event.done else ""


def left(event: Event) -> str:
    """Time left at the rate so far."""
    if not event.done:
        return "?"
    seconds = event.seconds / event.done * (event.total - event.skipped - event.done)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"

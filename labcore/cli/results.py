"""``labcore results STORE``: a table, or the rows as CSV or parquet."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("store", type=click.Path())
@click.option("--study", help="Which study, where the store has several.")
@click.option("--metric", "metrics", multiple=True, help="Metrics to show.  [all]")
@click.option("--csv", type=click.Path(dir_okay=False), help="Write all rows to this CSV file.")
@click.option("--parquet", type=click.Path(dir_okay=False), help="Write all rows as parquet.")
@click.option("--failed", is_flag=True, help="List the cells that failed, with their reasons.")
@click.option("--traceback", "key", help="Show the traceback of the failed cell with this key.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def results_command(
    store: str,
    study: str | None,
    metrics: tuple[str, ...],
    csv: str | None,
    parquet: str | None,
    failed: bool,
    key: str | None,
    debug: bool,
) -> None:
    """Show the results in STORE: mean and interval over seeds beside the noise floor."""
    if key is not None:
        click.echo(_traceback(store, key))
        return
    frame = read(store, study)
    for path, write in ((csv, _csv), (parquet, _parquet)):
        if path:
            write(frame, Path(path))
            click.echo(f"{len(frame):,} rows in {path}")
    if failed:
        _show_failed(frame)
    elif not csv and not parquet:
        _show(frame, metrics)


def read(store: str, study: str | None) -> pd.DataFrame:
    """The frame of a study, or of the whole store."""
    from labcore.errors import StoreError
    from labcore.store import open_store

    with open_store(store) as opened:
        names = opened.studies()
        if study is not None and study not in names:
            raise StoreError(f"store '{store}': no study '{study}'; it has {', '.join(names)}")
        return opened.frame(study)


def _traceback(store: str, key: str) -> str:
    from labcore.cli import printable
    from labcore.store import open_store

    with open_store(store) as opened:
        return printable(opened.traceback(key)) or f"no traceback of cell {key}"


AXES: tuple[str, ...] = ("target", "process", "score", "grid", "sampler", "steps", "nfe", "n")
AXES += ("start", "end", "against", "dtype")

SAFE = "'"
"""Put before a text that a spreadsheet would take for a formula."""


def _csv(frame: pd.DataFrame, path: Path) -> None:
    def harmless(text: Any) -> Any:
        return SAFE + text if isinstance(text, str) and text[:1] in tuple("=+-@\t\r") else text

    texts = frame.select_dtypes(include=["object", "string", "category"]).columns
    _replace(
        path, lambda to: frame.assign(**{c: frame[c].map(harmless) for c in texts}).to_csv(
            to, index=False
        )
    )  # fmt: skip


def _parquet(frame: pd.DataFrame, path: Path) -> None:
    from labcore.errors import LabError

    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise LabError("parquet: needs pyarrow; pip install 'labcore[parquet]'") from error
    _replace(path, lambda to: frame.to_parquet(to, index=False))


def _replace(path: Path, write: Any) -> None:
    """Write beside and rename, so that a reader sees the old file or the whole new one."""
    from labcore.errors import LabError
    from labcore.text import one_line

    beside = path.with_name(f".new-{os.getpid()}{path.suffix}")  # a suffix may mean compression
    try:
        write(beside)
        beside.replace(path)
    except OSError as error:
        said = error.strerror or one_line(str(error))
        raise LabError(f"'{path}': {said}; name a place that can be written") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _show(frame: pd.DataFrame, metrics: tuple[str, ...]) -> None:
    """A table a metric: sampler and settings down, mean +- half-width, the floor beside."""
    from labcore import stats
    from labcore.errors import LabError

    table = stats.with_floors(stats.summarise(frame), stats.floors(frame))
    known = [metric for metric in table["metric"].unique() if metric]
    chosen = [m for m in known if not metrics or _names(m) & {*metrics}]
    if not chosen:
        raise LabError(
            f"results: no rows of {', '.join(metrics) or 'any metric'}; the store has "
            f"{', '.join(known) or 'no metric'}; --failed lists cells that failed"
        )
    for metric in chosen:
        _print(metric, table[table["metric"] == metric])


def _names(metric: str) -> set[str]:
    """What a metric may be called: "metrics:moments.mean" also moments.mean and moments."""
    short = metric.rpartition(":")[2]
    return {metric, short, short.partition(".")[0]}


PLAIN = 160
"""Columns of a table that goes to a file or a pipe."""


def _print(metric: str, rows: pd.DataFrame) -> None:
    """One metric's table, sorted by its settings, in the shortest names that tell them apart."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from labcore.certificates import MARKS, state_of
    from labcore.plots import short_names

    shown = [c for c in AXES if c in rows and (rows[c].nunique() > 1 or c == "sampler")]
    table = Table(title=escape(metric), title_justify="left")
    for column in (*shown, "mean", "± 95 %", "noise floor", "seeds", "certificate"):
        right = column not in ("target", "process", "score", "grid", "sampler", "certificate")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    rows = rows.sort_values(shown)
    short = rows.assign(
        **{c: rows[c].map(short_names(rows[c])) for c in ("target", "sampler") if c in shown}
    )
    for row in short.to_dict("records"):
        floor = row.get("floor_mean", float("nan"))
        half = (row["hi"] - row["lo"]) / 2
        failures = f" ({row['failures']} failed)" if row["failures"] else ""
        cells = [_cell(row[c]) for c in shown]
        cells += [_cell(row["mean"]), _cell(half), _cell(floor), f"{row['count']}{failures}"]
        cells += [_cell(f"{MARKS[state_of(row['certificate'])]} {row['certificate']}".strip())]
        table.add_row(*map(escape, cells))
    console = Console()
    Console(width=console.width if console.is_terminal else PLAIN).print(table)


def _cell(value: Any) -> str:
    from labcore.cli import printable

    if isinstance(value, str):
        return printable(value)
    if value != value:
        return "-"
    return f"{value:g}" if float(value) == int(value) and abs(value) < 1e6 else f"{value:.3g}"


def _show_failed(frame: pd.DataFrame) -> None:
    from labcore.cli import printable

    cells = frame[frame["kind"] == "cell"]
    failed = cells[cells["status"] != "ok"]
    known = [c for c in AXES if c in cells and c not in ("sampler", "steps", "nfe")]
    told = [c for c in known if cells[c].nunique() > 1]
    for row in failed.to_dict("records"):
        what = f"{row['key']} {row['status']} {row['sampler']} {row['steps']} steps"
        where = "".join(f", {c} {_cell(row[c])}" for c in told)
        reason = f"{row['metric']} {row['reason']}".strip()
        click.echo(printable(f"{what} seed {row['seed']}{where}: {reason}"))
    if not len(failed):
        click.echo("no cell failed")

"""``labcore reversals STORE``: where samplers change places from one score to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("store", type=click.Path())
@click.option("--study", help="Which study, where the store has several.")
@click.option("--metric", "metrics", multiple=True, help="Metrics to look at.  [all]")
@click.option(
    "--between",
    type=click.Choice(["score", "process", "grid", "target", "n", "start", "end"]),
    default="score",
    show_default=True,
    help="What changes while the order turns round.",
)
@click.option("--base", help="The value that the others are held against.  [the first]")
@click.option(
    "--higher", is_flag=True, help="Higher values of these metrics are better.  [lower are]"
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def reversals_command(
    store: str,
    study: str | None,
    metrics: tuple[str, ...],
    between: str,
    base: str | None,
    higher: bool,
    debug: bool,
) -> None:
    """Pairs of samplers in STORE that change places: one is better on exact scores, say, the other
    on learned ones, both beyond their 95 % intervals on common seeds and above the noise floor."""
    from labcore.cli.results import read
    from labcore.stats import reversals

    frame = _chosen(read(store, study), metrics)
    found = reversals(frame, between, base=base, better="higher" if higher else "lower")
    if found.empty:
        click.echo(f"no two samplers change places between one {between} and another")
        return
    _show(found, between)


def _chosen(frame: pd.DataFrame, metrics: tuple[str, ...]) -> pd.DataFrame:
    """The rows of the metrics named, by their label or short name; all where none is."""
    from labcore.stats import bare, find

    if not metrics:
        return frame
    known = [m for m in frame["metric"].dropna().unique() if m]
    kept = [find(known, name, "metric") for name in metrics]
    return frame[frame["metric"].isin(kept) | frame["metric"].map(bare).isin(metrics)]


def _show(found: pd.DataFrame, between: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from labcore.cli import printable
    from labcore.stats import bare

    console = Console(width=None if Console().is_terminal else 160)
    for (metric, target, base), rows in found.groupby(
        ["metric", "target", f"{between}_base"], sort=False
    ):
        title = f"{metric}, {target}: better under {base} | better under the other"
        table = Table(title=printable(title), title_justify="left")
        for column in ("nfe", "first", "second", "difference ", between, "difference"):
            table.add_column(column)
        for row in rows.to_dict("records"):
            names = (bare(str(row["a"])), bare(str(row["b"])), str(row[f"{between}_other"]))
            a, b, other = map(printable, names)
            cost = row.get("nfe", row.get("steps"))
            table.add_row(
                f"{cost:g}", a, b, _interval(row, "base"), other, _interval(row, "other")
            )
        console.print(table)


def _interval(row: Mapping[Any, Any], side: str) -> str:
    lo, hi = row[f"lo_{side}"], row[f"hi_{side}"]
    return f"{row[f'difference_{side}']:.3g} [{lo:.3g}, {hi:.3g}]"

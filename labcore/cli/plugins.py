"""``labcore plugins``: the entry points, listed without loading them."""

from __future__ import annotations

import click


@click.command()
@click.option("--load", is_flag=True, help="Load them and show what each registers or why not.")
@click.option("--debug", is_flag=True, help="Show the tracebacks of those that failed.")
def plugins_command(load: bool, debug: bool) -> int:
    """List the installed plugins."""
    from labcore.cli import printable
    from labcore.plugins import discover

    if not load:
        for found in discover():
            line = f"{found.name:<16} {found.value:<28} {found.distribution} {found.version}"
            click.echo(printable(line.rstrip()))
        click.echo("\nlabcore plugins --load  shows what each registers", err=True)
        return 0
    return _loaded(debug)


def _loaded(debug: bool) -> int:
    from collections import Counter

    from labcore.cli import printable
    from labcore.registry import load_registry

    records = load_registry().records
    for record in records:
        counts = Counter(entry.kind for entry in record.entries)
        what = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items())
        line = f"{record.name:<16} {record.status:<11} {record.reason or what}"
        click.echo(printable(line))
        if debug and record.traceback:
            click.echo(printable(record.traceback))
    return 2 if any(record.status == "failed" for record in records) else 0

"""``labcore salvage DAMAGED NEW``: the sound rows of a damaged store, in a new one."""

from __future__ import annotations

import click


@click.command()
@click.argument("damaged", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def salvage_command(damaged: str, new: str, debug: bool) -> None:
    """Copy the rows of the store DAMAGED that match their hash into the store NEW."""
    from labcore.store import salvage

    click.echo(f"{salvage(damaged, new):,} results in {new}")

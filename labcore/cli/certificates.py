"""``labcore certificates``: those a store has, in a table, in full, or as pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labcore.certificates import Certificate


@click.command()
@click.argument("name", required=False)
@click.option("--store", type=click.Path(), help="Results file or URL.  [out/certificates.sqlite]")
@click.option("--markdown", is_flag=True, help="As Markdown: the table, or those of NAME in full.")
@click.option("--json", "as_json", is_flag=True, help="Each as a line of JSON.")
@click.option("--page", type=click.Path(file_okay=False), help="Write pages to this folder.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def certificates_command(
    name: str | None,
    store: str | None,
    markdown: bool,
    as_json: bool,
    page: str | None,
    debug: bool,
) -> None:
    """List the certificates in a store; those of sampler NAME (or with that key) in full."""
    held = read(store)
    chosen = [c for c in held if name is None or _called(c, name)]
    if name is not None and not chosen:
        _refuse(name, held)
    if page:
        from labcore import pages

        for path in list(pages.write(chosen, page)):
            click.echo(path)
    elif as_json:
        for certificate in chosen:
            click.echo(certificate.to_json())
    elif markdown:
        click.echo(_markdown(chosen, whole=name is not None), nl=False)
    elif name is None:
        _list(chosen)
    else:
        for certificate in chosen:
            _show(certificate)


def read(store: str | None) -> list[Certificate]:
    """All certificates of a store, by default the one that labcore check fills."""
    from labcore.cli.check import STORE
    from labcore.errors import StoreError
    from labcore.store import open_store

    where = store or f"out/{STORE}.sqlite"
    if store is None and not Path(where).exists():
        raise StoreError(f"store '{where}': there is none yet; labcore check SAMPLER makes one")
    with open_store(where) as opened:
        return opened.certificates()


def _called(certificate: Certificate, name: str) -> bool:
    """By its sampler's qualified or short name, or the beginning of its key."""
    sampler = certificate.sampler
    return name in (sampler, sampler.rpartition(":")[2]) or (
        len(name) >= 6 and certificate.key.startswith(name)
    )


def _refuse(name: str, held: list[Certificate]) -> None:
    from difflib import get_close_matches

    from labcore.cli import printable

    known = {short: c.sampler for c in held for short in (c.sampler, c.sampler.split(":")[-1])}
    near = [known[n] for n in get_close_matches(name, known, n=3)]
    hint = f"did you mean {', '.join(near)}?" if near else f"make it: labcore check {name}"
    raise click.UsageError(printable(f"no certificate of '{name}' in the store; {hint}"))


def _markdown(chosen: list[Certificate], whole: bool) -> str:
    from labcore import pages

    return "\n".join(map(pages.markdown, chosen)) if whole else pages.listing(chosen)


def _list(chosen: list[Certificate]) -> None:
    """A table as wide as the terminal, one certificate a row."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from labcore.certificates import MARKS
    from labcore.cli.results import PLAIN
    from labcore.text import one_line

    if not chosen:
        click.echo("no certificate; labcore check SAMPLER makes one", err=True)
        return
    table = Table()
    for column in ("", "sampler", "options", "process", "plugin", "made", "failed checks"):
        table.add_column(column, overflow="fold")
    for c in chosen:
        texts = (
            f"{MARKS[c.state]} {c.state}".strip(),
            c.sampler,
            ", ".join(f"{k}={v}" for k, v in c.options.items()),
            c.process,
            c.distribution,
            c.made[:10],
            ", ".join(check.name for check in c.failed),
        )
        table.add_row(*(escape(one_line(text)) for text in texts))
    console = Console()
    Console(width=console.width if console.is_terminal else PLAIN).print(table)


def _show(certificate: Certificate) -> None:
    from labcore.cli.check import line, table
    from labcore.pages import document
    from labcore.text import one_line

    click.echo(line(certificate))
    for name, value in document.facts(certificate):
        click.echo(f"    {name:<10} {one_line(value, 2000)}")
    click.echo(table(certificate) + "\n")

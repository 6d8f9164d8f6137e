"""``labcore check SAMPLER...``: certificates, a verdict a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from labcore.certificates import Certificate
    from labcore.certification import Subject
    from labcore.registry import Registry
    from labcore.study import Use

STORE = "certificates"
"""The default store is out/certificates.sqlite."""


@click.command()
@click.argument("samplers", nargs=-1, metavar="SAMPLER...")
@click.option(
    "--process", "processes", multiple=True, help="As vp or 'vp(b1=10)'.  [one that fits]"
)
@click.option("--all", "every", is_flag=True, help="Check all registered samplers.")
@click.option("--plugin", "plugins", multiple=True, help="Check all samplers of this plugin.")
@click.option("--option", "options", multiple=True, help="An option of the samplers, as eta=0.5.")
@click.option("--checks", help="Only these checks, as order,nfe; nothing is then stored.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--store", type=click.Path(), help="Results file or URL.  [out/certificates.sqlite]")
@click.option("--page", type=click.Path(file_okay=False), help="Folder for pages.")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes; 0: this.  [one a core]")
@click.option("--timeout", type=click.FloatRange(min=0.1), help="Seconds a sampler may take.")
@click.option("--json", "as_json", is_flag=True, help="Print each certificate as a line of JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show every check.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check_command(
    samplers: tuple[str, ...],
    processes: tuple[str, ...],
    every: bool,
    plugins: tuple[str, ...],
    options: tuple[str, ...],
    checks: str | None,
    seed: int,
    store: str | None,
    page: str | None,
    workers: int | None,
    timeout: float | None,
    as_json: bool,
    verbose: bool,
    debug: bool,
) -> int:
    """Check samplers against the battery: a registered SAMPLER, or a file such as mine.py:ab2.

    A file's samplers are those it defines with @labcore.sampler; without a name, all of them.
    Certificates are kept in the store; labcore certificates shows them. Exit code 1 where a
    sampler failed, or came to no verdict, which is not kept.
    """
    from labcore.certification import inspect_all
    from labcore.cli.scripts import read_samplers
    from labcore.errors import InvalidOption, InvalidProcess

    named = _named_checks(checks)
    if named and store:
        raise click.UsageError("--checks with --store: a part of the battery certifies nothing")
    if timeout is not None and workers == 0:
        raise click.UsageError("--timeout with --workers 0: this process cannot stop itself")
    registry, given = read_samplers(samplers)
    given += _listed(registry, every, plugins)
    if not given:
        raise click.UsageError("name a sampler or a file, or give --all or --plugin")
    try:
        subjects, notes = _subjects(registry, given, processes, options, named, seed)
    except (InvalidOption, InvalidProcess) as error:
        raise click.UsageError(str(error)) from error
    for note in notes:
        click.echo(note, err=True)
    where = None if named else store or _default_store()
    count = min(cores() if workers is None else workers, len(subjects))
    with _following(len(subjects), _json if as_json else _lines(verbose)) as follow:
        made = list(inspect_all(subjects, registry, where, count, timeout, follow))
    _end(made, where, as_json)
    if page:
        from labcore import pages

        for path in list(pages.write(made, page)):
            click.echo(f"  {path}", err=as_json)
    return 1 if any(certificate.state == "failed" for certificate in made) else 0


Say = Callable[["Certificate"], None]


@contextmanager
def _following(total: int, said: Say) -> Iterator[Say]:
    """Says each certificate as it comes, and moves the bar."""
    with progress(total) as tick:

        def follow(certificate: Certificate) -> None:
            said(certificate)
            tick()

        yield follow


def cores() -> int:
    """The cores this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def _default_store() -> str:
    from labcore.cli.study import default_store

    return str(default_store(STORE))


def _named_checks(text: str | None) -> tuple[str, ...]:
    from labcore.testing import CHECKS

    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise click.UsageError(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    return names


def _listed(registry: Registry, every: bool, plugins: tuple[str, ...]) -> list[Use]:
    """All samplers, or those of some plugins; UnknownName or PluginError for one of no use."""
    from labcore.errors import PluginError
    from labcore.study import Use

    for plugin in plugins:
        record = registry.plugin(plugin)
        if record.status != "loaded":
            raise PluginError(f"plugin '{plugin}': {record.status}, {record.reason}")
    names = [name for name, _ in registry.all("sampler")]
    chosen = [n for n in names if every or n.partition(":")[0] in plugins]
    if plugins and not chosen:
        raise click.UsageError(f"plugin {', '.join(plugins)}: it registers no sampler")
    return [Use(name) for name in chosen]


def _subjects(
    registry: Registry,
    given: list[Use],
    processes: tuple[str, ...],
    options: tuple[str, ...],
    checks: tuple[str, ...],
    seed: int,
) -> tuple[list[Subject], list[str]]:
    """What is to be checked, each once, and what is to be said of how it was chosen."""
    from labcore.certification import built, lacking, subject
    from labcore.study import read_use, use

    set_here = dict(map(_option, options))
    chosen = dict.fromkeys(
        use(one.name, **{**dict(one.options), **set_here}).resolve("sampler", registry)
        for one in given
    )
    named = built(registry, map(read_use, processes))
    found: list[Subject] = []
    notes: list[str] = []
    for sampler in chosen:
        for process in named or _fitting(registry, sampler, notes, alone=len(chosen) == 1):
            needs = lacking(registry, sampler, process)
            if needs and len(chosen) > 1:
                notes.append(f"not checked: {sampler} on {process}, which does not give {needs}")
                continue
            found.append(subject(registry, sampler, process, checks, seed))
    if not found:
        raise click.UsageError("; ".join(notes))
    return found, notes


def _fitting(registry: Registry, sampler: Use, notes: list[str], alone: bool) -> list[Use]:
    """The process to check a sampler on where none is named, and a note where it is special."""
    from labcore.certification import DEFAULT, default_process
    from labcore.errors import InvalidOption

    try:
        process = default_process(registry, sampler)
    except InvalidOption as error:
        if alone:
            raise
        notes.append(f"not checked: {error}")
        return []
    if str(process) != DEFAULT:
        notes.append(f"{sampler}: on {process}, the first process that gives what it needs")
    return [process]


def _option(text: str) -> tuple[str, Any]:
    """``eta=0.5`` as a name and a value: a Python literal, or else the text."""
    import ast

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--option '{text}': write name=value, such as eta=0.5")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def line(certificate: Certificate) -> str:
    """The verdict in a line: state, what it speaks for, what failed, seconds."""
    from labcore.certificates import MARKS
    from labcore.text import one_line

    options = ", ".join(f"{k}={v}" for k, v in certificate.options.items())
    what = f"{certificate.sampler}({options})" if options else certificate.sampler
    found = "".join(f"; {check.name}: {check.found}" for check in certificate.failed)
    whole = certificate.complete or certificate.failed
    state = f"{MARKS[certificate.state]} {certificate.state}".strip() if whole else "passed"
    took = f"{certificate.seconds:.1f} s"
    return f"{state:<11} " + one_line(f"{what} on {certificate.process}, {took}{found}", 2000)


def _lines(verbose: bool) -> Say:
    def say(certificate: Certificate) -> None:
        click.echo(line(certificate))
        if verbose:
            click.echo(table(certificate))

    return say


def _json(certificate: Certificate) -> None:
    click.echo(certificate.to_json())


def table(certificate: Certificate) -> str:
    """Every check: how it ended, what was found, and for a failed one the remedy."""
    from labcore.text import one_line

    rows = []
    for check in certificate.checks:
        remedy = f"; {check.remedy}" if check.status == "failed" else ""
        found = one_line(check.found + remedy, 2000)
        rows.append(f"    {check.status:<8} {one_line(check.name):<12} {found}")
    return "\n".join(rows)


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal's stderr; what is said meanwhile stands above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True)
    shown = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(
        *shown,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task("samplers", total=total)
        yield lambda: bar.advance(task)


def _end(made: list[Certificate], where: str | None, quiet: bool) -> None:
    failed = sum(certificate.state == "failed" for certificate in made)
    kept = f"; store {where}" if where else "; a part of the battery, nothing is stored"
    passed = "passed" if where is None else "certified"
    said = f"{len(made) - failed} {passed}, {failed} failed"
    click.echo(f"{said}{without_verdict(made) if where else ''}{kept}", err=quiet)


def without_verdict(made: list[Certificate]) -> str:
    """How many of the failed came to no verdict and are not in the store; "" where all did."""
    count = sum(not certificate.judged for certificate in made)
    return f", {count} of them without a verdict, which is not kept" if count else ""

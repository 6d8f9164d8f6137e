"""``labcore fingerprint [SAMPLER...]``: which names are the same algorithm, and which are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labcore.fingerprints import Fingerprints, Group


@click.command()
@click.argument("samplers", nargs=-1, metavar="[SAMPLER]...")
@click.option("--plugin", "plugins", multiple=True, help="All samplers of this plugin.")
@click.option("--tolerance", type=float, default=1e-10, show_default=True, help="Relative.")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes; 0: this.  [one a core]")
@click.option("--markdown", is_flag=True, help="As Markdown.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def fingerprint_command(
    samplers: tuple[str, ...],
    plugins: tuple[str, ...],
    tolerance: float,
    workers: int | None,
    markdown: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Group samplers, all or those named, by what they compute on fixed problems.

    Each runs with its default options and with those that make another algorithm of it; a SAMPLER
    such as 'ddim(eta=0.5)' is taken as it is.
    """
    import json

    from labcore.cli import printable
    from labcore.cli.check import cores, progress
    from labcore.fingerprints import fingerprint
    from labcore.registry import load_registry
    from labcore.study import read_use
    from labcore.traces import settings

    if markdown and as_json:
        raise click.UsageError("--markdown with --json: choose one")
    registry = load_registry()
    for plugin in plugins:
        registry.plugin(plugin)
    named = [read_use(text) for text in samplers]
    named += [read_use(n) for n, _ in registry.all("sampler") if n.partition(":")[0] in plugins]
    if plugins and not named:
        raise click.UsageError(f"plugin {', '.join(plugins)}: it registers no sampler")
    total = len(settings(registry, named))
    count = min(cores() if workers is None else workers, total)
    with progress(total) as tick:
        found = fingerprint(
            named,
            registry=registry,
            tolerance=tolerance,
            workers=count,
            follow=lambda trace: tick(),
        )
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1, allow_nan=False))
        return
    click.echo(printable("\n".join(_markdown(found) if markdown else _text(found))))


def _told(group: Group) -> str:
    """The names joined by =, and where a chain comes apart."""
    line = " = ".join(group.members)
    for problem, parts in group.apart:
        line += f"; not on {problem}: " + " | ".join(" = ".join(part) for part in parts)
    return line


def sections(found: Fingerprints) -> Iterator[tuple[str, list[str]]]:
    """Headings and what stands under them, a line each; empty ones are left out."""
    all_of = {
        f"The same algorithm, to {found.tolerance:g}": [_told(g) for g in found.same],
        "Equal up to precision, 1e-5": [
            " ~ ".join(" = ".join(part) for part in parts) for parts in found.close
        ],
        "One name, several algorithms": [
            f"{n.name}: {' | '.join(' = '.join(p) for p in n.parts)}; {_between(n.least, n.most)}"
            for n in found.namesakes
        ],
        "Equal on some problems only": [
            f"{p.a} and {p.b}: equal on {', '.join(p.agree)}; not on {', '.join(p.differ)} "
            f"(by {p.difference:.1e})"
            for p in found.partly
        ],
        "Not compared, since their results change from run to run": [
            t.setting for t in found.own_noise
        ],
        "Not run": [f"{t.setting}: {t.reason}" for t in found.failed],
    }
    yield from ((heading, lines) for heading, lines in all_of.items() if lines)


def _between(least: float, most: float) -> str:
    low, high = f"{least:.1e}", f"{most:.1e}"
    return f"they differ by {low}" + (f" to {high}" if high != low else "")


def _summary(found: Fingerprints) -> str:
    from labcore.testing.problems import PROBLEMS

    samplers = len({t.sampler for t in found.usable.values()})
    alone = sum(len(g.members) == 1 for g in found.groups)
    return (
        f"{samplers} samplers in {len(found.usable)} settings on {len(PROBLEMS)} problems: "
        f"{len(found.groups)} algorithms, {alone} of them with one name"
    )


def _text(found: Fingerprints) -> Iterator[str]:
    for heading, lines in sections(found):
        yield heading
        yield from (f"  {line}" for line in lines)
        yield ""
    yield _summary(found)


def _markdown(found: Fingerprints) -> Iterator[str]:
    yield f"{_summary(found)}.\n"
    for heading, lines in sections(found):
        yield f"## {heading}\n"
        yield from (f"- {line}" for line in lines)
        yield ""

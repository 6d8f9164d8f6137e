"""``labcore run STUDY`` and the flags that ``study.main()`` gives a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from labcore.study import Study

FLAGS = [
    click.option("--store", type=click.Path(), help="Results file or database URL. [out/NAME]"),
    click.option(
        "--workers",
        type=click.IntRange(0, 256),
        default=0,
        show_default=True,
        help="Worker processes; 0 runs in this one.",
    ),
    click.option("--filter", "filters", multiple=True, help="Keep cells, as sampler=ddim."),
    click.option("--timeout", type=click.FloatRange(min=0.1), help="Seconds a batch may take."),
    click.option("--retry-failed", is_flag=True, help="Run cells that failed before again."),
    click.option("--dry-run", is_flag=True, help="Count the cells, estimate the time and stop."),
    click.option("--certify", is_flag=True, help="First certify samplers that the store lacks."),
    click.option("--plots", type=click.Path(), help="Folder for plots of the results."),
    click.option("--reporter", "reporters", multiple=True, help="Followers.  [progress]"),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
]


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a study run."""
    for option in reversed(FLAGS):
        command = option(command)
    return command


@click.command()
@click.argument("study", type=click.Path(exists=True, dir_okay=False))
@flags
def run_command(study: str, **options: Any) -> int:
    """Run the study that the script STUDY defines as ``study = labcore.Study(...)``."""
    return run(load(Path(study)), **options)


def study_command(study: Study) -> Callable[..., None]:
    """What ``study.main`` calls: the same flags for one study, as a script."""

    @click.command(help=study.question)
    @flags
    def command(**options: Any) -> int:
        return run(study, **options)

    def main(args: list[str] | None = None) -> None:
        from labcore.cli import guard

        given = sys.argv[1:] if args is None else args
        name = Path(sys.argv[0]).name
        guard(lambda: command.main(args=given, prog_name=name, standalone_mode=False), given)

    return main


def load(path: Path) -> Study:
    """The ``study`` of a script."""
    from labcore.cli.scripts import load_script
    from labcore.errors import InvalidStudy
    from labcore.study import Study

    module = load_script(path, "study")
    found = getattr(module, "study", None)
    if not isinstance(found, Study):
        raise InvalidStudy(f"study '{path}': it defines no study = labcore.Study(...)")
    return found


def run(
    study: Study,
    *,
    store: str | None,
    workers: int,
    filters: tuple[str, ...],
    timeout: float | None,
    retry_failed: bool,
    dry_run: bool,
    certify: bool,
    plots: str | None,
    reporters: tuple[str, ...],
    debug: bool,
) -> int:
    """Run, say how it ended, draw; the exit code."""
    from labcore import lab
    from labcore.cli import printable

    if dry_run:
        from labcore.dry_run import estimate, unmade

        where = store or str(Path("out", f"{study.name}.sqlite"))
        count, seconds = estimate(study, workers, filters, where)
        click.echo(f"{study.name}: {count:,} cells, about {duration(seconds)}")
        missing = unmade(study, where, filters)
        if missing:
            click.echo("not counting the cells of scores that are to be made first:")
        for reason in missing:
            click.echo(f"  {printable(reason)}")
        return 0
    where = store or str(default_store(study.name))
    registry = study.registry()
    if certify:
        certify_study(study, where, filters, workers, timeout)
    follow = [registry.get("reporter", name)() for name in reporters or ("progress",)]
    summary = lab.run_study(
        study,
        where,
        workers=workers,
        timeout=timeout,
        filters=filters,
        retry_failed=retry_failed,
        reporters=follow,
    )
    old = summary.failed_before
    before = f", {old} failed before (--retry-failed runs them again)" if old else ""
    click.echo(
        f"{study.name}: {summary.done} cells run, {summary.skipped} were there, "
        f"{summary.failed} failed{before}, {duration(summary.seconds)}; store {where}"
    )
    if plots:
        from labcore.cli.figures import of_study

        for path in of_study(study, where, Path(plots), filters):
            click.echo(f"  {path}")
    return 1 if summary.failed or summary.failed_before else 0


def certify_study(
    study: Study, where: str, filters: tuple[str, ...], workers: int, timeout: float | None
) -> None:
    """Certify the study's samplers on its processes, as far as the store has not, line by line."""
    from labcore import lab
    from labcore.cli.check import line, without_verdict

    made = lab.certify_study(
        study,
        where,
        filters=filters,
        workers=workers,
        timeout=timeout,
        follow=lambda certificate: click.echo(line(certificate), err=True),
    )
    failed = sum(certificate.state == "failed" for certificate in made)
    click.echo(
        f"{study.name}: {len(made)} certificates made, {failed} failed{without_verdict(made)}"
    )


def default_store(name: str) -> Path:
    """out/NAME.sqlite below the working folder, with the folder made."""
    from labcore.errors import StoreError

    folder = Path("out")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"store '{folder}': {error.strerror}; name a file that can be written with --store"
        ) from error
    return folder / f"{name}.sqlite"


def duration(seconds: float) -> str:
    """1h 02m, 3m 20s or 12.3s."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)}h {int(seconds % 3600 // 60):02d}m"
    if seconds >= 60:
        return f"{int(seconds // 60)}m {int(seconds % 60):02d}s"
    return f"{seconds:.1f}s"

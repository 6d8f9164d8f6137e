"""``labcore plot STORE``: the figures of a store's studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labcore.study import Study

FORMATS = ("png", "svg", "pdf")


@click.command()
@click.argument("store", type=click.Path())
@click.option("--study", help="Which study, where the store has several.")
@click.option("--metric", "metrics", multiple=True, help="Metrics to draw.  [all]")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["curve", "heatmap", "pareto"]),
    help="Kinds of figure.  [all]",
)
@click.option("--out", type=click.Path(file_okay=False), default="out/plots", show_default=True)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(FORMATS), help="[png and svg]"
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def plot_command(
    store: str,
    study: str | None,
    metrics: tuple[str, ...],
    kinds: tuple[str, ...],
    out: str,
    formats: tuple[str, ...],
    debug: bool,
) -> None:
    """Draw the results in STORE: metric against NFE, sampler x grid, error against time."""
    from labcore import gallery
    from labcore.cli.results import read

    paths = gallery.draw(
        read(store, study),
        Path(out),
        kinds=kinds or gallery.KINDS,
        metrics=metrics,
        formats=formats or FORMATS[:2],
    )
    for path in paths:
        click.echo(path)


def of_study(study: Study, where: str, folder: Path, filters: tuple[str, ...]) -> Iterator[Path]:
    """Every figure of a study that has just run, sample sheets included."""
    from labcore import gallery, plots, work
    from labcore.cli.results import read
    from labcore.parts import Parts

    frame = read(where, study.name)
    registry = study.registry()
    yield from gallery.draw(frame, folder, registry=registry)
    cells = work.keep(study.cells(registry), filters)
    parts = Parts(registry, work.scores_folder(study, where))
    for stem, figure in gallery.sheets(cells, parts, frame):
        yield from plots.save(figure, folder / stem, FORMATS[:2])

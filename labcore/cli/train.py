"""``labcore train``: a learned score by its recipe, from the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from labcore.learn import Progress

RATE = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(0, 1, max_open=True)
READINGS = ("eps", "score", "x0", "v", "edm", "energy")


@click.command()
@click.option("--target", required=True, help="Data, as digits or gaussian(d=8).")
@click.option("--process", required=True, help="Forward process, as vp or vp(b1=10).")
@click.option("--network", default="mlp", show_default=True, help="As mlp(width=256, depth=4).")
@click.option("--objective", default="dsm", show_default=True, help="As dsm(weight='edm').")
@click.option("--reading", type=click.Choice(READINGS), default="eps", show_default=True)
@click.option("--time", type=click.Choice(["log_snr", "t"]), default="log_snr", show_default=True)
@click.option("--data-std", type=click.FloatRange(min=0), default=0.0, help="0 measures it.")
@click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--lr", type=RATE, default=1e-3, show_default=True)
@click.option("--warmup", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--decay", type=click.Choice(["cosine", "constant"]), default="cosine")
@click.option("--clip", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option("--ema", type=SHARE, default=0.999, show_default=True)
@click.option("--holdout", type=SHARE, default=0.1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--shards", type=click.IntRange(min=1), default=1, help="Parts of a batch.")
@click.option("--device", default="cpu", show_default=True, help="As cpu, cuda or cuda:1.")
@click.option("--devices", type=click.IntRange(min=1), default=1, help="Through Lightning Fabric.")
@click.option("--strategy", default="", help="Fabric's, as ddp; with it, --device names its kind.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--every", type=RATE, default=10.0, show_default=True, help="Seconds a checkpoint.")
@click.option("--folder", type=click.Path(), default="scores", show_default=True)
def train_command(
    target: str,
    process: str,
    network: str,
    objective: str,
    device: str,
    devices: int,
    strategy: str,
    threads: int,
    every: float,
    folder: str,
    **options: Any,
) -> int:
    """Train a score and keep it by its recipe; an interrupted one goes on where it stopped.

    The same recipe as a score in a study, use("trained", network=..., steps=...), finds it in the
    folder beside the study's store.
    """
    import torch

    from labcore.learn import Recipe, train
    from labcore.learn.devices import launched
    from labcore.parts import Parts
    from labcore.registry import load_registry
    from labcore.study import read_use

    named = {"target": target, "process": process, "network": network, "objective": objective}
    registry = load_registry()
    uses: dict[str, Any] = {kind: read_use(text) for kind, text in named.items()}
    recipe = Recipe(**uses, **options).resolve(registry)
    torch.set_num_threads(threads)
    several = launched(devices, strategy or "auto", device) if devices > 1 or strategy else None
    speaks = several is None or several.rank == 0  # one process for all

    def say(text: str, err: bool = True) -> None:
        if speaks:
            click.echo(text, err=err)

    say(f"{recipe}: {Path(folder) / recipe.key}")
    parts = Parts(registry, tell=say)
    try:
        with _followed(recipe.steps) as told:
            made = train(
                recipe,
                parts,
                folder,
                report=told if speaks else None,
                every=every,
                device=device,
                devices=several,
            )
    except KeyboardInterrupt:
        say("training: the checkpoint is kept; the same command goes on from it")
        raise
    loss, took = made.facts["curve"][-1][2], made.facts["seconds"]
    say(f"validation loss {loss:.5g} after {recipe.steps} steps, {took:.0f} s", err=False)
    say(str(Path(folder) / recipe.key), err=False)
    return 0


@contextmanager
def _followed(steps: int) -> Iterator[Callable[[Progress], None]]:
    """A bar with loss and rate on a terminal, a line at each validation elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = [
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  {task.description}"),
        TimeRemainingColumn(),
    ]
    validation = ""
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def report(at: Progress) -> None:
            nonlocal validation
            if at.validation is not None:
                validation = f", held out {at.validation:.4g}"
            told = f"loss {at.loss:.4g}{validation}, {at.rate:.3g} steps/s"
            bar.update(task, completed=at.step, description=told)
            if at.validation is not None and not console.is_terminal:
                click.echo(f"step {at.step}/{at.steps}: {told}", err=True)

        yield report

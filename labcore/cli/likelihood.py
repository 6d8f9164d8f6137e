"""``labcore likelihood``: how likely data are under a score, with what the number's error is."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--target", required=True, help="Data, as digits or gaussian(d=8).")
@click.option("--process", required=True, help="Forward process, as vp or vp(b1=10).")
@click.option("--score", default="exact", show_default=True, help="As from_folder(path='..').")
@click.option("--n", type=click.IntRange(min=2), default=64, show_default=True, help="Points.")
@click.option(
    "--probes", type=click.IntRange(min=0), default=0, help="Hutchinson's; 0: the exact trace."
)
@click.option(
    "--spacing", type=click.FloatRange(min=0), default=0.0, help="Of grey levels, 0.125 on digits."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Relative and absolute, of the solver.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--folder", type=click.Path(), default="scores", show_default=True)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def likelihood_command(
    target: str,
    process: str,
    score: str,
    n: int,
    probes: int,
    spacing: float,
    tolerance: float,
    seed: int,
    folder: str,
    debug: bool,
) -> None:
    """The metric flow_nll on exact data: -log p in nats under the probability-flow ODE of a score,
    its errors, bits a dimension where there are grey levels, and the gap to the true density."""
    from labcore import seeds
    from labcore.metrics import Outcome
    from labcore.parts import Parts
    from labcore.registry import load_registry
    from labcore.study import read_use, use

    registry = load_registry()
    asked = use(
        "flow_nll", n=n, probes=probes, spacing=spacing, rtol=tolerance, atol=tolerance
    ).resolve("metric", registry)
    named = {"target": target, "process": process, "score": score}
    uses = {kind: read_use(text).resolve(kind, registry) for kind, text in named.items()}
    parts = Parts(registry, Path(folder), tell=lambda message: click.echo(message, err=True))
    data, made = parts.target(uses["target"]), parts.process(uses["process"])
    by = parts.score(uses["score"], uses["process"], uses["target"])
    x = data.sample(n, seeds.generator("likelihood", seed))
    outcome = Outcome(x, x, data, data.mixture, seed, made, by)
    found = registry.get("metric", asked.name)(outcome, **dict(asked.options))
    for name, value in found.items():
        click.echo(f"{name:8}{value:.6g}")

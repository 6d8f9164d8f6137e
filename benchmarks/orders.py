"""Measured orders of every sampler that declares one: docs/orders.md.

    python benchmarks/orders.py [docs/orders.md] [name ...]

Each number is the order p of errors c n^-p (1 + r/n + ...), fitted over the step counts that are
asymptotic, with its interval (labcore.testing.slopes). Steps go from log SNR -3 to 4, where noise
and data are of one size; those of the Gaussian problems are long and short in turn. Starts are of
the exact law. In law: W2 to the exact law of 2-D Gaussian data, by the exact audit. On a mixture
of three Gaussians: the final states of ODE methods against scipy's DOP853 at 1e-12; the first and
second moments of SDE methods against the exact solution on 131072 Brownian paths (weak order). On
a path: the root mean square distance of the final states on these paths, the exact solution made
by a method of strong order 1.5 that is none of the samplers.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import labcore
from labcore.testing import audit, check_sampler, default_data
from labcore.testing.models import uneven_in_log
from labcore.testing.nonlinear import Problem, path_errors, problem
from labcore.testing.slopes import Slope, follow, measure

PROCESSES = ("vp", "edm", "sigma_t", "diag_vp", "ou", "cld")
OWN = ("samplers", "torchdiffeq", "torchsde")
CURVED = ("vp", "edm")
WITHIN = 0.15
LOTS = 32
"""Of 4096 paths each, on mixtures: errors in law are read off their means."""
NOTES = {
    "samplers:midpoint": "on edm its leading error vanishes for Gaussian data, where x_t is "
    "proportional to sqrt(t^2 + l), at any t and h; on the mixture it does not",
    "torchdiffeq:midpoint": "as samplers:midpoint",
    "torchsde:midpoint": "on Gaussian data the second derivative of the score, whose weight is "
    "half of what order 2 needs, is zero; on the mixture it is not, and the order is 1",
    "torchsde:reversible_heun": "its parasitic mode grows where the reverse SDE contracts, as on "
    "a mixture under edm: up to 64 steps the error is as large as the state",
    "torchsde:log_ode": "as torchsde:midpoint, which it is where the noise is additive",
    "samplers:edm_churn": "with S_churn=4; by default the noise added is capped below some 100 "
    "steps, and the same order is reached beyond 500",
    "samplers:ipndm": "its weights are those of equal steps, with which it is of order 2: see "
    "tests/test_runge_kutta_orders.py; so are those of plms and pndm",
    "torchdiffeq:explicit_adams": "its weights are those of equal steps, and so are those of "
    "implicit_adams",
    "samplers:sde_dpmpp_2m": "on the mixture under vp its errors fall faster than by order 2 as "
    "far as 131072 paths show them (64 steps); on Gaussian data, exactly, they are of order 2",
    "samplers:sde_dpmpp_3m": "three points for the drift do not raise the order in law of the "
    "noise beyond 2",
}
"""What a reader of a bold number should know."""

OPTIONS: dict[str, dict[str, Any]] = {"samplers:edm_churn": {"S_churn": 4.0}}
"""By default the noise added is capped below some 100 steps, which no fit survives."""

WITHOUT = "## Without an order"
AS_STEPS_GROW = (
    "Adaptive methods follow a tolerance, Markov chains approach the law of a level as they run "
    "on, and the oracle is exact: for them, the bias from T to t_eps on Gaussian data under VP as "
    "steps grow from 8 to 128, with their default options."
)

Cell = Slope | str


def in_law(entry: labcore.Entry, process: labcore.Process, options: dict[str, Any]) -> Slope:
    """The order of W2, by the exact audit."""
    event = process.event_shape or (2,)
    data = default_data(torch.Size(event).numel())

    def error(n: int) -> float:
        ts = uneven_in_log(process, n)
        return audit(entry, process, ts, data, event=event, options=options).w2

    return follow(error, floor=1e-14, fine=512)


def curved(
    entry: labcore.Entry, lots: Sequence[Problem], options: dict[str, Any]
) -> tuple[Cell, Cell]:
    """The orders on the mixture, and on one path."""
    of = lots[0]

    def run(*given: Any) -> Any:
        return entry(*given, **options)

    if not of.draws(run):
        return follow(of.flow_error(run), floor=1e-13, fine=512), ""
    lam = of.rate(run)
    if lam is None:
        why = "what it draws is no constant multiple of the increments of one path"
        return why, why
    steps, errors = (4, 8, 16, 32, 64, 128), path_errors(lots, run, lam)
    found = list(map(errors, steps))
    strong, weak = (
        measure(steps, [of[k][0] for of in found], noise=[of[k][1] for of in found])
        for k in (0, 1)
    )
    return weak, strong


def lots_of(process: labcore.Process, count: int = 1, *, linear: bool = False) -> list[Problem]:
    return [problem(process, linear=linear, lot=lot) for lot in range(count)]


def cells(
    name: str, entry: labcore.Entry, registry: labcore.Registry, processes: dict[str, Any]
) -> Iterator[tuple[str, Cell]]:
    """What was measured under each head of the table, or why not."""
    options = entry.bind(OPTIONS.get(name, {}))

    def missing(where: str) -> str:
        gives = registry.get("process", where).gives | {"log_p_t", "reverse"}
        return ", ".join(sorted(entry.needs - gives))

    for where, process in processes.items():
        lacks = missing(where)
        yield where, f"needs {lacks}" if lacks else guarded(in_law, entry, process, options)
    for where in CURVED:
        if missing(where):
            continue
        made = guarded(curved, entry, lots_of(processes[where], LOTS), options)
        both = made if isinstance(made, tuple) else (made, made)
        yield from zip((f"mixture, {where}", f"path, {where}"), both, strict=True)
    if entry.traits.get("strong") and not missing("vp"):
        made = guarded(curved, entry, lots_of(processes["vp"], linear=True), options)
        yield "path, Gaussian", made[1] if isinstance(made, tuple) else made


def guarded(make: Callable[..., Any], *given: Any) -> Any:
    """What it makes, or the error in a line."""
    try:
        return make(*given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def shown(value: Cell, declared: float | None, *, least: bool = False) -> str:
    """The order with its interval, bold where it is off by more than the interval and WITHIN."""
    if isinstance(value, str):
        return "-" if value else ""
    if value.half > 1.5 or not value.half < 1.5:
        return "-"
    high = declared is not None and not least and value.low - WITHIN > declared
    low = declared is not None and value.high + WITHIN < declared
    return f"**{value}**" if high or low else f"{value}"


def unread(slope: Slope) -> str:
    """Why no order is shown, with the errors; "" where one is."""
    if shown(slope, None) != "-":
        return ""
    errors = ", ".join(f"{e:.1e}" for e in slope.errors)
    why = slope.why or f"the interval is ± {slope.half:.1f}"
    return f"{why} (errors {errors} in {', '.join(map(str, slope.steps))} steps)"


HEADS = (
    *("sampler", "declared", *PROCESSES, *(f"mixture, {p}" for p in CURVED)),
    *("strong", *(f"path, {p}" for p in CURVED), "path, Gaussian"),
)


def row(name: str, entry: labcore.Entry, found: dict[str, Cell]) -> str:
    declared, strong = entry.traits["order"], entry.traits.get("strong")
    told = [f"`{name}`", f"{declared}"]
    for head in HEADS[2:]:
        if head == "strong":
            told.append(f"{strong}" if strong else "")
        elif head.startswith("path"):
            told.append(shown(found.get(head, "") if strong else "", strong, least=True))
        else:
            told.append(shown(found.get(head, "-"), declared))
    return "| " + " | ".join(told) + " |"


def without(registry: labcore.Registry) -> list[str]:
    """What applies to the samplers that declare no order: their bias as steps grow."""
    told = []
    for name, entry in registry.all("sampler"):
        if entry.traits.get("order") is None and name.split(":")[0] in OWN:
            made = check_sampler(entry, checks=("nonlinear", "consistency"), on_fail="return")
            checks = made.checks if entry.traits.get("coupled") else made.checks[1:]
            told.append(f"- `{name}`: " + "; ".join(check.found for check in checks))
    return told


def rows_of(path: Path) -> dict[str, list[str]]:
    """The lines about each sampler that a table holds: its row, then its reasons."""
    known: dict[str, list[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if line == WITHOUT:
            break
        if line.startswith(("| `", "- `")):
            known.setdefault(line.split("`")[1], []).append(line)
    return known


def main(path: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    registry = labcore.load_registry()
    processes = {name: registry.get("process", name)() for name in PROCESSES}
    known = rows_of(path) if names else {}
    for name, entry in registry.all("sampler"):
        if entry.traits.get("order") is None or name.split(":")[0] not in OWN:
            continue
        if names and name not in names:
            continue
        found = dict(cells(name, entry, registry, processes))
        known[name] = [row(name, entry, found)]
        for head, what in found.items():
            why = what if isinstance(what, str) else unread(what)
            if why:
                known[name].append(f"- `{name}` on {head}: {why}")
        print(*known[name], sep="\n", flush=True)
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += [known[name][0] for name in sorted(known)]
    reasons = [line for name in sorted(known) for line in known[name][1:] if "` on " in line]
    reasons += [f"- `{name}`: {NOTES[name]}" for name in sorted(NOTES) if name in known]
    lead = (__doc__ or "").split("\n\n")
    text = "# Measured orders\n\nMade by `python benchmarks/orders.py`. " + lead[2].strip()
    text += "\nBold: farther than 0.15 from the declared order, the interval allowed for.\n\n"
    text += "\n".join(lines) + "\n\n" + "\n".join(reasons) + "\n"
    path.write_text(
        text + f"\n{WITHOUT}\n\n{AS_STEPS_GROW}\n\n" + "\n".join(without(registry)) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/orders.md"), sys.argv[2:])

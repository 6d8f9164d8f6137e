"""Measured orders of every sampler that declares one, on six processes: docs/orders.md.

    python benchmarks/orders.py [docs/orders.md] [name ...]

In law: the slope of W2 to the exact law, by the exact audit on 2-D Gaussian data, with steps of
uneven lengths, over the coarsest window whose neighbouring slopes agree within 0.02, else the
finest above rounding. On a mixture: the slope of the root mean square error of the final state on
a ring of Gaussians under VP, against a reference by dopri8 at 1e-12 for ODE methods, between N and
2N steps of one Brownian path for SDE methods (their strong order). A dash: the method does not run
there, with the reason below the table.
"""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore.testing import default_data, quadratic, strong_order, uneven, weak_order
from labcore.testing.audit import Order, final

PROCESSES = ("vp", "edm", "sigma_t", "diag_vp", "ou", "cld")
NOTES = {
    "torchsde:reversible_heun": "order 2 on smoothly varying steps (2.00 on sigma_t and diag_vp "
    "with quadratic times); steps that are long and short in turn excite its parasitic mode, "
    "which grows where the reverse SDE contracts",
    "samplers:midpoint": "on edm its leading error vanishes for Gaussian data (3.00 up to 8192 "
    "steps); so does that of the start of lms there",
    "samplers:ralston": "on cld two errors cancel at these step counts; 1.97 at 8192 steps",
    "samplers:sde_dpmpp_3m": "three points for the drift do not raise the order in law of the "
    "noise beyond 2; below 2 on edm and cld the window is not yet asymptotic",
}
"""What a reader of a bold number should know."""

WINDOWS = ((32, 64, 128), (128, 256, 512), (512, 1024))


def in_law(entry: labcore.Entry, process: labcore.Process) -> Order:
    """The order over the first window that is asymptotic, else over the finest above rounding."""
    event = process.event_shape or (2,)
    data = default_data(torch.Size(event).numel())
    measured = None
    for steps in WINDOWS:
        try:
            order = weak_order(entry, process, uneven, data, steps=steps, event=event)
        except labcore.SamplerError:
            if measured is None:
                raise
            break
        if min(order.errors) < 1e-11 and measured is not None:
            break
        measured = order
        if len(order.local) > 1 and abs(order.local[0] - order.local[1]) < 0.02:
            break
    assert measured is not None
    return measured


def on_mixture(entry: labcore.Entry, registry: labcore.Registry) -> float:
    """The order of the final state on a ring of Gaussians under VP, in float64."""
    process = registry.get("process", "vp")()
    target = registry.get("target", "gmm_ring")()
    score = registry.get("score", "exact")(process, target)
    if entry.traits.get("stochastic"):
        return strong_order(entry, process, score, quadratic, (2,), steps=(128, 256, 512)).slope
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 2, generator=g, dtype=torch.float64)
    exact = reference(process, score, x)
    errors = []
    for n in (32, 64, 128, 256):
        with torch.inference_mode():
            end = final(iter(entry(process, score, x, quadratic(process, n), None)), x)
        errors.append(float((end - exact).square().mean().sqrt()))
    pairs = [(a / b, b) for a, b in pairwise(errors) if b > 1e-10]
    return float(torch.tensor(pairs[-1][0]).log2()) if pairs else float("nan")


def reference(process: labcore.Process, score: labcore.Score, x: Tensor) -> Tensor:
    """The probability flow from T to t_eps by dopri8, which no tested sampler is."""
    from torchdiffeq import odeint

    ends = torch.tensor([process.T, process.t_eps], dtype=torch.float64)
    v = labcore.velocity(process, score)
    options = {"step_t": ends[1:]}
    with torch.inference_mode():
        path = odeint(v, x, ends, method="dopri8", rtol=1e-12, atol=1e-12, options=options)
    return path[-1]


def measured(entry: labcore.Entry, registry: labcore.Registry) -> Iterator[Any]:
    """The slope on each process and on the mixture, or the reason there is none."""
    for name in PROCESSES:
        process = registry.get("process", name)()
        missing = entry.needs - registry.get("process", name).gives - {"log_p_t", "reverse"}
        if missing:
            yield f"needs {', '.join(sorted(missing))}"
            continue
        try:
            yield in_law(entry, process).slope
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
    try:
        if entry.needs - {"scalar"}:
            yield f"needs {', '.join(sorted(entry.needs))}"
        else:
            yield on_mixture(entry, registry)
    except Exception as error:
        yield f"{type(error).__name__}: {error}"


def main(path: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    registry = labcore.load_registry()
    entries = [
        (name, entry)
        for name, entry in registry.all("sampler")
        if entry.traits.get("order") is not None and (not names or name in names)
    ]
    heads = ["sampler", "declared", "strong", *PROCESSES, "mixture"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    reasons = []
    for name, entry in entries:
        declared, strong = entry.traits["order"], entry.traits.get("strong")
        cells = [f"`{name}`", f"{declared}", f"{strong}" if strong else ""]
        for where, value in zip(heads[3:], measured(entry, registry), strict=True):
            if isinstance(value, str):
                reasons.append(f"- `{name}` on {where}: {value}")
                cells.append("-")
            else:
                off = where != "mixture" and abs(value - declared) > 0.15
                cells.append(f"**{value:.2f}**" if off else f"{value:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    known = dict(entries)
    reasons += [f"- `{name}`: {note}" for name, note in NOTES.items() if name in known]
    lead = (__doc__ or "").split("\n\n")
    text = "# Measured orders\n\nMade by `python benchmarks/orders.py`. " + lead[2].strip()
    text += "\nBold: more than 0.15 from the declared order in law.\n\n" + "\n".join(lines) + "\n"
    path.write_text(text + ("\n" + "\n".join(reasons) + "\n" if reasons else ""))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/orders.md"), sys.argv[2:])

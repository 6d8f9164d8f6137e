"""Precision: what rounding does to a run, in float64, float32 and with a score in bfloat16.

Computational noise of a run in float64 is what is left of its output, on inputs moved along a
short line, after sixth differences have taken the smooth part away (Hamming 1973; More & Wild
2011, ECnoise). It is some 1e-15 where everything is computed in float64, and 1e-9 or more where a
coefficient or a state has passed through float32, at any number of steps and whatever the order.

The floor of a lower precision is the difference to the run in float64 on the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import factorial, inf, log
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.noise import brownian
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.checks.drawn import finite
from labcore.testing.models import quadratic
from labcore.testing.probe import F64, Fixed

STEPS = (16, 64, 256)
DIFFERENCES, POINTS, MOVE, ROWS = 6, 9, 1e-5, 9
NOISE = 1e-10
"""Above what float64 can leave in a few steps, processes that integrate an ODE for their
coefficients (to 1e-11) included, and below what one coefficient in float32 does."""


def precision(case: Case) -> Check:
    """Everything in float64 stays in float64; floors of float32 and of a bfloat16 score."""
    if case.coupled and case.entry.traits.get("stochastic"):
        return skipped("its steps follow the path: the end is no smooth function of the start")
    noise = computational_noise(case)
    if noise > NOISE:
        raise Broken(
            f"a run in float64 has noise of {noise:.1g}, as if something in it were float32",
            "compute coefficients in float64 and keep the state in the dtype of x",
        )
    if case.coupled:
        return passed(f"float64 throughout (noise {noise:.1g}); its error follows a tolerance")
    runs = {
        name: [_end(case, n, name) for n in STEPS] for name in ("float64", "float32", "bfloat16")
    }
    for name, ends in runs.items():
        for n, x in zip(STEPS, ends, strict=True):
            if not bool(torch.isfinite(x).all()):
                raise Broken(f"NaN or Inf at {n} steps in {name}", "check for overflow")
    exact = runs["float64"]
    size = float(exact[-1].square().mean().sqrt())
    floors = {
        name: [_rms(a.double() - b) / size for a, b in zip(runs[name], exact, strict=True)]
        for name in ("float32", "bfloat16")
    }
    errors = [_rms(a - b) / size for a, b in pairwise(exact)]
    figures: dict[str, Any] = {"noise": noise, "steps": list(STEPS), "float64": errors, **floors}
    told = [f"float64 throughout (noise {noise:.0e})"]
    for name, of in (("float32", "float32"), ("bfloat16", "a bfloat16 score")):
        growth = _slope(STEPS, floors[name])
        meets = _meets(errors, floors[name])
        figures[f"{name} growth"], figures[f"{name} floor at"] = growth, finite(meets)
        where = f"reached at {meets:.0f} steps" if meets < 1e6 else "beyond 1e6 steps"
        worse = f"; more steps make it worse, like N^{growth:.1f}" if growth > 0.25 else ""
        told.append(f"{of}: floor {floors[name][-1]:.0e}, {where}{worse}")
    return passed(". ".join(told), figures=figures, plots=(_plot(errors, floors),))


def computational_noise(case: Case) -> float:
    """Relative noise of the end, median over numbers; the lesser of two lines."""
    return case.once("noise", lambda: _noise(case))


def _noise(case: Case) -> float:
    first = _along(case, 0)
    return first if first <= NOISE else min(first, _along(case, 1))


def _along(case: Case, line: int) -> float:
    g = torch.Generator().manual_seed(1000 * case.seed + line)
    n = max(6, case.least)
    ts, x = quadratic(case.process, n), case.start([case.seed], ROWS, F64)
    move_t = torch.rand(n + 1, generator=g, dtype=F64) + 0.5
    move_t[0] *= -1.0  # all stay within [t_eps, T]
    move_x = torch.randn(x.shape, generator=g, dtype=F64)
    ends = []
    for k in range(POINTS):
        step = MOVE * k
        noise = Fixed(case.event, ROWS, (case.seed, line))
        ends.append(case.end(x * (1 + step * move_x), ts * (1 + step * move_t), noise))
    y = torch.stack(ends).double()
    if not bool(y.isfinite().all()):
        return 0.0
    for _ in range(DIFFERENCES):
        y = y[1:] - y[:-1]
    scale = float(factorial(DIFFERENCES)) ** 2 / factorial(2 * DIFFERENCES)
    rms = (scale * y.square().mean(0)).sqrt().flatten()
    return float(rms.median()) / float(torch.stack(ends).double().square().mean().sqrt())


def _end(case: Case, n: int, name: str) -> Tensor:
    ts = quadratic(case.process, n)
    dtype = F64 if name == "float64" else torch.float32
    noise = brownian(ts, case.event, [case.seed], ROWS, dtype=dtype)

    def rounded(x: Tensor, t: Tensor) -> Tensor:
        return case.score(x, t).bfloat16().to(x)

    x = case.start([case.seed], ROWS, dtype)
    return case.end(x, ts, noise, rounded if name == "bfloat16" else case.score)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _slope(steps: Sequence[int], values: Sequence[float]) -> float:
    """The power of N that the values grow with."""
    if min(values) <= 0:
        return 0.0
    return log(values[-1] / values[0]) / log(steps[-1] / steps[0])


def _meets(errors: Sequence[float], floors: Sequence[float]) -> float:
    """The N at which the error of the steps, carried on as it falls, meets the floor."""
    if min(*errors, *floors) <= 0:
        return inf
    falls = _slope(STEPS[: len(errors)], errors)
    grows = _slope(STEPS, floors)
    if falls >= min(0.0, grows):
        return inf
    log_n = log(errors[-1] / floors[-1]) - falls * log(STEPS[len(errors) - 1])
    log_n = (log_n + grows * log(STEPS[-1])) / (grows - falls)
    return float(torch.tensor(log_n, dtype=F64).exp())


def _plot(errors: Sequence[float], floors: dict[str, list[float]]) -> dict[str, Any]:
    series: list[dict[str, Any]] = [
        {"label": "error of the steps", "x": list(STEPS[: len(errors)]), "y": list(errors)}
    ]
    series += [
        {"label": f"rounding, {name}", "x": list(STEPS), "y": y, "dashed": True}
        for name, y in floors.items()
    ]
    return {
        "kind": "lines",
        "title": "Rounding beside the error of the steps",
        "xlabel": "steps",
        "ylabel": "relative to the state",
        "xscale": "log",
        "yscale": "log",
        "series": series,
    }

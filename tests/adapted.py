"""Adapted samplers beside the lab's own, through the lab's own path: one cell, one noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore import Entry, Process, Study, use
from labcore.noise import counting, initial
from labcore.parts import Parts
from labcore.run import drive, sample
from labcore.scores import counted
from labcore.study import Cell
from labcore.testing import default_data, gaussian_score, uneven, vp

F64 = torch.float64
Grid = Callable[[Process, int], Tensor]


def equal_log_snr(process: Process, n: int) -> Tensor:
    """Equal steps in log-SNR."""
    made: Tensor = registry().get("grid", "log_snr")(process, n, t_eps=process.t_eps)
    return made


@cache
def registry() -> labcore.Registry:
    return labcore.load_registry()


def entry(name: str) -> Entry:
    return registry().get("sampler", name)


def names(plugin: str) -> list[str]:
    return [n for n, _ in registry().all("sampler") if n.startswith(f"{plugin}:")]


def cell(name: str, process: str, grid: str, steps: int, dtype: str, **options: Any) -> Cell:
    made = Study(
        name="beside",
        question="Do they agree?",
        target="gmm_ring",
        process=process,
        grid=use(grid) if grid != "linear:karras" else use(grid, rho=7.0),
        sampler=use(name, **options),
        steps=steps,
        n=8,
        seed=[3],
        dtype=dtype,
        metrics=["sliced_w2"],
    )
    (only,) = made.cells(registry())
    return only


def states(of: Cell) -> tuple[Tensor, float]:
    """Every state of a cell, (steps, B, *event), and what it cost, by the lab's own run."""
    parts, seen = Parts(registry()), list[Tensor]()
    plain = registry().get("sampler", of.sampler.name)

    def watched(*args: Any, **options: Any) -> Any:
        for x in plain(*args, **options):
            seen.append(x.clone())
            yield x

    tapped = replace(plain, fn=watched)
    fake = Tapped(parts.registry, of.sampler.name, tapped)
    told = sample([of], replace(parts, registry=fake))  # type: ignore[arg-type]
    return torch.stack(seen), told.nfe


class Tapped:
    """A registry in which one sampler is watched."""

    def __init__(self, of: labcore.Registry, name: str, tapped: Entry) -> None:
        self._of, self._name, self._tapped = of, name, tapped

    def get(self, kind: str, name: str) -> Entry:
        tap = kind == "sampler" and name == self._name
        return self._tapped if tap else self._of.get(kind, name)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest relative difference, of numbers below 1 the absolute one."""
    return float(((a - b).abs() / (b.abs() + 1)).max())


def apart(
    theirs: str,
    options: dict[str, Any],
    ours: str,
    own: dict[str, Any],
    *,
    process: str = "vp",
    grid: str = "quadratic",
    dtype: str = "float64",
    steps: int = 20,
    but_last: bool = False,
) -> float:
    """How far the states of two samplers are apart on one cell, and that their cost is metered."""
    a, nfe = states(cell(theirs, process, grid, steps, dtype, **options))
    b, _ = states(cell(ours, process, grid, steps, dtype, **own))
    assert nfe == cost(entry(theirs), steps, **options)
    end = -1 if but_last else None
    return distance(a[:end], b[:end])


def cost(of: Entry, steps: int, **options: Any) -> int:
    """What it declares to cost."""
    evals = of.evals(of.bind(options))
    assert evals is not None
    return evals * steps + int(of.traits.get("extra", 0))


def flow_error(of: Entry, steps: int, grid: Grid = uneven, **options: Any) -> float:
    """How far 16 states that follow the probability flow end from where they should.

    For Gaussian data N(m, S), C = alpha^2 S + sigma^2 and y = x - alpha m, that is at
    y_s = (C_s/C_t)^(1/2) y_t. Unlike the audit, it can be read at the precision of float32.
    """
    process, data = vp(), default_data(2)
    ts = grid(process, steps)
    alpha, var = process.Phi(ts, torch.zeros_like(ts)).param, process.Sigma(ts).param
    w, V = torch.linalg.eigh(data.covs[0])
    C = alpha[:, None] ** 2 * w + var[:, None]
    x = initial([0], 16, (2,), dtype=F64)
    gain = (C[-1] / C[0]).sqrt()
    exact = alpha[-1] * data.means + (x - alpha[0] * data.means) @ (V * gain) @ V.T
    score = counted(gaussian_score(process, data, (2,)), 16)
    noise = counting((2,), rows=16)
    with torch.inference_mode():
        made = list(of(process, score, x, ts, noise, **of.bind(options)))
    return float((made[-1] - exact).norm())


def flow_order(of: Entry, coarse: int, fine: int, **options: Any) -> float:
    """Slope of that error between two step counts."""
    a, b = (flow_error(of, n, **options) for n in (coarse, fine))
    return math.log(a / b) / math.log(fine / coarse)


def driven(name: str, dtype: str = "float32", steps: int = 6) -> Tensor:
    """The last state of a run under the contract's watch over process-wide state."""
    of = cell(name, "vp", "quadratic", steps, dtype)
    parts = Parts(registry())
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    score = counted(parts.score(of.score, of.process, of.target), 8)
    with torch.inference_mode():
        out, _ = drive(parts, of, score, x, parts.times(of), [3])
    return out

"""The same sampling by hand and by solver libraries, to be run beside ours.

Data N(m, v I) under VP; every library gets the exact network in its own terms, written as plainly
as the library allows, and its own idea of the same schedule and number of steps. Only this folder
imports these libraries; one that is not installed is left out.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from floors import Calls
from torch import Tensor

B0, B1, V = 0.1, 20.0, 0.25
M = torch.tensor([1.0, -1.0])


@dataclass(frozen=True)
class Runner:
    """``run`` samples from x_T; ``bare`` calls the same network along the grid, and does no more.

    ``same`` are the samplers of ours that are the same method; ``draws`` the fresh normals of the
    state's size that a run of it needs. A bound stands beside ours without being a goal.
    """

    who: str
    run: Callable[[], Tensor]
    bare: Calls
    same: tuple[str, ...] = ()
    draws: int = 0
    bound: bool = False


class Meter:
    """How often networks have been called."""

    calls = 0


def metered(network: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        Meter.calls += 1
        return network(*args)

    return call


def calls(fn: Callable[[], object]) -> int:
    """Network calls of one run."""
    before = Meter.calls
    fn()
    return Meter.calls - before


@metered
def score(x: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(x) = (alpha m - x)/(alpha^2 v + sigma^2), VP with linear beta.

    t is () or, a time for each sample, (B, 1).
    """
    a2 = torch.exp(-(B0 * t + (B1 - B0) / 2 * t * t))
    return (a2.sqrt() * M - x) / (a2 * V + (1 - a2))


def quiet(name: str) -> Any:
    """The module ``name``, imported without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def by_hand(x: Tensor, ts: Tensor, lean: bool = False) -> Iterator[Runner]:
    """The loops one writes, the formulas as in the papers and a time for each sample.

    That is what networks take. The coefficients that are functions of this time are then one a
    sample too, as in the loops of Song et al. and Ho et al.; those of DPM-Solver++ and the size
    of a corrector's step are numbers, as in theirs. To make the time is part of a network's call.
    The ``lean`` ones, for a network that takes one number, do all their sums on numbers: bounds
    on what can be reached.
    """
    n, rows = len(ts) - 1, len(x)

    def at(v: Tensor) -> Tensor:
        return v if lean else torch.full((rows, 1), float(v))

    def cumulated() -> Tensor:
        return torch.exp(-(B0 * ts + (B1 - B0) / 2 * ts**2))

    def beta(t: Tensor) -> Tensor:
        return B0 + (B1 - B0) * t

    def v(x: Tensor, t: Tensor) -> Tensor:
        return -0.5 * beta(t) * (x + score(x, t))

    def euler(x: Tensor = x) -> Tensor:
        for t, s in pairwise(ts.unbind()):
            x = x + (s - t) * v(x, at(t))
        return x

    def heun(x: Tensor = x) -> Tensor:
        for t, s in pairwise(ts.unbind()):
            d = v(x, at(t))
            x = x + (s - t) / 2 * (d + v(x + (s - t) * d, at(s)))
        return x

    def ddim(x: Tensor = x) -> Tensor:
        abar = cumulated()
        for i in range(n):
            now, after = at(abar[i]), at(abar[i + 1])
            eps = -((1 - now) ** 0.5) * score(x, at(ts[i]))
            x0 = (x - (1 - now) ** 0.5 * eps) / now**0.5
            x = after**0.5 * x0 + (1 - after) ** 0.5 * eps
        return x

    def dpmpp_2m(x: Tensor = x) -> Tensor:
        old, abar = x, cumulated()
        level = 0.5 * (abar / (1 - abar)).log()
        for i in range(n):
            new = (x + (1 - abar[i]) * score(x, at(ts[i]))) / abar[i] ** 0.5
            D, h = new, level[i + 1] - level[i]
            if i:
                r = (level[i] - level[i - 1]) / h
                D = (1 + 1 / (2 * r)) * new - old / (2 * r)
            a, s = abar[i + 1] ** 0.5, (1 - abar[i + 1]) ** 0.5
            x, old = s / (1 - abar[i]) ** 0.5 * x - a * torch.expm1(-h) * D, new
        return x

    def maruyama(x: Tensor = x) -> Tensor:
        for t, s in pairwise(ts.unbind()):
            h, u = t - s, at(t)
            b = beta(u)
            x = x + h * (0.5 * b * x + b * score(x, u)) + (b * h) ** 0.5 * torch.randn_like(x)
        return x

    def ancestral(x: Tensor = x, then: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        abar = cumulated()
        for i in range(n):
            now, after = at(abar[i]), at(abar[i + 1])
            a = now / after
            C = (1 - a) * (1 - after) / (1 - now)
            x = (x + (1 - a) * score(x, at(ts[i]))) / a**0.5 + C**0.5 * torch.randn_like(x)
            x = then(x, ts[i + 1]) if then else x
        return x

    def corrected(x: Tensor, t: Tensor) -> Tensor:
        g, z = score(x, at(t)), torch.randn_like(x)
        e = 2 * (0.16 * z.norm(dim=1).mean() / g.norm(dim=1).mean()) ** 2
        return x + e * g + (2 * e) ** 0.5 * z

    def langevin(x: Tensor = x) -> Tensor:
        u = at(ts[-1])
        for _ in range(n):
            x = x + 0.05 * score(x, u) + 0.1**0.5 * torch.randn_like(x)
        return x

    def bare() -> Iterator[object]:
        for t in ts[:-1].unbind():
            yield score(x, at(t))

    def bare_at_one_time() -> Iterator[object]:
        u = at(ts[-1])
        for _ in range(n):
            yield score(x, u)

    pc = partial(ancestral, then=corrected)
    for name, run, same, draws in (
        ("Euler", euler, ("samplers:euler",), 0),
        ("DDIM", ddim, ("samplers:ddim", *FIRST), 0),
        ("Heun", heun, ("samplers:heun",), 0),
        ("DPM-Solver++(2M)", dpmpp_2m, ("samplers:dpmpp_2m",), 0),
        ("Euler-Maruyama", maruyama, MARUYAMA, n),
        ("ancestral", ancestral, ANCESTRAL, n),
        ("with a corrector", pc, ("samplers:predictor_corrector",), 2 * n),
        ("Langevin", langevin, ("samplers:langevin",), n),
    ):
        alone = bare_at_one_time if run is langevin else bare
        yield Runner(f"{'lean' if lean else 'by hand'}, {name}", run, alone, same, draws, lean)


FIRST = ("samplers:dpm_solver_1", "samplers:dpmpp_1m")
"""DDIM under the names it has as the first of a family."""

ANCESTRAL = ("samplers:ancestral", "samplers:ddim(eta=1)", "samplers:sde_dpmpp_1")
MARUYAMA = ("samplers:euler_maruyama", "samplers:reverse_sde")


FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
ADAPTIVE = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
OURS = {
    "euler": ("samplers:euler",),
    "midpoint": ("samplers:midpoint",),
    "heun2": ("samplers:heun",),
    "rk4": ("samplers:rk4",),
    "dopri5": ("samplers:adaptive_rk45",),
    "bosh3": ("samplers:adaptive_rk23",),
}
"""Ours that are torchdiffeq's methods, besides those that are run by its own steps."""


def torchdiffeq(x: Tensor, ts: Tensor) -> Iterator[Runner]:
    """Its methods on the probability-flow ODE, the fixed ones step for step on the same times."""
    odeint = quiet("torchdiffeq").odeint

    def v(t: Tensor, x: Tensor) -> Tensor:
        return -0.5 * (B0 + (B1 - B0) * t) * (x + score(x, t))

    times = ts.float()

    def bare() -> Iterator[object]:
        for t in times[:-1].unbind():
            yield score(x, t)

    def run(name: str, **options: Any) -> Tensor:
        out: Tensor = odeint(v, x, times, method=name, **options)[-1]
        return out

    for name in (*FIXED, *ADAPTIVE):
        options: dict[str, Any] = {}
        if name in ADAPTIVE:
            options = {"rtol": 1e-5, "atol": 1e-5, "options": {"step_t": times[-1:]}}
        same = (f"torchdiffeq:{name}", *OURS.get(name, ()))
        yield Runner(f"torchdiffeq, {name}", partial(run, name, **options), bare, same)


ITO = {
    "euler": (*MARUYAMA, "torchsde:euler"),
    "milstein": (*MARUYAMA, "torchsde:milstein"),  # the same where the noise is additive
    "srk": ("torchsde:srk", "samplers:sra1"),
}
STRATONOVICH = {
    "heun": ("torchsde:heun", "samplers:stochastic_heun"),
    "euler_heun": ("torchsde:euler_heun",),
    "midpoint": ("torchsde:midpoint",),
    "log_ode": ("torchsde:log_ode",),
    "reversible_heun": ("torchsde:reversible_heun",),
}


def torchsde(x: Tensor, n: int, t_eps: float) -> Iterator[Runner]:
    """Its methods in u = 1 - t, with its own Brownian interval, equal steps."""
    sdeint = quiet("torchsde").sdeint
    warnings.filterwarnings("ignore", module="torchsde")  # its own times differ by rounding

    def beta(u: Tensor) -> Tensor:
        return B0 + (B1 - B0) * (1 - u)

    us = torch.tensor([0.0, 1 - t_eps])
    times = torch.linspace(1, t_eps, n + 1)[:-1].unbind()

    def bare() -> Iterator[object]:
        for t in times:
            yield score(x, t)

    def run(name: str, kind: str, form: str, **options: Any) -> Tensor:
        def g(u: Tensor, x: Tensor) -> Tensor:
            b = beta(u).sqrt()
            if kind == "diagonal":
                return b.expand_as(x)
            return (b * torch.eye(2)).expand(len(x), 2, 2)

        reverse = SimpleNamespace(
            noise_type=kind,
            sde_type=form,
            f=lambda u, x: 0.5 * beta(u) * x + beta(u) * score(x, 1 - u),
            g=g,
        )
        out: Tensor = sdeint(reverse, x, us, dt=float(us[1]) / n, method=name, **options)[-1]
        return out

    for form, table in (("ito", ITO), ("stratonovich", STRATONOVICH)):
        for name, same in table.items():
            kind = "additive" if name == "srk" else "diagonal"
            draws = (1 + (name in ("srk", "log_ode"))) * n
            yield Runner(f"torchsde, {name}", partial(run, name, kind, form), bare, same, draws)

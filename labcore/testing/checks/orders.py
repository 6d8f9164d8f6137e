"""Orders in law, on a nonlinear problem and on one path, against those declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.errors import SamplerError
from labcore.noise import Noise
from labcore.processes import Process
from labcore.scores import Score
from labcore.testing.audit import Audit, audit, strong_order
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.checks.drawn import figures_of, finite, plot_of
from labcore.testing.models import heart, quadratic, uneven_in_log
from labcore.testing.nonlinear import Problem, path_errors, problem
from labcore.testing.slopes import Slope, fading, follow, measure

WITHIN, FAR = 0.15, 0.5
"""How near to the declared order a slope must be, and from where none is near."""
ROUNDING = 1e-14
"""Error of a run in float64 from rounding alone, relative to the size of the state."""
PATH_STEPS = (4, 8, 16, 32, 64)
FINER = (16, 32, 64, 128, 256)
"""Where the first are not the declared order."""
EARLY = 0.15
"""No order shows where errors are as large a part of the state, or more."""
EARLIER = "not asymptotic yet, and falling"
LOOK = "look for a wrong coefficient, or declare what it reaches"


def order(case: Case, within: float = WITHIN) -> Check:
    """The order in law, by the exact audit on steps of uneven lengths, is the declared one, and
    stays it at fine steps."""
    declared = case.order
    if declared is None:
        return skipped("no order is declared")
    if case.coupled:
        return skipped("its steps follow a tolerance, not the grid")
    try:
        slope = case.once("order in law", lambda: _in_law(case, declared, within))
    except SamplerError as error:
        return skipped(str(error))
    found, figures = _told(slope, declared), figures_of(slope, declared)
    shown = "Order in law", "W2 to the exact law", slope, declared
    plots = (plot_of(*shown),)
    if _exact(slope):
        return passed("exact to rounding", figures=figures)
    if slope.high + within < declared:
        return _failed(f"its order in law is {found} on Gaussian data", figures, plots)
    if slope.resolved and slope.low - within > declared:
        other = case.once("nonlinear", lambda: _nonlinear(case))
        sure = isinstance(other, Slope) and other.resolved and other.half < within
        if sure and isinstance(other, Slope) and other.low - within > declared:
            why = f"its order in law is {found} and on a mixture {other}: more than it declares"
            return _failed(why, figures, plots)
        found += "; its leading error vanishes for Gaussian data"
        found += f": {other} on a mixture" if isinstance(other, Slope) else ""
    tail, lower = case.once("fine steps", lambda: _fine(case, slope, declared))
    figures |= {"fine": {"steps": list(tail), "errors": [finite(e) for e in tail.values()]}}
    if lower is not None:
        told = f"{found}, and falls to {lower:.2f} at {max(tail)} steps"
        remedy = "a coefficient is slightly off: a small term of lower order is left"
        return _failed(f"its order in law is {told}", figures, (plot_of(*shown, tail),), remedy)
    return _shown(slope, found, figures, plots)


def nonlinear(case: Case, within: float = WITHIN) -> Check:
    """The order on a mixture: of the final states of an ODE method, of the law of an SDE method
    (against the exact solution of both by methods that no sampler is)."""
    if case.coupled:
        return _at_tolerance(case)
    declared = case.order
    if declared is None:
        return skipped("no order is declared")
    slope = case.once("nonlinear", lambda: _nonlinear(case))
    if not isinstance(slope, str) and _low(slope, declared, within) and _on_path(case):
        slope = _on_paths(case, _of(case).rate(runner(case)) or 1.0, FINER)[1]
    if isinstance(slope, str):
        return skipped(slope)
    what = (
        "error of the first two moments" if _on_path(case) else "rms distance to the exact states"
    )
    figures = figures_of(slope, declared)
    plots = (plot_of("Order on a mixture", what, slope, declared),)
    if _exact(slope):
        return passed("exact to rounding", figures=figures)
    if _low(slope, declared, within):
        if _early(slope, case):
            return skipped(f"{slope.errors[-1]:.2g} off in {slope.steps[-1]} steps: {EARLIER}")
        return _failed(f"its order on a mixture is {_told(slope, declared)}", figures, plots)
    if not math.isfinite(slope.errors[-1]):
        told = f"its {what} is {slope.errors[-1]} in {slope.steps[-1]} steps"
        return _failed(told, figures, plots, "check its stability")
    if _on_path(case) and not math.isfinite(slope.half):
        told = f"below the sampling error of 4096 paths from {slope.steps[slope.last]} steps on"
        return _shown(slope, f"{told}, declared {declared:g}", figures, plots)
    return _shown(slope, _told(slope, declared), figures, plots)


def strong(case: Case, within: float = WITHIN) -> Check:
    """The order on one Brownian path of a mixture is the declared one, or higher."""
    declared = case.entry.traits.get("strong")
    if declared is None:
        return skipped("no strong order is declared")
    sampler = runner(case)
    of = _of(case)
    lam = of.rate(sampler)
    if lam is None:
        return _between_its_own(case, declared, within)
    slope = case.once("on a path", lambda: _on_paths(case, lam))[0]
    if _low(slope, declared, within):
        slope = _on_paths(case, lam, FINER)[0]
    figures = {**figures_of(slope, declared), "lam": lam}
    plots = (plot_of("Strong order", "rms distance on 4096 paths", slope, declared),)
    if _low(slope, declared, within):
        if _early(slope, case):
            return skipped(f"{slope.errors[-1]:.2g} off in {slope.steps[-1]} steps: {EARLIER}")
        return _failed(
            f"its order on one path is {slope}, declared strong={declared}",
            figures,
            plots,
            "ask noise for the step taken, or declare what it reaches",
        )
    return _shown(slope, _told(slope, declared), figures, plots)


def runner(case: Case) -> Callable[..., Iterator[Tensor]]:
    """The case's, as audits call it."""

    def run(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        return case.call(score, x, ts, noise)

    return run


def _of(case: Case) -> Problem:
    return problem(case.process, case.seed)


def size(case: Case) -> float:
    law = case.law(torch.tensor(heart(case.process)[1], dtype=torch.float64))
    return float((law.covs[0].trace() + law.means[0].square().sum()).sqrt())


def audited(case: Case, ts: Tensor) -> float:
    return _audit(case, ts).w2


def _audit(case: Case, ts: Tensor) -> Audit:
    return audit(runner(case), case.process, ts, case.data, event=case.data_event)


def _in_law(case: Case, declared: float, within: float) -> Slope:
    return _followed(_error_in_law(case), ROUNDING * size(case), declared, within)


def _error_in_law(case: Case) -> Callable[[int], float]:
    """W2 to the exact law in n steps, each n once; how rough each audit is, is kept."""

    def error(n: int) -> float:
        made = _audit(case, uneven_in_log(case.process, n))
        case.once("rounding", list[float]).append(made.linearity)
        return made.w2

    return case.once("errors in law", lambda: cache(error))


def _fine(case: Case, slope: Slope, declared: float) -> tuple[dict[int, float], float | None]:
    more = slope.resolved and slope.value > declared + WITHIN
    seen = slope.value if more else declared
    finest = 2048 if case.entry.traits.get("stochastic") else 8192  # each draw costs its audit
    error = _error_in_law(case)
    try:
        error(512)  # first, for its rounding
        rounding = max(ROUNDING, *case.once("rounding", list[float]))
        return fading(error, seen, declared, floor=rounding * size(case), finest=finest)
    except SamplerError:  # it takes no such grids: there is nothing to follow
        return {}, None


def _followed(make: Callable[[int], float], floor: float, declared: float, within: float) -> Slope:
    """By doubling; beyond 256 steps where what is seen is not the declared order."""
    error = cache(make)
    slope = follow(error, floor=floor)
    if _exact(slope) or (slope.resolved and abs(slope.value - declared) <= within):
        return slope
    return follow(error, floor=floor, coarse=32, fine=1024)


def _nonlinear(case: Case) -> Slope | str:
    of, sampler = _of(case), runner(case)
    if not of.draws(sampler):
        return _followed(of.flow_error(sampler), 10 * ROUNDING, case.order or 0.0, WITHIN)
    lam = of.rate(sampler)
    if lam is None:
        return (
            "its draws are no constant multiple of the increments of one path: without a solution "
            "on the same path an error in law is below the sampling error"
        )
    slope: Slope = case.once("on a path", lambda: _on_paths(case, lam))[1]
    return slope


def _low(slope: Slope, declared: float, within: float) -> bool:
    """Whether every order of the interval is too low, or the error stops falling.

    A short interval of slopes that do not settle counts too, where it is far below.
    """
    settled = slope.resolved and slope.high + within < declared
    far = slope.half < within and slope.high + FAR < declared
    return slope.plateau is not None or settled or far


def _early(slope: Slope, case: Case) -> bool:
    """Whether errors two doublings before the last are of the size of the state, and fall."""
    law = _of(case).law(heart(case.process)[1])
    size = math.sqrt(float(law.cov.trace() + law.mean.square().sum()))
    return slope.errors[-3] > EARLY * size and slope.errors[-1] < 0.9 * slope.errors[-2]


def _on_path(case: Case) -> bool:
    """Whether it draws, and so is compared on one path."""
    return bool(_of(case).draws(runner(case)))


def _on_paths(case: Case, lam: float, steps: tuple[int, ...] = PATH_STEPS) -> tuple[Slope, Slope]:
    """The strong and the weak order on the mixture."""
    found = list(map(path_errors((_of(case),), runner(case), lam), steps))
    strong, weak = (
        measure(steps, [f[k][0] for f in found], noise=[f[k][1] for f in found]) for k in (0, 1)
    )
    return strong, weak


def _between_its_own(case: Case, declared: float, within: float) -> Check:
    """Without a solution on its path: between N and 2N steps of its own."""
    measured = strong_order(
        case.entry, case.process, case.score, quadratic, case.event, options=case.options
    )
    if measured.slope < declared - within:
        raise Broken(
            f"its order on one path is {measured.slope:.2f}, declared strong={declared}",
            "ask noise for the step taken, or declare what it reaches",
        )
    return passed(f"{measured.slope:.2f} between N and 2N steps, declared {declared}")


def _at_tolerance(case: Case) -> Check:
    """Steps that follow a tolerance have no order: the error at it, where there is a reference."""
    of, sampler = _of(case), runner(case)
    why = "its steps follow a tolerance, not the grid: no order"
    if case.entry.traits.get("stochastic"):
        return skipped(f"{why}, and no exact states for its draws")
    try:
        error = of.flow_error(sampler)(16)
    except SamplerError:
        return skipped(why)
    size = float(of.flow.square().mean().sqrt())
    if not error < 0.05 * size:
        raise Broken(
            f"at its tolerance it is {error:.2g} from the exact states, of size {size:.2g}",
            "its error control does not hold on a mixture",
        )
    return skipped(f"{why}; {error:.2g} from the exact states of a mixture")


def _exact(slope: Slope) -> bool:
    """Too few errors above the rounding floor, as the first ones are not."""
    return not slope.resolved and max(slope.errors) < 1e-11


def _told(slope: Slope, declared: float) -> str:
    return f"{slope}, declared {declared:g}" + (f" ({slope.why})" if slope.why else "")


def _shown(
    slope: Slope, found: str, figures: Mapping[str, Any], plots: tuple[Mapping[str, Any], ...]
) -> Check:
    """Passed where an order could be read off; where none could, nothing was shown."""
    if slope.resolved:
        return passed(found, figures=figures, plots=plots)
    return skipped(f"no order can be read off: {found}", figures=figures, plots=plots)


def _failed(
    found: str,
    figures: Mapping[str, Any],
    plots: tuple[Mapping[str, Any], ...],
    remedy: str = LOOK,
) -> Check:
    return Check("", "failed", found, remedy, figures, plots)

"""Whether the bias goes to zero as steps grow, or stays at a plateau."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.errors import SamplerError
from labcore.noise import brownian
from labcore.testing.case import Broken, Case, passed
from labcore.testing.checks.drawn import finite, lines
from labcore.testing.checks.orders import ROUNDING, audited, size
from labcore.testing.models import quadratic


def consistency(case: Case) -> Check:
    """The bias goes to zero as steps grow, from T to t_eps on Gaussian data; else a plateau."""
    steps = [8, 32, 128]
    grids = [quadratic(case.process, n) for n in steps]
    try:
        errors = [audited(case, ts) for ts in grids]
        for n in (512, 2048):
            stays = n > 512 and errors[-1] >= 0.7 * errors[-2]
            if stays or _settled(errors, case.order or 0.0):
                break
            errors.append(audited(case, quadratic(case.process, n)))
            steps.append(n)
        doubt, how = [ROUNDING * size(case)] * len(errors), "W2 to the exact law"
    except SamplerError:
        del steps[3:]
        found = [_sampled(case, ts) for ts in grids]
        errors, doubt = [e for e, _ in found], [3 * sd for _, sd in found]
        how = "error of the characteristic function"
    first, last = errors[0], errors[-1]
    if not math.isfinite(last):
        raise Broken(f"{how} is {last} in {steps[-1]} steps", "check its stability")
    figures: dict[str, Any] = {"steps": steps, "errors": list(map(finite, errors))}
    figures["doubt"] = doubt
    series = [{"label": how, "x": steps, "y": figures["errors"]}]
    plots = (lines("Bias from T to t_eps", how, series),)
    more: dict[str, Any] = {"figures": figures, "plots": plots}
    if case.order is None and max(errors) < 1e-9:
        return passed(f"exact: {how} is {last:.1g} in {steps[0]} steps or more", **more)
    if last <= doubt[-1]:
        return passed(f"{how} is {last:.2g}, within its sampling error of 0", **more)
    if last < first / (4 if len(steps) > 4 else 1.4) and last < 0.7 * errors[-2]:
        told = f"{how} falls from {first:.2g} to {last:.2g} in 8 to {steps[-1]} steps"
        return passed(told, **more)
    figures["plateau"] = last
    told = f"plateau: {how} stays at {last:.2g} as steps grow to {steps[-1]}"
    if case.order is None or case.coupled:
        return passed(told, **more)
    remedy = "its noise or an error in a coefficient does not shrink with the step"
    return Check("", "failed", told, remedy, figures, plots)


def _settled(errors: list[float], order: float) -> bool:
    """Whether errors at 4 times as many steps each fall as they should: all, and by the order."""
    falls = all(b < a for a, b in pairwise(errors))
    return falls and errors[-1] < min(errors[0] / 4, errors[-2] * 1.5 * 4.0**-order)


def _sampled(case: Case, ts: Tensor, rows: int = 1024) -> tuple[float, float]:
    """The error of the characteristic function of samples at a few w, and its standard error.

    E exp(i w x) = exp(i w m - w C w / 2), bounded for samples of any tails; w = L^-T e for the
    unit vectors e and their sums, L L^T = C.
    """
    start, end = case.law(ts[0]), case.law(ts[-1])
    g = torch.Generator().manual_seed(case.seed)
    x = start.sample(rows, g).reshape(rows, *case.event)
    noise = brownian(ts, case.event, [case.seed], rows, dtype=torch.float64)
    out = case.end(x, ts, noise).flatten(1)
    e = torch.eye(case.D, dtype=torch.float64)
    e = torch.cat([e, e + e.roll(1, 0)])
    L = torch.linalg.cholesky(end.covs[0])
    white = torch.linalg.solve_triangular(L, (out - end.means[0]).T, upper=False).T @ e.T
    waves = torch.cat([white.cos() - torch.exp(-e.square().sum(1) / 2), white.sin()], 1)
    return float(waves.mean(0).norm()), float(waves.std(0).norm()) / math.sqrt(rows)

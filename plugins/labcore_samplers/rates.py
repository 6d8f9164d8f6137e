"""The noise rate lam(t) of the reverse SDE as an option: a number, or knots joined by lines.

    lam=0.5                          the same at all times
    lam=[[0.2, 0.0], [1.0, 1.5]]     0 up to t = 0.2, then a line to 1.5 at t = 1

Knots are [t, lam] in the process's own time, in any order; beyond the outermost ones the rate
stays. They are plain data, so a study can write any function of t to any precision.
"""

from collections.abc import Callable
from math import isfinite
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor

Knots = tuple[tuple[float, float], ...]
RateOf = Callable[[Tensor], Tensor]
"""Times (n,) -> lam (n,)."""


def plain(value: Any) -> float | Knots:
    """A number or knots, latest time first; ValueError for anything else."""
    try:
        pairs = [(0.0, value)] if not isinstance(value, list | tuple) else value
        knots = tuple(sorted(((float(t), float(lam)) for t, lam in pairs), reverse=True))
    except (TypeError, ValueError):
        knots = ()
    wrong = [pair for pair in knots if not (isfinite(pair[0]) and 0 <= pair[1] < float("inf"))]
    if not knots or wrong or len({t for t, _ in knots}) < len(knots):
        raise ValueError("give a number of at least 0, or knots [[t, lam], ..] at distinct times")
    return knots if isinstance(value, list | tuple) else knots[0][1]


Rate = Annotated[float | Knots, BeforeValidator(plain)]


def constant(lam: float) -> RateOf:
    """The same at all times."""
    return lambda t: torch.full_like(t, lam)


def rate_of(lam: float | Knots) -> RateOf:
    """lam as a function of times."""
    given = plain(lam)
    if not isinstance(given, tuple):
        return constant(given)
    if len(given) == 1:
        return constant(given[0][1])
    at, of = torch.tensor(sorted(given), dtype=torch.float64).T.contiguous()

    def rate(t: Tensor) -> Tensor:
        i = torch.searchsorted(at, t.contiguous()).clamp(1, len(at) - 1)
        share = ((t - at[i - 1]) / (at[i] - at[i - 1])).clamp(0, 1)
        return torch.lerp(of[i - 1], of[i], share)

    return rate

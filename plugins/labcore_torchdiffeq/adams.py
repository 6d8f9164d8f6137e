"""torchdiffeq's Adams methods on the grid.

Two steps of the 3/8 rule start the history, at four evaluations each. The coefficients are those
of equal steps, on which the order is max_order - 1 (explicit) and max_order (implicit). Where the
step size varies smoothly it is 2, and on steps of any length 1. torchdiffeq's own max_order of 12
has a region of stability that is next to nothing.
"""

from collections.abc import Iterator
from math import inf, isfinite
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

import labcore
from labcore import Noise, Process, SamplerError, Score
from labcore_torchdiffeq.fixed import HAIRER, steps
from labcore_torchdiffeq.flow import Flow

Order = Annotated[int, Ge(4), Le(12)]


@labcore.sampler(order=1, stochastic=False, cite=f"{HAIRER}, III.1 (1.5)")
def explicit_adams(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, max_order: Order = 4
) -> Iterator[Tensor]:
    """Adams-Bashforth with max_order - 1 past values.

    N steps cost N + 3 min(N, 2) score evaluations.
    """
    flow = Flow(process, score, x, ts, (0,))
    solver = SOLVERS["explicit_adams"](func=flow, y0=x, rtol=0.0, atol=0.0, max_order=max_order)
    yield from steps(solver, flow, x, -ts)


@labcore.sampler(order=1, stochastic=False, cite=f"{HAIRER}, III.1 (1.9), PECE mode")
def implicit_adams(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, max_order: Order = 4
) -> Iterator[Tensor]:
    """Adams-Moulton, corrected once from an Adams-Bashforth prediction.

    N steps cost 2 N + 2 min(N, 2) score evaluations. torchdiffeq repeats the correction until the
    whole batch changes little, which is measured by a dozen passes over it; here one is enough.
    """
    flow = Flow(process, score, x, ts, (0, 1))
    solver = SOLVERS["implicit_adams"](func=flow, y0=x, rtol=0.0, atol=inf, max_order=max_order)

    def converged(before: Tensor, after: Tensor) -> bool:
        low, high = torch.aminmax(after)
        if isfinite(float(high - low)):
            return True
        raise SamplerError(
            f"implicit_adams: x is no longer finite at t={flow.asked:.4g}; take more steps"
        )

    solver._has_converged = converged
    yield from steps(solver, flow, x, -ts)

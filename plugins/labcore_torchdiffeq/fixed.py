"""torchdiffeq's methods with fixed steps, on the grid as it is given.

The solver's own step function goes from grid time to grid time, as ``odeint`` would on the same
grid, but only the current state is kept, and the score is given the time in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_torchdiffeq.flow import Flow


@dataclass(frozen=True)
class Method:
    """A one-step method of torchdiffeq: its order and nodes, one score call at each."""

    order: int
    nodes: tuple[float, ...]
    cite: str
    doc: str


HAIRER = "Hairer, Norsett, Wanner (1993) Solving ODEs I"
METHODS = {
    "euler": Method(1, (0,), "Euler (1768)", "Euler's method."),
    "midpoint": Method(2, (0, 0.5), "Runge (1895)", "The explicit midpoint rule."),
    "heun2": Method(2, (0, 1), "Heun (1900)", "Heun's trapezoidal rule."),
    "heun3": Method(
        3, (0, 1 / 3, 2 / 3), f"{HAIRER}, II.1, table 1.1", "Heun's third-order rule."
    ),
    "rk4": Method(4, (0, 1 / 3, 2 / 3, 1), f"{HAIRER}, II.1, table 1.2", "Kutta's 3/8 rule."),
}


def steps(solver: Any, flow: Flow, x: Tensor, us: Tensor) -> Iterator[Tensor]:
    """The states at us[1:], by the solver's own steps from one time to the next."""
    for u0, u1 in pairwise(us):
        x = x + solver._step_func(flow, u0, u1 - u0, u1, x)[0]
        yield x


def entry(name: str, method: Method) -> Entry:
    """The sampler of one method."""

    def integrate(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        flow = Flow(process, score, x, ts, method.nodes)
        yield from steps(SOLVERS[name](func=flow, y0=x, rtol=0.0, atol=0.0), flow, x, -ts)

    integrate.__doc__ = f"{method.doc} torchdiffeq's, on the probability-flow ODE."
    made: Entry = labcore.sampler(
        name=name,
        order=method.order,
        evals=len(method.nodes),
        stochastic=False,
        cite=method.cite,
    )(integrate)
    return made

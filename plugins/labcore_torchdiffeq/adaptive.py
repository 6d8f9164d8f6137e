"""torchdiffeq's embedded Runge-Kutta pairs with step-size control.

The steps follow the tolerance from T to t_eps and do not depend on the grid, which only says where
x is given: in between by the dense output, of order 4. The last step ends at t_eps.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

import labcore
from labcore import Entry, Noise, Process, SamplerError, Score
from labcore_torchdiffeq.flow import Flow

Positive = Annotated[float, Gt(0)]

METHODS = {
    "dopri8": ("Prince, Dormand (1981) J. Comput. Appl. Math. 7", "Dormand-Prince 8(7)."),
    "dopri5": ("Dormand, Prince (1980) J. Comput. Appl. Math. 6", "Dormand-Prince 5(4)."),
    "bosh3": ("Bogacki, Shampine (1989) Appl. Math. Lett. 2", "Bogacki-Shampine 3(2)."),
    "fehlberg2": ("Fehlberg (1969) NASA TR R-315", "Fehlberg 2(1)."),
    "adaptive_heun": ("Heun (1900)", "Heun 2(1)."),
}


def entry(name: str, cite: str, doc: str) -> Entry:
    """The sampler of one pair."""

    def integrate(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        rtol: Positive = 1e-5,
        atol: Positive = 1e-5,
        max_nfe: Annotated[int, Gt(0)] = 10_000,
    ) -> Iterator[Tensor]:
        us, flow = -ts, Flow(process, score, x, ts, max_nfe=max_nfe)
        solver = SOLVERS[name](
            func=flow, y0=x, rtol=rtol, atol=atol, norm=root_mean_square, step_t=us[-1:]
        )
        solver._before_integrate(us)
        for u in us[1:]:
            yield advance(solver, u, name)

    integrate.__doc__ = (
        f"{doc} torchdiffeq's, on the probability-flow ODE, with steps to a tolerance.\n\n"
        "Raises SamplerError after ``max_nfe`` score evaluations, or where the tolerance cannot\n"
        "be met. One stiff sample sets the step of the whole batch."
    )
    made: Entry = labcore.sampler(name=name, stochastic=False, coupled=True, cite=cite)(integrate)
    return made


def advance(solver: Any, u: Tensor, name: str) -> Tensor:
    """x at u, after as many steps as it takes."""
    try:
        x: Tensor = solver._advance(u)
    except AssertionError as error:
        reason = str(error).split(":")[0].split("\n")[0][:60]
        raise SamplerError(
            f"{name}: {reason} at t={-float(solver.rk_state.t1):.4g}; loosen rtol and atol, or "
            "check the score there"
        ) from error
    return x


def root_mean_square(error: Tensor) -> Tensor:
    return error.square().mean().sqrt()

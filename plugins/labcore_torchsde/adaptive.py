"""Step-size control for torchsde's methods: one step against two of half its size.

The controller and the error measure are torchsde's. The path belongs to the seed alone, so
tolerances are compared on one path. The grid has no part in the steps: it only says where x is
given, and between two steps x is linear, as torchsde has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchsde._core.adaptive_stepping import compute_error, update_step_size

import labcore
from labcore import Noise, Process, SamplerError, Score
from labcore_torchsde.fixed import METHODS, solver
from labcore_torchsde.reverse import Reverse, anywhere

Step = tuple[Tensor, Tensor, Tensor, Tensor]  # u0, x0, u1, x1

Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Name = Literal[
    "euler", "milstein", "euler_heun", "heun", "midpoint", "log_ode", "reversible_heun", "srk"
]


@dataclass(frozen=True)
class Tolerance:
    """The error of a step in units of what is tolerated, root mean square over the batch."""

    rtol: float
    atol: float

    def of(self, once: Tensor, twice: Tensor, u: Tensor) -> float:
        try:
            return float(compute_error(once, twice, self.rtol, self.atol))
        except AssertionError as error:
            raise SamplerError(
                f"adaptive: NaN in the step from t={-float(u):.4g}; check the score there, or "
                "start with a smaller dt"
            ) from error


@labcore.sampler(
    stochastic=True,
    coupled=True,
    cite="Ilie, Jackson, Enright (2015) Numer. Algorithms 68; Li et al. (2020) arXiv:2001.01328",
)
def adaptive(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    method: Name = "srk",
    rtol: Positive = 1e-2,
    atol: Positive = 1e-2,
    dt: Fraction = 1e-2,
    dt_min: Fraction = 1e-6,
    max_nfe: Annotated[int, Gt(0)] = 10_000,
    lam: Annotated[float, Ge(0)] = 1.0,
) -> Iterator[Tensor]:
    """A torchsde method whose steps follow a tolerance, on the reverse SDE with rate ``lam``.

    ``dt`` is the first step and ``dt_min`` the smallest one, as fractions of T - t_eps. Raises
    SamplerError where the tolerance asks for a smaller one, or for more than ``max_nfe`` score
    evaluations. One sample can set the step of the whole batch.
    """
    start, end = -ts[0], -ts[-1]
    span = float(end - start)
    chosen = METHODS[method]
    sde = Reverse(
        capped(score, max_nfe), anywhere(process, lam, x), chosen.solver.sde_type, keep=4
    )
    stepper = solver(chosen, sde, noise.tree(dt_min * span / 4))
    steps = controlled(
        stepper, x, start, end, max(dt, dt_min) * span, dt_min * span, Tolerance(rtol, atol)
    )
    u0 = u1 = start
    x0 = x1 = x
    for u in -ts[1:]:
        while u1 < u:
            u0, x0, u1, x1 = next(steps)
        yield x1 if u == u1 else x0 + (u - u0) / (u1 - u0) * (x1 - x0)


def controlled(
    stepper: Any, x: Tensor, u: Tensor, end: Tensor, h: float, least: float, tolerance: Tolerance
) -> Iterator[Step]:
    """The accepted steps from u to end, the first one of size h and none below ``least``."""
    memory, ratio = stepper.init_extra_solver_state(u, x), None
    while u < end:
        u1 = end if end - u < h + least else u + h
        h = float(u1 - u)
        once, _ = stepper.step(u, u1, x, memory)
        middle = 0.5 * (u + u1)
        half, at_half = stepper.step(u, middle, x, memory)
        twice, after = stepper.step(middle, u1, half, at_half)
        error = tolerance.of(once, twice, u)
        h, ratio = update_step_size(error, h, prev_error_ratio=ratio)
        if error <= 1:
            yield u, x, u1, twice
            u, x, memory = u1, twice, after
        elif h < least:
            raise SamplerError(
                f"adaptive: at t={-float(u):.4g} the tolerance asks for a step below dt_min, "
                f"{h:.2g}; loosen rtol={tolerance.rtol:g} and atol={tolerance.atol:g}, lower "
                "dt_min, or use fixed steps"
            )


def capped(score: Score, most: int) -> Score:
    """The score, for at most ``most`` calls."""
    calls = iter(range(most))

    def call(x: Tensor, t: Tensor) -> Tensor:
        if next(calls, None) is None:
            raise SamplerError(
                f"adaptive: all {most} score evaluations are used up at t={float(t):.4g}; loosen "
                "rtol and atol, raise max_nfe, or use fixed steps"
            )
        return score(x, t)

    return call

"""torchsde's methods with fixed steps, on the grid as it is given.

``torchsde.sdeint`` steps by a uniform dt and interpolates to its output times. Here the solver's
own ``step`` goes from grid time to grid time: the method is the library's, the steps are the
grid's, and the number of score evaluations is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor
from torchsde._core import methods

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_torchsde.reverse import Motion, Reverse, along

Rate = Annotated[float, Ge(0)]
KLOEDEN = "Kloeden, Platen (1992) Numerical Solution of SDEs"
HALF_WAY = (
    "Of order 2 in law where the score is affine, of 1 where it bends: the noise of its stage has "
    "half the variance that the second derivative asks for."
)


@dataclass(frozen=True)
class Method:
    """A solver of torchsde and what it does where the noise is additive.

    ``stages`` are the fractions of a step, besides its ends, at which it needs coefficients;
    ``order`` is the order in law, ``strong`` on one path.
    """

    solver: Any
    order: float
    strong: float
    evals: int
    cite: str
    doc: str
    stages: tuple[float, ...] = ()
    extra: int = 0


METHODS = {
    "euler": Method(methods.Euler, 1, 1, 1, f"{KLOEDEN}, 10.2", "Euler-Maruyama."),
    "milstein": Method(
        *(methods.MilsteinIto, 1, 1, 1, f"{KLOEDEN}, 10.3"),
        "Milstein's method, which is Euler-Maruyama where the noise is additive.",
    ),
    "euler_heun": Method(
        *(methods.EulerHeun, 1, 1, 1, f"{KLOEDEN}, 4.9"),
        "Euler's drift, with G averaged over the two ends of the step.",
    ),
    "heun": Method(
        *(methods.Heun, 2, 1, 2, "Burrage, Burrage, Tian (2004) Proc. R. Soc. A 460"),
        "Stratonovich Heun: the trapezoidal rule with an Euler-Maruyama predictor.",
    ),
    "midpoint": Method(
        *(methods.Midpoint, 1, 1, 2, f"{KLOEDEN}, 4.9"),
        f"Stratonovich midpoint rule with half an Euler-Maruyama step as predictor. {HALF_WAY}",
        stages=(0.5,),
    ),
    "log_ode": Method(
        *(methods.LogODEMidpoint, 1, 1, 2, "Foster, Lyons, Oberhauser (2020) arXiv:1904.06998"),
        f"Log-ODE method, which is the midpoint rule where the noise is additive. {HALF_WAY}",
        stages=(0.5,),
    ),
    "reversible_heun": Method(
        *(methods.ReversibleHeun, 2, 1, 1, "Kidger et al. (2021) arXiv:2105.13493"),
        "Algebraically reversible Heun, one evaluation a step. It is stable on a segment of the "
        "imaginary axis only: errors grow where the reverse SDE contracts, as it mostly does.",
        extra=1,
    ),
    "srk": Method(
        *(methods.SRK, 2, 1.5, 2, "Roessler (2010) SIAM J. Numer. Anal. 48, SRA1"),
        "Stochastic Runge-Kutta for additive noise, with the space-time area of the path.",
        stages=(0.75, 1.0),
    ),
}
"""solver, order, strong, evals, cite and doc of each, and what only some have."""


def solver(method: Method, sde: Reverse, noise: Noise) -> Any:
    """The method's solver on our SDE and noise; what it would use to adapt steps is left out."""
    return method.solver(
        sde=sde,
        bm=Motion(noise),
        dt=None,
        adaptive=False,
        rtol=None,
        atol=None,
        dt_min=None,
        options={},
    )


def entry(name: str, method: Method) -> Entry:
    """The sampler of one method."""

    def integrate(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, lam: Rate = 1.0
    ) -> Iterator[Tensor]:
        us = -ts
        at = along(process, lam, x, us, method.stages)
        stepper = solver(method, Reverse(score, at, method.solver.sde_type), noise)
        memory = stepper.init_extra_solver_state(us[0], x)
        for u0, u1 in pairwise(us):
            x, memory = stepper.step(u0, u1, x, memory)
            yield x

    integrate.__doc__ = f"{method.doc} torchsde's, on the reverse SDE with noise rate ``lam``."
    made: Entry = labcore.sampler(
        name=name,
        order=method.order,
        strong=method.strong,
        evals=method.evals,
        extra=method.extra,
        stochastic=True,
        cite=method.cite,
    )(integrate)
    return made

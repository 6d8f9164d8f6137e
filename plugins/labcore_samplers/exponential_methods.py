"""The table of exponential integrators: one line a method, read by exponential.py.

All are exact for a single datum, at any step. Orders are those of the law: measured, on steps of
uneven lengths, by the exact audit and on a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_samplers.exponential import (
    AB,
    EULER,
    MIDPOINT,
    SRA,
    THIRD,
    THIRD_ORDER,
    Method,
    Stage,
    integrate,
)

SECOND = (EULER, AB(2))
THIRD_STEPS = (MIDPOINT, AB(2), AB(3))
FOURTH_STEPS = (THIRD_ORDER, (Stage(1, (0, -THIRD, -1)),), AB(3), AB(4))

SOLVER = "Lu et al. (2022) arXiv:2206.00927"
SOLVERPP = "Lu et al. (2022) arXiv:2211.01095"
DEIS = "Zhang & Chen (2023) arXiv:2204.13902"

# name: method, order, source, first line of the docstring
ODE: dict[str, tuple[Method, int, str, str]] = {
    "dpm_solver_1": (
        Method((EULER,), "noise"),
        1,
        f"{SOLVER}, eq. 3.7",
        "DPM-Solver-1: the exponential Euler step, which is DDIM's at eta=0.",
    ),
    "dpm_solver_2": (
        Method((MIDPOINT,), "noise"),
        2,
        f"{SOLVER}, algorithm 1",
        "DPM-Solver-2, single-step: eps at the middle of the step in log-SNR, held over it.",
    ),
    "dpm_solver_3": (
        Method((THIRD_ORDER,), "noise"),
        3,
        f"{SOLVER}, algorithm 2",
        "DPM-Solver-3, single-step: eps interpolated through 0 and 2/3 of the step.",
    ),
    "dpm_solver_2m": (
        Method(SECOND, "noise"),
        2,
        f"{SOLVER}; multistep as in {DEIS}",
        "Two-step Adams-Bashforth in log-SNR on eps.",
    ),
    "dpm_solver_3m": (
        Method(THIRD_STEPS, "noise"),
        3,
        f"{SOLVER}; multistep as in {DEIS}",
        "Three-step Adams-Bashforth in log-SNR on eps; the first step is DPM-Solver-2's.",
    ),
    "dpmpp_1m": (
        Method((EULER,), "data"),
        1,
        f"{SOLVERPP}, eq. 9",
        "DPM-Solver++(1M): the exponential Euler step on x0, which is DDIM's at eta=0.",
    ),
    "dpmpp_3m": (
        Method(THIRD_STEPS, "data"),
        3,
        f"{SOLVERPP}, appendix B",
        "DPM-Solver++(3M) with the second difference that the quadratic through x0 has; the "
        "first step is 2S's.\n\nSeveral libraries halve it, which makes the method second order.",
    ),
    "dpmpp_2s": (
        Method((MIDPOINT,), "data"),
        2,
        f"{SOLVERPP}, algorithm 1",
        "DPM-Solver++(2S), single-step: x0 at the middle of the step in log-SNR, held over it.",
    ),
    "dpmpp_3s": (
        Method((THIRD_ORDER,), "data"),
        3,
        f"{SOLVERPP}, appendix B; stages of {SOLVER}, algorithm 2",
        "DPM-Solver++(3S), single-step: x0 interpolated through 0 and 2/3 of the step.",
    ),
    "deis_tab1": (
        Method(SECOND, "noise", "time"),
        2,
        f"{DEIS}, eq. 15",
        "tAB1-DEIS: eps is a line in t through the last two values.",
    ),
    "deis_tab2": (
        Method(THIRD_STEPS, "noise", "time"),
        3,
        f"{DEIS}, eq. 15",
        "tAB2-DEIS: eps is a parabola in t; the first step is a midpoint one.",
    ),
    "deis_tab3": (
        Method(FOURTH_STEPS, "noise", "time"),
        4,
        f"{DEIS}, eq. 15",
        "tAB3-DEIS: eps is a cubic in t; the first steps are of third order.",
    ),
    "deis_rhoab1": (
        Method(SECOND, "noise", "rho"),
        2,
        f"{DEIS}, eq. 18",
        "rhoAB1-DEIS: Adams-Bashforth in rho, the ratio of noise to signal.",
    ),
    "deis_rhoab2": (
        Method(THIRD_STEPS, "noise", "rho"),
        3,
        f"{DEIS}, eq. 18",
        "rhoAB2-DEIS: Adams-Bashforth in rho; the first step is a midpoint one.",
    ),
    "deis_rhoab3": (
        Method(FOURTH_STEPS, "noise", "rho"),
        4,
        f"{DEIS}, eq. 18",
        "rhoAB3-DEIS: Adams-Bashforth in rho; the first steps are of third order.",
    ),
}

# name: method, order in law, docstring
SDE: dict[str, tuple[Method, int, str]] = {
    "sde_dpmpp_1": (
        Method((EULER,), "data"),
        1,
        "SDE-DPM-Solver++(1): x0 held over a step, all else exact; at eta=1 the ancestral step.",
    ),
    "sde_dpmpp_3m": (
        Method((EULER, AB(2), AB(3)), "data"),
        2,
        "SDE-DPM-Solver++(3M): x0 is the parabola through the last three values.\n\nOf order 2 in "
        "law: values at the times of the grid say nothing of the noise within the step. So the "
        "first step is Euler's, which at eta=0 caps the order at 2; dpmpp_3m has order 3 there.",
    ),
    "sde_dpmpp_2s": (
        Method((SRA,), "data"),
        2,
        "Two-stage SDE-DPM-Solver++: x0 a line through 0 and 3/4 of the step.\n\nThe noise of the "
        "stage is the path's own, given its increment and area over the step: the exponential "
        "form of SRA1 (Roessler 2010), in the spirit of SEEDS-2 (arXiv:2305.14267).",
    ),
}

Solver = Literal["midpoint", "exact"]


def _ode(name: str, method: Method, order: int, cite: str, doc: str) -> Entry:
    def sample(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        return integrate(process, score, x, ts, noise, method)

    sample.__doc__ = doc
    return _register(name, sample, method, order, cite, stochastic=False)


def _sde(name: str, method: Method, order: int, doc: str) -> Entry:
    def sample(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, eta: float = 1.0
    ) -> Iterator[Tensor]:
        return integrate(process, score, x, ts, noise, method, eta)

    sample.__doc__ = f"{doc}\n\n{ETA}"
    return _register(name, sample, method, order, f"{SOLVERPP}, sec. 3.4", stochastic=True)


ETA = """The reverse SDE's noise rate lam has lam^2 = eta: 1 is Anderson's SDE, 0 the probability
flow. On processes of matrices eta is 0 or 1."""


def _register(
    name: str, fn: object, method: Method, order: int, cite: str, *, stochastic: bool
) -> Entry:
    evals = len(method.steps[-1])
    strong = {"strong": 1} if stochastic else {}
    make = labcore.sampler(
        name=name,
        order=order,
        evals=evals,
        extra=len(method.steps[0]) - evals,
        stochastic=stochastic,
        cite=cite,
        **strong,
    )
    return make(fn)


@labcore.sampler(order=2, evals=1, stochastic=False, cite=f"{SOLVERPP}, algorithm 2")
def dpmpp_2m(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    solver: Solver = "midpoint",
) -> Iterator[Tensor]:
    """DPM-Solver++(2M): x0 on the line through the last two values.

    ``solver`` "midpoint", the paper's, holds x0 at its value halfway in log-SNR; "exact"
    integrates the line (diffusers calls it heun).
    """
    return integrate(process, score, x, ts, noise, Method(SECOND, "data", rule=solver))


@labcore.sampler(
    order=2, strong=1, evals=1, stochastic=True, cite=f"{SOLVERPP}, sec. 3.4 and appendix B"
)
def sde_dpmpp_2m(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    solver: Solver = "midpoint",
) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M): x0 on the line through the last two values, with exact noise.

    The reverse SDE's noise rate lam has lam^2 = eta; ``solver`` as for dpmpp_2m, which eta=0 is.
    On processes of matrices eta is 0 or 1.
    """
    return integrate(process, score, x, ts, noise, Method(SECOND, "data", rule=solver), eta)


EXPONENTIAL: list[Entry] = [
    *(_ode(name, *row) for name, row in ODE.items()),
    dpmpp_2m,
    *(_sde(name, *row) for name, row in SDE.items()),
    sde_dpmpp_2m,
]

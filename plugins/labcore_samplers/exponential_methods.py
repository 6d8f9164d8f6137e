"""The table of exponential integrators: one line a method, read by exponential.py.

All are exact for a single datum, at any step. Orders are those of the law: measured, on steps of
uneven lengths, by the exact audit and on a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_samplers.exponential import AB, EULER, MIDPOINT, SRA, THIRD, THIRD_ORDER, integrate
from labcore_samplers.exponential_plan import Method, Stage, Step
from labcore_samplers.exponential_weights import Form, Variable

FIRST = (EULER,)
SECOND = (EULER, AB(2))
THIRD_STEPS = (MIDPOINT, AB(2), AB(3))
GRID = (EULER, AB(2), AB(3))
FOURTH_STEPS = (THIRD_ORDER, (Stage(1, (0, -THIRD, -1)),), AB(3), AB(4))

SOLVER = "Lu et al. (2022) arXiv:2206.00927"
SOLVERPP = "Lu et al. (2022) arXiv:2211.01095"
DEIS = "Zhang & Chen (2023) arXiv:2204.13902"
HALVED = "Several libraries halve its second difference, which makes the method second order."
WITHIN = """Of order 2 in law: values at the times of the grid say nothing of the noise within the
step. So the first step is Euler's, which at eta=0 caps the order at 2; dpmpp_3m has order 3."""
AREAS = """The noise of the stage is the path's own, given its increment and area over the step:
the exponential form of SRA1 (Roessler 2010), in the spirit of SEEDS-2 (arXiv:2305.14267)."""

Row = tuple[int, tuple[Step, ...], str, str]

# name: order, steps, source, first line of the docstring
NOISE: dict[str, Row] = {
    "dpm_solver_1": (
        1,
        FIRST,
        "eq. 3.7",
        "DPM-Solver-1: eps held, which is DDIM's step at eta=0.",
    ),
    "dpm_solver_2": (2, (MIDPOINT,), "algorithm 1", "DPM-Solver-2: eps of half the step, held."),
    "dpm_solver_3": (3, (THIRD_ORDER,), "algorithm 2", "DPM-Solver-3: eps through 0 and 2/3."),
    "dpm_solver_2m": (2, SECOND, f"steps of {DEIS}", "Two-step Adams-Bashforth on eps."),
    "dpm_solver_3m": (3, THIRD_STEPS, f"steps of {DEIS}", "Three-step Adams-Bashforth on eps."),
}
DATA: dict[str, Row] = {
    "dpmpp_1m": (1, FIRST, "eq. 9", "DPM-Solver++(1M): x0 held, which is DDIM's step at eta=0."),
    "dpmpp_2s": (2, (MIDPOINT,), "algorithm 1", "DPM-Solver++(2S): x0 of half the step, held."),
    "dpmpp_3s": (3, (THIRD_ORDER,), "appendix B", "DPM-Solver++(3S): x0 through 0 and 2/3."),
    "dpmpp_3m": (3, THIRD_STEPS, "appendix B", f"DPM-Solver++(3M): x0 on a parabola.\n\n{HALVED}"),
}
TIME: dict[str, Row] = {
    "deis_tab1": (2, SECOND, "eq. 15", "tAB1-DEIS: eps is a line in t."),
    "deis_tab2": (3, THIRD_STEPS, "eq. 15", "tAB2-DEIS: eps is a parabola in t."),
    "deis_tab3": (4, FOURTH_STEPS, "eq. 15", "tAB3-DEIS: eps is a cubic in t."),
}
RHO: dict[str, Row] = {
    "deis_rhoab1": (
        2,
        SECOND,
        "eq. 18",
        "rhoAB1-DEIS: eps is a line in the ratio of noise to signal.",
    ),
    "deis_rhoab2": (3, THIRD_STEPS, "eq. 18", "rhoAB2-DEIS: eps is a parabola in that ratio."),
    "deis_rhoab3": (4, FOURTH_STEPS, "eq. 18", "rhoAB3-DEIS: eps is a cubic in that ratio."),
}
SDE: dict[str, Row] = {
    "sde_dpmpp_1": (1, FIRST, "sec. 3.4", "SDE-DPM-Solver++(1): x0 held; ancestral at eta=1."),
    "sde_dpmpp_3m": (2, GRID, "sec. 3.4", f"SDE-DPM-Solver++(3M): x0 on a parabola.\n\n{WITHIN}"),
    "sde_dpmpp_2s": (
        2,
        (SRA,),
        "sec. 3.4",
        f"SDE-DPM-Solver++(2S): x0 through 0, 3/4.\n\n{AREAS}",
    ),
}
ETA = "The reverse SDE's noise rate lam has lam^2 = ``eta``: 1 is Anderson's SDE, 0 the flow."

Solver = Literal["midpoint", "exact"]
Rate = Annotated[float, Ge(0)]


def entries(table: dict[str, Row], source: str, form: Form, variable: Variable) -> list[Entry]:
    """A table's methods on the probability flow."""

    def make(name: str, order: int, steps: tuple[Step, ...], where: str, doc: str) -> Entry:
        def sample(
            process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
        ) -> Iterator[Tensor]:
            return integrate(process, score, x, ts, noise, Method(steps, form, variable))

        sample.__doc__ = doc
        return register(sample, steps, name=name, order=order, cite=f"{source}, {where}")

    return [make(name, *row) for name, row in table.items()]


def noisy(table: dict[str, Row], source: str) -> list[Entry]:
    """A table's methods on the reverse SDE."""

    def make(name: str, order: int, steps: tuple[Step, ...], where: str, doc: str) -> Entry:
        def sample(
            process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, eta: Rate = 1.0
        ) -> Iterator[Tensor]:
            return integrate(process, score, x, ts, noise, Method(steps, "data"), eta)

        sample.__doc__ = f"{doc}\n\n{ETA}"
        traits = {"name": name, "order": order, "strong": 1}
        return register(sample, steps, stochastic=True, cite=f"{source}, {where}", **traits)

    return [make(name, *row) for name, row in table.items()]


def register(
    fn: object, steps: tuple[Step, ...], *, stochastic: bool = False, **traits: Any
) -> Entry:
    """The entry, with the evaluations that its steps take."""
    evals = len(steps[-1])
    made: Entry = labcore.sampler(
        evals=evals, extra=len(steps[0]) - evals, stochastic=stochastic, **traits
    )(fn)
    return made


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
    eta: Rate = 1.0,
    solver: Solver = "midpoint",
) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M): x0 on the line through the last two values, with exact noise.

    The reverse SDE's noise rate lam has lam^2 = ``eta``: 1 is Anderson's SDE, 0 the flow, which
    makes it dpmpp_2m; ``solver`` as there.
    """
    return integrate(process, score, x, ts, noise, Method(SECOND, "data", rule=solver), eta)


EXPONENTIAL: list[Entry] = [
    *entries(NOISE, SOLVER, "noise", "log_snr"),
    *entries(DATA, SOLVERPP, "data", "log_snr"),
    *entries(TIME, DEIS, "noise", "time"),
    *entries(RHO, DEIS, "noise", "rho"),
    *noisy(SDE, SOLVERPP),
    dpmpp_2m,
    sde_dpmpp_2m,
]

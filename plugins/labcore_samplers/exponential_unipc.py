"""UniPC: a multistep predictor, whose score call also corrects the state it was called at.

The predictor of order p passes through the values at 0, -1, .. 1-p. The score at the state so
predicted is at once the next step's value at 0 and a value at 1 of this step: the corrector passes
through 0, 1, -1, .. 1-p, for order p + 1 at one call a step. What is yielded, and so the last
state, is the predicted one.

On lines, the paper takes B(h)/2 for the integral of their slope: B1 = h, B2 = e^h - 1. From
parabolas on its system has one solution whatever B is, the exact integral.
Source: Zhao, Bai, Rao, Zhou & Lu (2023) arXiv:2302.04867.
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
    THIRD_ORDER,
    Method,
    Stage,
    Step,
    corrector,
    integrate,
)
from labcore_samplers.exponential_weights import Form, Rule

Variant = Literal["bh1", "bh2"]
LINE: dict[Variant, Rule] = {"bh1": "end", "bh2": "midpoint"}

# order in law, steps, the correction before each of them, docstring
TABLE: dict[str, tuple[int, tuple[Step, ...], tuple[Stage | None, ...], str]] = {
    "unipc_1": (
        2,
        (EULER, EULER),
        (None, corrector(1)),
        "UniPC-1: DDIM's step, corrected to order 2 on the line through its two ends.",
    ),
    "unipc_2": (
        3,
        (EULER, AB(2), AB(2)),
        (None, corrector(1), corrector(2)),
        "UniPC-2: the two-step predictor, corrected to order 3; the first step is UniPC-1's.",
    ),
    "unipc_3": (
        4,
        (THIRD_ORDER, AB(2), AB(3), AB(3)),
        (None, None, corrector(2), corrector(3)),
        "UniPC-3: the three-step predictor, corrected to order 4.\n\nThe first step is "
        "DPM-Solver-3's (two more calls), the second UniPC-2's. The paper starts with UniPC-1, "
        "which takes no more calls and caps the order at 3.",
    ),
}


def _unipc(
    name: str,
    order: int,
    steps: tuple[Step, ...],
    corrections: tuple[Stage | None, ...],
    doc: str,
) -> Entry:
    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        variant: Variant = "bh2",
        form: Form = "data",
    ) -> Iterator[Tensor]:
        method = Method(steps, form, rule=LINE[variant], corrections=corrections)
        return integrate(process, score, x, ts, noise, method)

    sample.__doc__ = f"{doc}\n\n``form`` says what is interpolated: the clean point or eps."
    make = labcore.sampler(
        name=name,
        order=order,
        evals=1,
        extra=len(steps[0]) - 1,
        stochastic=False,
        cite="Zhao et al. (2023) arXiv:2302.04867, algorithms 1 and 2",
    )
    return make(sample)


UNIPC: list[Entry] = [_unipc(name, *row) for name, row in TABLE.items()]
unipc_1, unipc_2, unipc_3 = UNIPC

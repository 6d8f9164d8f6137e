"""What a sampler costs and that it works at every number of steps."""

from __future__ import annotations

import torch

from labcore.certificates import Check
from labcore.scores import counted
from labcore.testing.case import Broken, Case, passed, skipped

STEPS = (1, 2, 5, 10, 100, 1000)


def nfe(case: Case) -> Check:
    """The metered NFE is evals a step plus extra, at every step count and precision."""
    traits = case.entry.traits
    evals = case.entry.evals(case.options)
    if not evals:
        return skipped("no fixed cost is declared")
    for dtype in (torch.float32, torch.float64):
        for steps in STEPS:
            score = counted(case.score, 3)
            case.run(steps, dtype=dtype, score=score)
            declared = evals * steps + traits.get("extra", 0)
            if score.nfe != declared:
                raise Broken(
                    f"{score.nfe:g} score evaluations in {steps} steps ({dtype}), declared "
                    f"{declared}",
                    "correct evals= and extra=",
                )
    return passed(
        f"{evals} a step + {traits.get('extra', 0)}, at {STEPS} steps, float32 and float64"
    )

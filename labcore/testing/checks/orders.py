"""The orders a sampler declares, measured."""

from __future__ import annotations

from labcore.certificates import Check
from labcore.testing.audit import strong_order, weak_order
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.models import quadratic, uneven


def order(case: Case, within: float = 0.15) -> Check:
    """The order in law, by the exact audit on steps of uneven lengths, is the declared one."""
    declared = case.entry.traits.get("order")
    if declared is None:
        return skipped("no order is declared")
    data, event, options = case.data, case.data_event, case.options
    for steps in ((128, 256, 512), (512, 1024)):  # finer where the first are not yet asymptotic
        measured = weak_order(
            case.entry, case.process, uneven, data, steps=steps, event=event, options=options
        )
        if abs(measured.slope - declared) <= within:
            return passed(f"{measured.slope:.2f}, declared {declared}")
    raise Broken(
        f"its order in law is {measured.slope:.2f} on Gaussian data, declared {declared}",
        "look for a wrong coefficient, or declare what it reaches",
    )


def strong(case: Case, within: float = 0.15) -> Check:
    """The order on one Brownian path is the declared one, or higher: an affine score spares some
    terms (SRA1 is of strong order 1.5, and of 2 on Gaussian data)."""
    declared = case.entry.traits.get("strong")
    if declared is None:
        return skipped("no strong order is declared")
    measured = strong_order(
        case.entry, case.process, case.score, quadratic, case.event, options=case.options
    )
    if measured.slope < declared - within:
        raise Broken(
            f"its order on one path is {measured.slope:.2f}, declared strong={declared}",
            "ask noise for the step taken, or declare what it reaches",
        )
    return passed(f"{measured.slope:.2f}, declared {declared}")

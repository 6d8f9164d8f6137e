"""The battery, one file an idea: each check is a function of a Case that returns a Check.

A check passes by ``passed(...)``, has nothing to say by ``skipped(...)``, and fails by raising
``Broken(found, remedy)`` or by returning a failed Check with its figures and plots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from labcore.certificates import Check
from labcore.testing.case import Case
from labcore.testing.checks import (
    consistency,
    contract,
    cost,
    metamorphic,
    orders,
    precision,
    stability,
    steps,
)

CHECKS: Mapping[str, Callable[[Case], Check]] = MappingProxyType(
    {
        "pure": contract.pure,
        "yields": contract.yields,
        "times": contract.times,
        "repeatable": contract.repeatable,
        "rows": contract.rows,
        "grid": contract.grid,
        "nfe": cost.nfe,
        "order": orders.order,
        "strong": orders.strong,
        "nonlinear": orders.nonlinear,
        "consistency": consistency.consistency,
        "steps": steps.steps,
        "precision": precision.precision,
        "variables": metamorphic.variables,
        "rotation": metamorphic.rotation,
        "scaling": metamorphic.scaling,
        "permutation": metamorphic.permutation,
        "stability": stability.stability,
    }
)
"""Every check by its name, in the order of a certificate's page."""

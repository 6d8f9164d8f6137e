"""The probability-flow ODE dx = [ A x - G G^T s(x, t)/2 ] dt, integrated by torchdiffeq."""

import labcore
from labcore_torchdiffeq import adaptive, fixed
from labcore_torchdiffeq.adams import explicit_adams, implicit_adams
from labcore_torchdiffeq.metric import flow_nll


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    return [
        *(fixed.entry(name, method) for name, method in fixed.METHODS.items()),
        explicit_adams,
        implicit_adams,
        *(adaptive.entry(name, *about) for name, about in adaptive.METHODS.items()),
    ]


@labcore.hookimpl
def register_metrics() -> list[labcore.Entry]:
    return [flow_nll]

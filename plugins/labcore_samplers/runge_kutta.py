"""Explicit Runge-Kutta methods on the probability-flow ODE v(t, x) = A x - G G^T s(x,t) / 2.

k_i = v(t + c_i h, x_t + h sum_j a_ij k_j),    x_s = x_t + h sum_i b_i k_i

A method is its Butcher tableau. All stages lie within the step, so no score is asked outside the
grid. Heun's method has a file of its own, which saves the products that cancel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_samplers.slopes import Slope, slopes


@dataclass(frozen=True)
class Tableau:
    """c, the strictly lower rows of a, and b; ``lower`` is the b of an embedded method, if any."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    lower: tuple[float, ...] = ()


HEUN = Tableau(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2))
RK4 = Tableau(
    4, (0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)
METHODS = {
    "midpoint": (
        Tableau(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
        "Runge (1895) Math. Ann. 46",
        "Explicit midpoint: a step with the slope half way.",
    ),
    "ralston": (
        Tableau(2, (0, 2 / 3), ((), (2 / 3,)), (1 / 4, 3 / 4)),
        "Ralston (1962) Math. Comp. 16",
        "Ralston's method of order 2, of least bound on the local error.",
    ),
    "ralston3": (
        Tableau(3, (0, 1 / 2, 3 / 4), ((), (1 / 2,), (0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)),
        "Ralston (1962) Math. Comp. 16",
        "Ralston's method of order 3.",
    ),
    "rk4": (RK4, "Kutta (1901) Z. Math. Phys. 46", "The classical Runge-Kutta method."),
}


def combine(x: Tensor, h: float, weights: Sequence[float], ks: Sequence[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, a new tensor where any weight is not zero."""
    terms = [(h * w, k) for w, k in zip(weights, ks, strict=False) if w]
    if not terms:
        return x
    y = torch.add(x, terms[0][1], alpha=terms[0][0])
    for w, k in terms[1:]:
        y.add_(k, alpha=w)
    return y


def stage_times(ts: Tensor, c: Sequence[float]) -> Tensor:
    """t + c_i h for every step, (N, stages), within [s, t] in spite of rounding."""
    t, s = ts[:-1, None], ts[1:, None]
    share = torch.tensor(c, dtype=ts.dtype, device=ts.device)
    return torch.maximum(torch.where(share == 1, s, t + share * (s - t)), s)


def stages(
    table: Tableau, fields: Sequence[Slope], score: Score, x: Tensor, h: float
) -> list[Tensor]:
    """k_1 .. k_m of one step."""
    ks: list[Tensor] = []
    for field, row in zip(fields, table.a, strict=True):
        ks.append(field(score, combine(x, h, row, ks)))
    return ks


def runge_kutta(
    table: Tableau, process: Process, score: Score, x: Tensor, ts: Tensor
) -> Iterator[Tensor]:
    """x (B, *event) at ts[1:] by the method of a tableau."""
    m = len(table.c)
    fields = slopes(process, stage_times(ts, table.c).flatten(), x)
    for i, h in enumerate(ts.diff().tolist()):
        ks = stages(table, fields[m * i : m * i + m], score, x, h)
        x = combine(x, h, table.b, ks)
        yield x


def entry(name: str, table: Tableau, cite: str, doc: str) -> Entry:
    """The sampler of one tableau."""

    def integrate(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        return runge_kutta(table, process, score, x, ts)

    integrate.__doc__ = doc
    made: Entry = labcore.sampler(
        name=name, order=table.order, evals=len(table.c), stochastic=False, cite=cite
    )(integrate)
    return made


midpoint, ralston, ralston3, rk4 = [entry(name, *method) for name, method in METHODS.items()]

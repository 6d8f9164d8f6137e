"""Multistep methods on eps with the weights of equal steps, as published: iPNDM, PLMS and PNDM.

The transfer part is DDIM's, for any operators (R is gDDIM's, R R^T = Sigma, eps = -R^T s):

    x_s = Phi(t,s)^-1 x_t + [R_s - Phi(t,s)^-1 R_t] e,    e = sum_j w_j eps_j

with Adams-Bashforth's weights for equal steps, whatever the grid, and no account of how DDIM
weighs the step: order 2 on times in arithmetic progression, 1 on any other grid. Which is
what they declare; Adams-Bashforth proper is lms2 .. lms4.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

import labcore
from labcore import Noise, Process, Score
from labcore_samplers.edm import noise_roots, pick

EQUAL = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams-Bashforth's weights for equal steps, latest first."""

PNDM = "Liu, Ren, Lin, Zhao (2022) arXiv:2202.09778"


class Transfer:
    """DDIM's transfer from times[a] to times[b] for pairs (a, b), and eps at the times (n,).

    The weight of a pair multiplies its e.
    """

    def __init__(
        self, process: Process, times: Tensor, x: Tensor, pairs: dict[tuple[int, int], float]
    ) -> None:
        a, b = torch.tensor(list(pairs)).T
        weight = torch.tensor(list(pairs.values()), dtype=torch.float64)
        (R,), back = noise_roots(process, times), process.Phi(times[a], times[b]).inv
        D = (pick(R, b) - back @ pick(R, a)) * weight
        self._times, self._eps = times.unbind(), (-R.T).per_step(x)
        moves = zip(back.per_step(x), D.terms(x), strict=True)
        self._moves = dict(zip(pairs, moves, strict=True))

    def eps(self, a: int, score: Score, x: Tensor) -> Tensor:
        out: Tensor = self._eps[a] @ score(x, self._times[a])
        return out

    def __call__(self, a: int, b: int, x: Tensor, e: Tensor) -> Tensor:
        back, D = self._moves[a, b]
        out: Tensor = D.accumulate(back @ x, e)
        return out


def on_grid(process: Process, ts: Tensor, x: Tensor, k: int) -> Transfer:
    """From each time to the next, for what ``blend`` makes of up to k values."""
    pairs = pairwise(range(len(ts)))
    return Transfer(process, ts, x, {p: EQUAL[min(p[0] + 1, k) - 1][0] for p in pairs})


def blend(past: Sequence[Tensor]) -> Tensor:
    """The weighted sum of values, latest first, over the weight of the latest."""
    first, *others = EQUAL[len(past) - 1]
    if not others:
        return past[0]
    e = torch.add(past[0], past[1], alpha=others[0] / first)
    for weight, old in zip(others[1:], past[2:], strict=True):
        e.add_(old, alpha=weight / first)
    return e


@labcore.sampler(
    order=1,
    evals=1,
    stochastic=False,
    cite=f"Zhang, Chen (2023) arXiv:2204.13902, appendix; {PNDM}, eq. 12",
)
def ipndm(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    k: Annotated[int, Ge(1), Le(4)] = 4,
) -> Iterator[Tensor]:
    """iPNDM: k values of eps, started through 1, 2, .. of them; DDIM at k=1."""
    transfer, past = on_grid(process, ts, x, k), list[Tensor]()
    for i in range(len(ts) - 1):
        past = [transfer.eps(i, score, x), *past][:k]
        x = transfer(i, i + 1, x, blend(past))
        yield x


@labcore.sampler(order=1, evals=1, extra=1, stochastic=False, cite=f"{PNDM}, S-PNDM's start")
def plms(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """PLMS of four values of eps, started by averaging eps at both ends of the first step."""
    transfer, past = on_grid(process, ts, x, 4), list[Tensor]()
    for i in range(len(ts) - 1):
        past = [transfer.eps(i, score, x), *past][:4]
        e = blend(past)
        if i == 0:
            e = (e + transfer.eps(1, score, transfer(0, 1, x, e))) / 2
        x = transfer(i, i + 1, x, e)
        yield x


@labcore.sampler(
    order=1,
    nfe_of=lambda steps, **_: steps + 3 * min(3, steps),
    stochastic=False,
    cite=f"{PNDM}, F-PNDM",
)
def pndm(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """PNDM: three pseudo Runge-Kutta steps of four evaluations, then four values of eps."""
    first = min(3, len(ts) - 1)
    halves = (ts[:first] + ts[1 : first + 1]) / 2
    times = torch.cat([torch.stack([ts[:first], halves], 1).flatten(), ts[first:]])
    halfway = [(2 * i, 2 * i + 1) for i in range(first)]
    whole = [(2 * i, 2 * i + 2) for i in range(first)]
    rest = pairwise(range(2 * first, len(times)))
    pairs = dict.fromkeys([*halfway, *whole], 1.0) | dict.fromkeys(rest, EQUAL[3][0])
    transfer, past = Transfer(process, times, x, pairs), list[Tensor]()
    for a, b in whole:
        e, x = pseudo_runge_kutta(transfer, a, b, score, x)
        past = [e, *past]
        yield x
    for i in range(2 * first, len(times) - 1):
        past = [transfer.eps(i, score, x), *past][:4]
        x = transfer(i, i + 1, x, blend(past))
        yield x


def pseudo_runge_kutta(
    transfer: Transfer, a: int, b: int, score: Score, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The classical Runge-Kutta method with DDIM's transfer in the place of each sum.

    From times[a] over the middle, times[a + 1], to times[b]; the first eps comes back as well.
    """
    e1 = transfer.eps(a, score, x)
    e2 = transfer.eps(a + 1, score, transfer(a, a + 1, x, e1))
    e3 = transfer.eps(a + 1, score, transfer(a, a + 1, x, e2))
    e4 = transfer.eps(b, score, transfer(a, b, x, e3))
    e = torch.add(e1, e2, alpha=2).add_(e3, alpha=2).add_(e4).div_(6)
    return e1, transfer(a, b, x, e)

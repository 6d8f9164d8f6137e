"""Markov chains on p_u, and the two ways in which a sampler uses one.

A kernel belongs to one level, a time u: from x it makes move after move, each with draws of its
own, and leaves p_u alone, exactly or nearly. Where it is used is not its business:

    stay       every move at u = t_eps; the other times of the grid only count steps
    descend    x is taken from t to s, then ``inner`` moves are made on p_s, all down the grid

Taken by Phi(s,t) that is annealing, by a step of another sampler it is predictor-corrector.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from operator import matmul
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from labcore import CountedScore, Noise, Process

Size = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

Draw = Callable[..., Tensor]
"""() or (factor) or (factor, base) -> the normals of the next move, (B, *event), times the factor,
added to the base; a new tensor."""

Draws = Callable[[str], Draw]
"""The normals of a chain by the name of their stream."""

Tell = Callable[[str, Tensor], None]
"""What a move says of itself: one number a row, (B,), by name."""

Kernel = Callable[[CountedScore, Tensor, Draws, Tell], Iterator[Tensor]]
"""(score, x, draws, tell) -> x after each move, without end."""

Arrive = Callable[[Tensor], Tensor]
"""x at the level before -> x at this one."""

Chain = Generator[Tensor, None, dict[str, Tensor]]
"""States at ts[1:], then the means over all moves of what was said, row by row."""


class Means:
    """Means over moves of what they say, row by row."""

    def __init__(self) -> None:
        self._said = dict[str, tuple[int, Tensor]]()

    def tell(self, name: str, value: Tensor) -> None:
        moves, total = self._said.get(name, (0, torch.zeros(())))
        self._said[name] = moves + 1, total + value.double()

    def told(self) -> dict[str, Tensor]:
        return {name: total / moves for name, (moves, total) in self._said.items()}


def stay(
    kernel: Kernel, score: CountedScore, x: Tensor, ts: Tensor, noise: Noise, inner: int
) -> Chain:
    """One chain, ``inner`` moves for each step of the grid."""
    means, moves = Means(), inner * (len(ts) - 1)
    states = kernel(score, x, drawn(noise, ts, inner), means.tell)
    yield from islice(states, inner - 1, moves, inner)
    return means.told()


def descend(
    arrivals: Sequence[Arrive],
    kernels: Sequence[Kernel],
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    inner: int,
) -> Chain:
    """A chain of ``inner`` moves at each of ts[1:], from where x arrives there."""
    means, draws = Means(), drawn(noise, ts, inner)
    for arrive, kernel in zip(arrivals, kernels, strict=True):
        x = arrive(x)
        for moved in islice(kernel(score, x, draws, means.tell), inner):
            x = moved
        yield x
    return means.told()


def carried(process: Process, ts: Tensor, x: Tensor) -> list[Arrive]:
    """x <- Phi(s,t) x: chains on processes of one SNR are then one chain."""
    return [partial(matmul, Phi) for Phi in process.Phi(ts[1:], ts[:-1]).per_step(x)]


def drawn(noise: Noise, ts: Tensor, inner: int) -> Draws:
    """The normals of ``inner`` moves a step, each stream made as it is first asked for."""
    return cache(lambda stream: noise.white(ts, inner, stream))

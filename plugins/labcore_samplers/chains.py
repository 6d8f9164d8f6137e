"""Markov chains on p_u, and the two ways in which a sampler uses one.

A kernel belongs to one level, a time u: from x it makes move after move, each with draws of its
own, and leaves p_u alone, exactly or nearly. Where it is used is not its business:

    stay       every move at u = t_eps; the other times of the grid only count steps
    descend    x is taken from t to s, then ``inner`` moves are made on p_s, all down the grid

Taken by Phi(s,t) that is annealing, by a step of another sampler it is predictor-corrector.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from operator import matmul
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from labcore import CountedScore, LinOp, Noise, Process

Size = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

Draw = Callable[..., Tensor]
"""The normals of one move, (B, *event), by the name of their stream; times a ``factor``."""

Told = Mapping[str, Tensor]
"""What a move says of itself: one number a row, (B,), by name."""

Kernel = Callable[[CountedScore, Tensor, Iterable[Draw]], Iterator[tuple[Tensor, Told]]]
"""(score, x, draws) -> x after each move, and what the move says."""

Arrive = Callable[[Tensor], Tensor]
"""x at the level before -> x at this one."""

Chain = Generator[Tensor, None, dict[str, Tensor]]
"""States at ts[1:], then the means over all moves of what was said, row by row."""


class Means:
    """Means over moves, row by row."""

    def __init__(self) -> None:
        self._moves, self._sums = 0, dict[str, Tensor]()

    def last(self, x: Tensor, moves: Iterable[tuple[Tensor, Told]]) -> Tensor:
        """x after the moves, what they say kept."""
        for after, told in moves:
            x, self._moves = after, self._moves + 1
            for name, value in told.items():
                self._sums[name] = self._sums.get(name, 0) + value.double()
        return x

    def told(self) -> dict[str, Tensor]:
        return {name: total / self._moves for name, total in self._sums.items()}


def stay(
    kernel: Kernel, score: CountedScore, x: Tensor, ts: Tensor, noise: Noise, inner: int
) -> Chain:
    """One chain, ``inner`` moves for each step of the grid."""
    means = Means()
    moves = kernel(score, x, draws(noise, pairwise(ts.tolist()), inner))
    for _ in range(len(ts) - 1):
        x = means.last(x, islice(moves, inner))
        yield x
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
    means = Means()
    for step, arrive, kernel in zip(pairwise(ts.tolist()), arrivals, kernels, strict=True):
        x = arrive(x)
        x = means.last(x, kernel(score, x, draws(noise, [step], inner)))
        yield x
    return means.told()


def carried(process: Process, ts: Tensor, x: Tensor) -> list[Arrive]:
    """x <- Phi(s,t) x: chains on processes of one SNR are then one chain."""
    return [partial(matmul, Phi) for Phi in process.Phi(ts[1:], ts[:-1]).per_step(x)]


def draws(noise: Noise, steps: Iterable[tuple[float, float]], inner: int) -> Iterator[Draw]:
    """``inner`` moves for each step (t, s), which are numbered there."""
    for t, s in steps:
        for i in range(inner):
            yield partial(noise.white, t, s, move=i)


def move_kicks(R: LinOp, x: Tensor) -> list[Callable[[Draw, str], Tensor]]:
    """R z of a move at each time, from its draw and the name of its stream: a new tensor."""
    factors = R.factors
    if factors is not None:
        return [partial(_scaled, factor) for factor in factors]
    return [partial(_kicked, r) for r in R.per_step(x)]


def _scaled(factor: float, draw: Draw, stream: str) -> Tensor:
    return draw(stream, factor=factor)


def _kicked(r: Any, draw: Draw, stream: str) -> Tensor:
    out: Tensor = r @ draw(stream)
    return out

"""Normals of a batch of seeds: one generator a seed and label, however many seeds there are."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import torch
from torch import Generator, Tensor

from labcore.bridge import Normals
from labcore.errors import LabError, SamplerError
from labcore.seeds import generator

PARTS = ("increment", "area")

White = Callable[..., Tensor]
"""() or (factor) or (factor, base) -> the next normals, (B, *event), times the factor, added to
the base; a new tensor."""


class Source:
    """Normals for a batch of seeds: drawn in float32, one generator a seed and label."""

    def __init__(
        self,
        seeds: Sequence[int],
        n: int,
        event: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        if n < 1 or not seeds:
            raise LabError(f"noise: {n} samples for {len(seeds)} seeds; ask for 1 or more of each")
        self.seeds, self._rows = tuple(seeds), n
        self.dtype, self.device = dtype, torch.device(device)
        self._working = torch.promote_types(dtype, torch.float32)
        self._single = self._working is torch.float32
        shape = (len(self.seeds) * n, *event)
        self.like = torch.empty(shape, dtype=torch.float32, device=self.device)
        self.quick = dtype is torch.float32 and len(self.seeds) == 1

    def generators(self, *label: object) -> list[Generator]:
        return [generator(seed, *label, device=self.device) for seed in self.seeds]

    def normal(self, generators: Sequence[Generator], std: float = 1.0) -> Tensor:
        """N(0, std^2), scaled as it is drawn where that rounds no more than what is done next."""
        z, size = torch.empty_like(self.like), std if self._single else 1.0
        if len(generators) == 1:
            z.normal_(0.0, size, generator=generators[0])
        else:
            for rows, g in zip(z.split(self._rows), generators, strict=True):
                rows.normal_(0.0, size, generator=g)
        return z if self._single else z.to(self._working).mul_(std)

    def cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is self._working else x.to(self.dtype)

    def cast_all(self, xs: Iterator[Tensor]) -> Iterator[Tensor]:
        return xs if self.dtype is self._working else map(self.cast, xs)

    def out(self, node: Normals) -> Normals:
        return tuple(map(self.cast, node))


def drawn(source: Source, stream: str) -> Callable[[int, float], Tensor]:
    """The next normals of a depth times std, for a path without areas."""
    known: dict[int, list[Generator]] = {}
    quick, like, empty_like = source.quick, source.like, torch.empty_like

    def fresh(depth: int, std: float) -> Tensor:
        generators = known.get(depth)
        if generators is None:
            generators = known[depth] = source.generators(stream, PARTS[0], depth)
        if quick:  # what ``normal`` would do, for a loop where every call counts
            return empty_like(like).normal_(0.0, std, generator=generators[0])
        return source.normal(generators, std)

    return fresh


def with_areas(source: Source, stream: str) -> Callable[[int], Normals]:
    """The next normals of a depth, for a path with areas."""
    known: dict[int, list[list[Generator]]] = {}

    def fresh(depth: int) -> Normals:
        if depth not in known:
            known[depth] = [source.generators(stream, part, depth) for part in PARTS]
        return tuple(map(source.normal, known[depth]))

    return fresh


def white(source: Source, stream: str, moves: int, steps: int) -> White:
    """The normals of ``moves`` moves a step, one generator a seed and number within the step."""
    of_moves = [source.generators("white", stream, i) for i in range(moves)]
    turns, quick = islice(cycle(of_moves), moves * steps), source.quick
    like, empty_like = source.like, torch.empty_like
    spent = empty_like(like)  # for draws that are added to something at once

    def next_one(factor: float = 1.0, base: Tensor | None = None) -> Tensor:
        for generators in turns:
            try:
                if not quick:
                    z = source.cast(source.normal(generators, factor))
                elif base is None:  # as in ``drawn``
                    return empty_like(like).normal_(0.0, factor, generator=generators[0])
                else:
                    return base + spent.normal_(0.0, factor, generator=generators[0])
            except RuntimeError:  # no standard deviation: NaN, or below zero
                z = factor * source.cast(source.normal(generators))
            return z if base is None else base + z
        raise exhausted(stream, moves)

    return next_one


def exhausted(stream: str, moves: int) -> SamplerError:
    return SamplerError(
        f"noise: the {moves} move(s) a step of stream {stream!r} have been drawn; ask for as many "
        "as the chain makes"
    )

"""What no sampler can avoid: its calls and fresh normals, in turn as a run has them.

Timed apart they cost less than in turn, since each has the caches to itself.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Calls = Callable[[], Iterator[object]]
"""One after another, as often as a run of a sampler has them; what they return is dropped."""


def floor(pieces: Mapping[str, Calls], often: Mapping[str, int]) -> Callable[[], None]:
    """Each piece as often as it says."""
    streams = {name: endless(pieces[name]) for name in often}
    order = [streams[name] for name in in_turn(often)]

    def run() -> None:
        for stream in order:
            next(stream)

    return run


def endless(calls: Calls) -> Iterator[object]:
    while True:
        yield from calls()


def in_turn(often: Mapping[str, int]) -> list[str]:
    """The names, each as often as it says and evenly spread."""
    places = [((i + 0.5) / n, name) for name, n in often.items() for i in range(n)]
    return [name for _, name in sorted(places, key=lambda place: place[0])]


def fresh(like: Tensor) -> Calls:
    """Normals of the size of a state, in a buffer that is used again."""
    z, generator = torch.empty_like(like), torch.Generator().manual_seed(0)

    def draw() -> Iterator[object]:
        yield z.normal_(generator=generator)

    return draw

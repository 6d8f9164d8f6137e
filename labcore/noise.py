"""Where every random number of a run comes from.

A run has one Brownian motion B per seed and named stream, which moves in the direction in which
samplers integrate: u = -t, from -T up to -t_eps. Over the step from t down to s, with h = t - s,

    noise(t, s)         z = (B_{-s} - B_{-t}) / sqrt(h)
    noise.levy(t, s)    z, and the normalised space-time area k with
                        int_{-t}^{-s} (B_r - B_{-t}) dr = h^{3/2} (z/2 + k/sqrt(12))
    noise.white(ts)     a source of normals that are no path's, for moves of a chain at one time:
                        a longer chain begins with the draws of a shorter one

z and k are independent N(0, I) of shape (B, *event). B = len(seeds) n, the n rows of the first
seed first; the rows of a seed are bit-equal to those of a run with that seed alone. Times are
floats or host tensors, wherever the state lives. What is handed out may be kept; only
what ``white`` and ``scaled`` hand out may be written to.

B over the whole grid is drawn first and intervals are then split, depth first, by their actual
lengths (labcore.bridge): a step costs one draw and two additions, and O(log N) states are alive.
A factor of the increments is drawn with them (``scaled``) and costs nothing. The grid of every
second point sees the same path, to 1e-6 in float32 and 1e-13 in float64; the draws themselves are
float32 in both, so precisions can be compared on one path. Grids whose numbers of steps differ by
another factor than 2^p share the draws near the root: they are strongly correlated, not identical.
A path with areas is another path than one without (the two agree over the whole grid only).
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, reduce
from itertools import pairwise
from math import ceil, isfinite, log2, prod
from operator import gt

import torch
from torch import Tensor

from labcore.bridge import Normals, increments, join, path, split
from labcore.errors import InvalidGrid, LabError, SamplerError
from labcore.normals import PARTS, Source, White, drawn, exhausted, white, with_areas

Time = Tensor | float


class Noise(ABC):
    """The noise argument of a sampler; the module says what is handed out."""

    def __call__(self, t: Time, s: Time, stream: str = "") -> Tensor:
        """Normalised increment of B over the step from t down to s, (B, *event)."""
        return self.draw(float(t), float(s), stream, 1)[0]

    def levy(self, t: Time, s: Time, stream: str = "") -> tuple[Tensor, Tensor]:
        """Normalised increment and space-time area of B over the step from t down to s."""
        z, k = self.draw(float(t), float(s), stream, 2)
        return z, k

    def white(self, ts: Tensor, moves: int = 1, stream: str = "") -> White:
        """A source of N(0, I), as new tensors to be written to: each call hands out the next ones.

        There are ``moves`` for each step of ts, which is the whole grid, and a stream has one
        source a run; ``source(factor, base)`` is base + factor z. SamplerError where more is
        asked.
        """
        steps = ((t, s, f"{stream} {i}") for t, s in pairwise(ts.tolist()) for i in range(moves))

        def next_one(factor: float = 1.0, base: Tensor | None = None) -> Tensor:
            for t, s, name in steps:
                z = factor * self.draw(t, s, name, 1)[0]
                return z if base is None else base + z
            raise exhausted(stream, moves)

        return next_one

    def scaled(self, ts: Tensor, factors: Sequence[float]) -> Iterator[Tensor]:
        """factors[i] noise(ts[i], ts[i + 1]) for every step, as new tensors, to be written to."""
        for (t, s), factor in zip(pairwise(ts.tolist()), factors, strict=True):
            yield factor * self.draw(t, s, "", 1)[0]

    def tree(self, resolution: float) -> "Noise":
        """Another path of the same seeds, for any steps of at least ``resolution`` (see Tree)."""
        raise SamplerError("noise: it serves a fixed grid only; use a sampler with fixed steps")

    @abstractmethod
    def draw(self, t: float, s: float, stream: str, parts: int) -> Normals:
        """The increment alone (parts=1) or with the area (parts=2)."""


def brownian(
    ts: Tensor,
    event: Sequence[int],
    seeds: Sequence[int],
    n: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Noise:
    """Noise on the grid ts (N+1,), strictly decreasing: n rows of the event for each seed.

    Steps (ts[i], ts[i+1]) are asked in order; some may be left out, and the last one may be asked
    again. Raises InvalidGrid or LabError at once, SamplerError for a step that breaks this.
    """
    times = torch.as_tensor(ts).tolist()
    if len(times) < 2 or not isfinite(sum(times)):
        raise InvalidGrid(f"grid: noise needs two or more finite times, it has {times[:5]}")
    if not all(map(gt, times, times[1:])):
        raise InvalidGrid("grid: times are not strictly decreasing; order them from T to t_eps")
    return Grid(times, Source(seeds, n, event, dtype, device))


def initial(
    seeds: Sequence[int],
    n: int,
    event: Sequence[int],
    *,
    name: str = "x_T",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """N(0, I) of shape (len(seeds) n, *event) for a run's start, whatever its grid."""
    source = Source(seeds, n, event, dtype, device)
    return source.normal(source.generators("initial", name)).to(dtype)


class Grid(Noise):
    """One path a stream, on the steps of a grid."""

    def __init__(self, times: Sequence[float], source: Source) -> None:
        self._times, self._source = times, source
        self._streams: dict[str, Reading] = {}
        self._white: set[str] = set()

    @cached_property
    def _index(self) -> dict[float, int]:
        return {t: i for i, t in enumerate(self._times)}

    def _step(self, t: float, s: float) -> int:
        i = self._index.get(t, -2)
        if self._index.get(s) != i + 1:
            raise SamplerError(
                f"noise: {t} to {s} is no step of the grid; ask with ts[i], ts[i+1]"
            )
        return i

    def draw(self, t: float, s: float, stream: str, parts: int) -> Normals:
        i = self._step(t, s)
        if stream not in self._streams:
            self._streams[stream] = Reading(self._times, self._source, stream, parts)
        reading = self._streams[stream]
        if reading.parts != parts:
            raise SamplerError(
                f"noise: stream {stream!r} was asked with areas and without, which are two paths; "
                "ask levy() every time, or another stream"
            )
        if i < reading.at:
            raise SamplerError(
                f"noise: {t} to {s} lies before the last step asked; keep the draw to use it twice"
            )
        return reading.up_to(i)

    def white(self, ts: Tensor, moves: int = 1, stream: str = "") -> White:
        if ts.tolist() != self._times:
            raise SamplerError(
                "noise: moves are asked for another grid; ask with the run's own ts"
            )
        if stream in self._white:
            raise SamplerError(
                f"noise: the moves of stream {stream!r} were handed out; ask once a run, or for "
                "another stream"
            )
        self._white.add(stream)
        return white(self._source, stream, moves, len(self._times) - 1)

    def scaled(self, ts: Tensor, factors: Sequence[float]) -> Iterator[Tensor]:
        times, source = ts.tolist(), self._source
        if times != self._times or not _even(factors, len(times) - 1) or "" in self._streams:
            return super().scaled(ts, factors)
        self._streams[""] = Reading(times, source, "", 1)  # which is not read beside this one
        return source.cast_all(increments(times, drawn(source, ""), factors))

    def tree(self, resolution: float) -> "Tree":
        return Tree(self._times[0], self._times[-1], resolution, self._source)


def _even(factors: Sequence[float], n: int) -> bool:
    """Whether there are n, positive and of sizes whose quotients are far within float32."""
    known = len(factors) == n and isfinite(sum(factors))
    return known and min(factors) > max(factors) * 1e-25 > 0


class Reading:
    """A path and how far it has been read."""

    def __init__(self, times: Sequence[float], source: Source, stream: str, parts: int) -> None:
        self.parts, self.at = parts, -1
        self._now: Normals = ()
        self._rest: Iterator[Normals]
        if parts == 2:
            self._rest = map(source.out, path(times, with_areas(source, stream)))
        else:
            plain = increments(times, drawn(source, stream), [1.0] * (len(times) - 1))
            self._rest = zip(source.cast_all(plain))

    def up_to(self, i: int) -> Normals:
        while self.at < i:
            self.at, self._now = self.at + 1, next(self._rest)
        return self._now


class Tree(Noise):
    """A Brownian motion on [t_eps, T] for steps at any times, of at least ``resolution``.

    The virtual tree of Gaines and Lyons (1997): [t_eps, T] is halved down to cells of the
    resolution, and a cell is split at the very time asked for, so that increments have their exact
    law. A node's draws depend on the seed and the node (in a cell, the time) only: not on what was
    asked before. A step costs some log2((T - t_eps) / resolution) draws and keeps four states for
    each of them alive: tens of times the cost on a grid.
    """

    def __init__(self, t: float, s: float, resolution: float, source: Source) -> None:
        if not 0 < resolution <= t - s:
            raise LabError(f"noise: resolution {resolution} must be within (0, {t - s}]")
        self._lo, self._hi, self._resolution, self._source = -t, -s, resolution, source
        self._levels = ceil(log2((t - s) / resolution))
        self._known: OrderedDict[tuple[object, ...], tuple[Normals, Normals]] = OrderedDict()

    def draw(self, t: float, s: float, stream: str, parts: int) -> Normals:
        a, b = -t, -s
        if not (self._lo <= a and b <= self._hi and b - a >= self._resolution):
            raise SamplerError(
                f"noise: the tree does not serve {t} to {s}; stay within "
                f"[{-self._hi}, {-self._lo}], in steps of {self._resolution} or more"
            )
        root = self._fresh(stream, parts, "root")
        pieces = self._cover(self._lo, self._hi, a, b, (stream, parts, ""), root)
        return self._source.out(reduce(join, pieces)[1])

    def _cover(
        self, lo: float, hi: float, a: float, b: float, name: tuple[str, int, str], node: Normals
    ) -> Iterator[tuple[float, Normals]]:
        """The intervals (length, normals) of the tree that make up [a, b] within [lo, hi]."""
        if a <= lo and hi <= b:
            yield hi - lo, node
            return
        stream, parts, place = name
        mid = (lo + hi) / 2 if len(place) < self._levels else (a if a > lo else b)
        left, right = self._parts(node, (mid - lo) / (hi - lo), *name, mid)
        if a < mid:
            yield from self._cover(lo, mid, a, b, (stream, parts, place + "0"), left)
        if b > mid:
            yield from self._cover(mid, hi, a, b, (stream, parts, place + "1"), right)

    def _parts(
        self, node: Normals, ratio: float, stream: str, parts: int, place: str, mid: float
    ) -> tuple[Normals, Normals]:
        key = (stream, parts, place, mid)
        if key not in self._known:
            left, right = tuple(x.clone() for x in node), self._fresh(*key)
            split(left, right, ratio)
            self._known[key] = left, right
        self._known.move_to_end(key)
        while len(self._known) > 2 * self._levels:
            self._known.popitem(last=False)
        return self._known[key]

    def _fresh(self, stream: str, parts: int, *label: object) -> Normals:
        of = self._source
        return tuple(of.normal(of.generators("tree", stream, p, *label)) for p in PARTS[:parts])


class Recorded(Noise):
    """Hands out give(m), (B, *event), as the m-th distinct draw: the source of the exact audit.

    A draw is a (t, s, stream, part), numbered as it is first asked; levy() makes two of them.
    ``draws`` maps each to its number.
    """

    def __init__(self, give: Callable[[int], Tensor]) -> None:
        self._give = give
        self.draws: dict[tuple[float, float, str, int], int] = {}

    def draw(self, t: float, s: float, stream: str, parts: int) -> Normals:
        keys = [(t, s, stream, part) for part in range(parts)]
        return tuple(self._give(self.draws.setdefault(key, len(self.draws))) for key in keys)


def counting(
    event: Sequence[int], *, rows: int = 1, dtype: torch.dtype = torch.float64
) -> Recorded:
    """Zeros: after a run of one row, len(noise.draws) is the sampler's number M of draws."""
    return Recorded(lambda m: torch.zeros(rows, *event, dtype=dtype))


def basis(event: Sequence[int], draws: int, *, dtype: torch.dtype = torch.float64) -> Recorded:
    """Basis vectors, for a batch of 1 + d + M d rows; d = prod(event), M = draws.

    Rows 0 .. d get zeros from every draw (1 .. d carry the basis of x_T), and the d rows from
    1 + d + m d on get the basis of draw m: output minus its row 0 is the sampler's linear part.
    Raises SamplerError for a draw more than M.
    """
    d = prod(event)

    def give(m: int) -> Tensor:
        if m >= draws:
            raise SamplerError(
                f"noise: draw {m + 1} where {draws} were counted; a sampler whose draws depend on "
                "the state cannot be audited exactly"
            )
        z = torch.zeros(1 + d + draws * d, d, dtype=dtype)
        z[1 + d + m * d : 1 + d + (m + 1) * d] = torch.eye(d, dtype=dtype)
        return z.reshape(-1, *event)

    return Recorded(give)


def replay(values: Tensor) -> Recorded:
    """values[m] as draw m, from values (M, B, *event): for checks on linear combinations."""
    return Recorded(lambda m: values[m])

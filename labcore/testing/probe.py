"""The open loop: what a sampler asks for at every step, and the weights it gives to the answers.

On most rows of a probing run the score is no score: it answers 0, and 1 to the one call that the
row is for; so do the draws. Of a sampler whose steps are linear in x, the scores and the draws,
these rows hold its whole formula, unmixed with the field that it integrates:

    x_i = P_i x_T + sum_k R_ik g_k + sum_m R_im z_m        g_k the answer to its k-th call

On the last rows the loop is closed by the exact score.

Grids of one family share their times: that of N + 1 steps is that of N with one time more, the
first and last few always there. What a fixed method does between the same times is then the same
to rounding at any number of steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from labcore.noise import Noise
from labcore.processes import Process
from labcore.scores import ScoreWith, counted
from labcore.seeds import generator
from labcore.testing.case import Case, insist

F64 = torch.float64
HEAD, TAIL, FINE = 5, 8, 48
CLOSED = 3
"""Rows on which the score is the exact one."""


def radical_inverse(i: int) -> float:
    """The binary digits of i behind the point, mirrored. (van der Corput 1935)"""
    return sum(int(bit) * 2.0 ** -(place + 1) for place, bit in enumerate(reversed(f"{i:b}")))


def family(process: Process, n: int) -> Tensor:
    """Times T .. t_eps, n steps: those of n - 1 and one more; short and fixed at both ends."""
    ends = [
        e for k in range(TAIL) for e in ((FINE - k - 1) / FINE, (k + 1) / FINE)[: 1 + (k < HEAD)]
    ]
    low, high = HEAD / FINE, 1 - TAIL / FINE
    inner = (low + (high - low) * radical_inverse(i) for i in range(1, max(n - len(ends), 1)))
    shares = sorted([*ends, *inner][: n - 1])
    roots = torch.tensor([0.0, *shares, 1.0], dtype=F64)
    a, b = process.T**0.5, process.t_eps**0.5
    ts = (a + roots * (b - a)).square()
    ts[0], ts[-1] = process.T, process.t_eps
    return ts


class Fixed(Noise):
    """The m-th distinct draw is the m-th of one sequence of normals, whatever the grid.

    ``asked`` has a (t, s, stream, part) for each draw in turn.
    """

    def __init__(self, event: Sequence[int], rows: int, label: object = 0) -> None:
        self._shape, self._generator = (rows, *event), generator("fixed draws", label)
        self._values: dict[tuple[float, float, str, int], Tensor] = {}

    @property
    def asked(self) -> tuple[tuple[float, float, str, int], ...]:
        return tuple(self._values)

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        return tuple(self._one((t, s, stream, part)) for part in range(parts))

    def _one(self, key: tuple[float, float, str, int]) -> Tensor:
        if key not in self._values:
            self._values[key] = self.fresh(key)
        return self._values[key]

    def fresh(self, key: tuple[float, float, str, int]) -> Tensor:
        """The next draw."""
        return torch.randn(self._shape, generator=self._generator, dtype=F64)


@dataclass
class Asked:
    """A call of the score or a draw: in which step, for which time, and what row it is for."""

    step: int
    time: float
    kind: str
    row: int = -1


@dataclass(frozen=True, eq=False)
class Probe:
    """A probing run of N steps.

    ``states`` (N, CLOSED, D) are those of the closed loop, ``calls`` and ``draws`` what was asked
    in turn, ``seen`` the evaluations the lab counted and ``told`` what the meter says.
    ``response`` (N, K, D) is R of the answers to calls and draws near both ends, those with a
    ``row``; it is empty where the steps are not ``linear``. ``twice`` has the times of calls that
    repeat the one before, ``still`` the steps that move nothing.
    """

    ts: Tensor
    states: Tensor
    calls: tuple[Asked, ...]
    draws: tuple[Asked, ...]
    seen: float
    told: float
    twice: tuple[float, ...] = ()
    still: tuple[int, ...] = ()
    linear: bool = False
    response: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def steps(self) -> int:
        return len(self.ts) - 1

    def pattern(self) -> list[tuple[int, tuple[str, ...]]]:
        """A step's number of calls and streams of draws, for each step and what comes after."""
        calls = [0] * (self.steps + 1)
        streams: list[list[str]] = [[] for _ in calls]
        for call in self.calls:
            calls[call.step] += 1
        for draw in self.draws:
            streams[draw.step].append(draw.kind)
        return [(n, tuple(names)) for n, names in zip(calls, streams, strict=True)]


class Bench:
    """The score and the noise of one probing run, and what they were asked.

    Rows: 0 zero, then D of a basis of x_T, one of random answers, ``room`` for calls and draws,
    CLOSED.
    """

    def __init__(self, case: Case, ts: Tensor, room: int) -> None:
        self.case, self.ts, self.at, self.used, self.room = case, ts, 0, 0, room
        self.first = 2 + case.D
        self.rows = self.first + room + CLOSED
        self.high, self.low = float(ts[: HEAD + 2][-1]), float(ts[-TAIL - 1 :][0])
        self.calls: list[Asked] = []
        self.draws: list[Asked] = []
        self.seen, self.twice = 0.0, list[float]()
        self._last: tuple[float, Tensor] | None = None
        self.answers = torch.randn(4096, generator=generator("answers"), dtype=F64).tolist()
        self.mixed: list[float] = []

    def start(self) -> Tensor:
        x = torch.zeros(self.rows, self.case.D, dtype=F64)
        x[1 : 1 + self.case.D] = torch.eye(self.case.D, dtype=F64)
        x[1 + self.case.D] = torch.linspace(-1, 1, self.case.D + 2, dtype=F64)[1:-1] + 0.3
        x = x.reshape(-1, *self.case.event)
        x[-CLOSED:] = self.case.start([self.case.seed], CLOSED, F64)
        return x

    def near_an_end(self, time: float) -> bool:
        """By the step, or by the time for samplers that take all steps before the first state."""
        if self.at:
            return self.at <= HEAD or self.at >= len(self.ts) - 1 - TAIL
        return time >= self.high or time <= self.low

    def impulse(self, out: Tensor, asked: Asked) -> None:
        """Answer 1 on the row of this question, and a random number on the mixed row."""
        if not self.near_an_end(asked.time):
            return
        if self.used < self.room:
            row = self.first + self.used
            asked.row, weight = self.used, self.answers[self.used % 4096]
            out[row] = 1.0
            out[self.first - 1] = weight
            self.mixed.append(weight)
        self.used += 1

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        insist(x, t)
        copies, rest = divmod(x.shape[0], self.rows)
        self.seen += x.shape[0] / self.rows
        now = float(t if t.ndim == 0 else t[0])
        asked = Asked(self.at, now, "score")
        self.calls.append(asked)
        if rest:
            return self.case.exact(x, t)
        out = torch.zeros_like(x)
        closed, u = slice(self.rows - CLOSED, self.rows), self.near(now)
        out[closed] = self.case.exact(x[closed], u)
        self.impulse(out, asked)
        if self._last and self._last[0] == now and torch.equal(self._last[1], x[closed]):
            self.twice.append(now)
        self._last = now, x[closed].clone()
        for i in range(1, copies):
            at = slice(i * self.rows, (i + 1) * self.rows)
            out[at] = out[: self.rows]
            out[at][closed] = self.case.exact(x[at][closed], u)
        return out

    def near(self, time: float) -> Tensor:
        """The time; in long runs, after the first steps, the next of the times of 64 steps, since
        what an exact score needs is costly and known there."""
        if len(self.ts) > 65 and self.at > HEAD + 1:
            known = self.case.once("known", lambda: family(self.case.process, 64).flip(0).tolist())
            time = known[min(bisect_right(known, time), 64)]
        return torch.tensor(time, dtype=F64)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen += len(x) / self.rows
        self.calls.append(Asked(self.at, float(t.reshape(-1)[0]), "log_prob"))
        return self.case.log_prob(x, self.near(float(t.reshape(-1)[0])))

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        self.seen += len(x) / self.rows
        self.calls.append(Asked(self.at, float(t), "reverse"))
        return self.case.reverse(x, t, s, z, u)


class Impulses(Fixed):
    """Zeros and a 1 on the open rows, normals on the closed ones."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.case.event, CLOSED, bench.case.seed)
        self._bench = bench

    def fresh(self, key: tuple[float, float, str, int]) -> Tensor:
        bench = self._bench
        asked = Asked(bench.at, key[0], f"{key[2]}/{key[3]}" if key[3] else key[2])
        bench.draws.append(asked)
        z = torch.zeros(bench.rows, *bench.case.event, dtype=F64)
        bench.impulse(z, asked)
        z[-CLOSED:] = super().fresh(key)
        return z


def probe(case: Case, n: int) -> Probe:
    """The probing run of n steps on the family's grid, made once a case."""
    return case.once(("probe", n), lambda: run_probe(case, family(case.process, n)))


def run_probe(case: Case, ts: Tensor) -> Probe:
    """A probing run on any grid."""
    room = case.once("probe room", lambda: [48])
    while True:
        bench = Bench(case, ts, room[0])
        meter = counted(ScoreWith(bench.score, bench.log_prob, 1, bench.reverse), bench.rows)
        states: list[Tensor] = []
        with torch.inference_mode():
            x = bench.start()
            for y in case.call(meter, x, ts, Impulses(bench)):
                states.append(y.clone())
                bench.at += 1
            if bench.used <= bench.room:
                return _read(bench, torch.stack([x, *states]).flatten(2), meter.nfe)
        room[0] = 2 * bench.used


def _by_time(asked: Sequence[Asked], ts: Tensor) -> None:
    """Steps by time, for a sampler that takes them all before it yields the first state."""
    if any(a.step for a in asked):
        return
    times = (-ts).tolist()
    for a in asked:
        a.step = min(max(bisect_right(times, -a.time) - 1, 0), len(times) - 2)


def _read(bench: Bench, x: Tensor, told: float) -> Probe:
    """What the states (N + 1, rows, D) show."""
    if len(bench.ts) > 2:
        _by_time(bench.calls, bench.ts)
        _by_time(bench.draws, bench.ts)
    D, first = bench.case.D, bench.first
    closed = x[:, -CLOSED:]
    still = (closed[1:] == closed[:-1]).all(-1).all(-1).nonzero().flatten()
    found = Probe(
        bench.ts,
        closed[1:],
        tuple(bench.calls),
        tuple(bench.draws),
        bench.seen,
        told,
        tuple(bench.twice),
        tuple(still.tolist()),
    )
    rows = x[1:, 1 : first + bench.used] - x[1:, :1]
    if not bool(rows.isfinite().all()):
        return found
    P, mixed, R = rows[:, :D], rows[:, D], rows[:, D + 1 :]
    of_x, of_asked = x[0, 1 + D], torch.tensor(bench.mixed, dtype=F64)
    expected = torch.einsum("nij,i->nj", P, of_x) + torch.einsum("nkj,k->nj", R, of_asked)
    size = (P.abs().sum((1, 2)) + R.abs().sum((1, 2))).clamp_min(1e-300)
    linear = bool(((mixed - expected).abs().amax(1) <= 1e-9 * size).all())
    return replace(found, linear=True, response=R) if linear else found

"""All coefficients of an exponential integrator's run, computed at once before its loop.

Steps that are alike make a block: the first steps of a method one by one, then all others. Every
point of time in a run, of the grid or within a step, has a number, and a line is a stage of a
block: from points to points, through points. Lines through as many points share one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, chain, groupby, pairwise
from math import floor
from operator import sub
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labcore import LinOp, Process
from labcore_samplers.exponential_flow import Psi as Flow
from labcore_samplers.exponential_flow import spread
from labcore_samplers.exponential_scalar import padded
from labcore_samplers.exponential_weights import Form, Rule, Variable, between, stage

Position = Fraction | int


@dataclass(frozen=True)
class Stage:
    """From x_t to position ``to``, through the values at ``nodes``."""

    to: Position
    nodes: tuple[Position, ...]


Step = tuple[Stage, ...]
HELD = Stage(1, (0,))


@dataclass(frozen=True)
class Method:
    """Steps, the last of which repeats, and what they interpolate: see exponential_weights.

    ``rule`` is that of lines through two times of the grid; all others are exact, and so are the
    stages within a step. ``corrections`` come before the steps of the same number, if any.
    """

    steps: tuple[Step, ...]
    form: Form
    variable: Variable = "log_snr"
    rule: Rule = "exact"
    corrections: tuple[Stage | None, ...] = ()


class Line(NamedTuple):
    """keep @ x + sum of weight @ (the value so many calls back)."""

    keep: Any
    terms: tuple[tuple[int, Any], ...]


class Move(NamedTuple):
    """A score call at ``time``, whose value joins the past, and the stage that follows it.

    The value is x + pull @ score, or the score; ``roots`` weigh the draws of the step.
    """

    time: Tensor
    pull: Any
    line: Line
    roots: tuple[Any, ...]


class Block(NamedTuple):
    """Steps i .. j - 1, which are alike; a correction, if any, comes before each."""

    i: int
    j: int
    step: Step
    fix: Stage | None

    @property
    def calls(self) -> tuple[Position, ...]:
        """Positions of the score calls of a step."""
        return (0, *(stage.to for stage in self.step[:-1]))


class Piece(NamedTuple):
    """The lines of one stage of a block: their times, and a list of calls back for each node."""

    start: Tensor
    end: Tensor
    nodes: list[Tensor]
    back: list[list[int]]
    rule: Rule


@dataclass(frozen=True)
class Plan:
    """The run of a method over a grid; ``Psi`` is the frozen flow of its noise rate eta."""

    process: Process
    Psi: Flow
    ts: Tensor
    x: Tensor
    method: Method
    eta: float

    def build(self) -> tuple[list[tuple[Move, ...]], list[Line | None]]:
        """The moves of each step, and the correction before them."""
        places = [(k, m) for k, b in enumerate(self.blocks) for m in range(len(b.step))]
        stages = [self.piece(k, 0, m, self.blocks[k].step[m]) for k, m in places]
        fixes = [self.piece(k, -1, 0, b.fix) for k, b in enumerate(self.blocks) if b.fix]
        lines = iter(self.lines([*stages, *fixes]))
        times, outputs, roots = self.points.unbind(), self.outputs(), self.roots()
        columns: dict[int, list[list[Move]]] = {}
        for (k, m), root in zip(places, roots, strict=True):
            at = self.called(k, m)
            columns.setdefault(k, []).append(
                list(map(Move, times[at], outputs[at], next(lines), root))
            )
        steps = [moves for of in columns.values() for moves in zip(*of, strict=True)]
        none: list[Line | None] = [None]
        corrections = [next(lines) if b.fix else none * (b.j - b.i) for b in self.blocks]
        return steps, list(chain.from_iterable(corrections))

    @cached_property
    def blocks(self) -> list[Block]:
        method, n = self.method, len(self.ts) - 1
        last = min(len(method.steps), n) - 1
        fixes = method.corrections or (None,) * (last + 1)
        return [
            Block(k, k + 1 if k < last else n, method.steps[k], fixes[k]) for k in range(last + 1)
        ]

    @cached_property
    def starts(self) -> list[int]:
        """How many calls come before each step."""
        sizes = ([len(b.step)] * (b.j - b.i) for b in self.blocks)
        return [0, *accumulate(chain.from_iterable(sizes))]

    @cached_property
    def firsts(self) -> dict[tuple[int, Position], int]:
        """The number of the first point at each position within the steps of a block."""
        inside = [(k, p) for k, b in enumerate(self.blocks) for p in b.calls[1:]]
        sizes = [self.blocks[k].j - self.blocks[k].i for k, _ in inside]
        return dict(zip(inside, accumulate(sizes, initial=len(self.ts)), strict=False))

    @cached_property
    def points(self) -> Tensor:
        """All times of the run by number: the grid's, then those within steps."""
        if not self.firsts:
            return self.ts
        steps = [torch.arange(self.blocks[k].i, self.blocks[k].j) for k, _ in self.firsts]
        i, sizes = torch.cat(steps), torch.tensor([len(n) for n in steps])
        share = torch.tensor([float(p) for _, p in self.firsts], dtype=torch.float64)
        share = share.repeat_interleave(sizes)
        inside = between(self.process, self.ts[i], self.ts[i + 1], share)
        return torch.cat([self.ts, inside])

    def called(self, k: int, m: int) -> slice:
        """The points of call m of the steps of block k."""
        b = self.blocks[k]
        first = self.firsts[k, b.calls[m]] if m else b.i
        return slice(first, first + b.j - b.i)

    def find(self, k: int, p: Position) -> tuple[Tensor, list[int]]:
        """The times at position p of the steps of block k, and the calls before those there."""
        b, a, last = self.blocks[k], floor(p), len(self.blocks) - 1
        steps, c = range(b.i + a, b.j + a), p - a
        if not c:
            return self.ts[b.i + a : b.j + a], self.starts[b.i + a : b.j + a]
        if not a:
            m = b.calls.index(c)
            return self.points[self.called(k, m)], [self.starts[n] + m for n in steps]
        calls = [self.blocks[min(n, last)].calls.index(c) for n in steps]
        first = [self.called(min(n, last), m).start for n, m in zip(steps, calls, strict=True)]
        at = [f + n - self.blocks[min(n, last)].i for f, n in zip(first, steps, strict=True)]
        before = [self.starts[n] + m for n, m in zip(steps, calls, strict=True)]
        return self.points[torch.tensor(at)], before

    def piece(self, k: int, start: Position, m: int, stage: Stage) -> Piece:
        """The lines of a stage that follows call m of its step."""
        b = self.blocks[k]
        now = [before + m for before in self.starts[b.i : b.j]]
        found = [self.find(k, p) for p in stage.nodes]
        shortcut = len(stage.nodes) < 3 and all(p == floor(p) for p in stage.nodes)
        return Piece(
            self.find(k, start)[0],
            self.find(k, stage.to)[0],
            [time for time, _ in found],
            [list(map(sub, now, calls)) for _, calls in found],
            self.method.rule if shortcut else "exact",
        )

    def lines(self, pieces: list[Piece]) -> list[list[Line]]:
        """The lines of each piece."""
        whole = padded(self.process, self.method.variable)

        def alike(n: int) -> tuple[int, Rule]:
            """Lines of one kind share a call: of one rule and, unless padded, as many nodes."""
            return 0 if whole else len(pieces[n].nodes), pieces[n].rule

        made = dict[int, list[Line]]()
        for _, same in groupby(sorted(range(len(pieces)), key=alike), key=alike):
            which = list(same)
            made.update(zip(which, self.together([pieces[n] for n in which]), strict=True))
        return [made[n] for n in range(len(pieces))]

    def together(self, pieces: list[Piece]) -> Iterator[list[Line]]:
        """The lines of pieces, their coefficients computed at once."""
        method, most = self.method, max(len(p.nodes) for p in pieces)
        sizes = [len(p.start) for p in pieces]
        t, s = (torch.cat(ends) for ends in zip(*(p[:2] for p in pieces), strict=True))
        nodes = [
            torch.cat([p.nodes[j] if j < len(p.nodes) else p.start for p in pieces])
            for j in range(most)
        ]
        count = torch.tensor([len(p.nodes) for p in pieces]).repeat_interleave(torch.tensor(sizes))
        carry, W = stage(
            self.process,
            self.Psi,
            t,
            s,
            nodes,
            form=method.form,
            variable=method.variable,
            rule=pieces[0].rule,
            eta=self.eta,
            count=count,
        )
        if method.form == "data":
            W = [w @ of for w, of in zip(W, self.back(nodes), strict=True)]
        keeps = carry.terms(self.x) if self.kicked else carry.per_step(self.x)
        weighs = [w.terms(self.x) for w in W]
        ends = list(accumulate(sizes, initial=0))
        for p, (i, j) in zip(pieces, pairwise(ends), strict=True):
            terms = (zip(b, w[i:j], strict=True) for b, w in zip(p.back, weighs, strict=False))
            yield list(map(Line, keeps[i:j], zip(*terms, strict=True)))

    def back(self, nodes: list[Tensor]) -> list[LinOp]:
        """Phi(t,0)^-1 at all nodes, which makes x0 of the values."""
        times = torch.cat(nodes)
        Phi = self.process.Phi(times, torch.zeros_like(times)).inv
        return [pick(Phi, i) for i in torch.arange(len(times)).split(len(nodes[0]))]

    def outputs(self) -> list[Any]:
        """Sigma(t), which makes x + Sigma g = Phi(t,0) x0; None where the score itself is used."""
        t = self.points
        if self.method.form == "noise":
            return [None] * len(t)
        return self.process.Sigma(t).terms(self.x)

    @property
    def once(self) -> bool:
        """Whether a value is used once, where it is made: steps are then of x and the score."""
        return not self.method.corrections and all(step == (HELD,) for step in self.method.steps)

    def affine(self) -> tuple[LinOp, LinOp]:
        """Factors of x_t and of the score at t, where values are used once."""
        of, t, form = self.process, self.ts[:-1], self.method.form
        carry, (W,) = stage(of, self.Psi, t, self.ts[1:], [t], form=form, eta=self.eta)
        if form == "noise":
            return carry, W
        W = W @ of.Phi(t, torch.zeros_like(t)).inv
        return carry + W, W @ of.Sigma(t)

    @cached_property
    def kicked(self) -> bool:
        """Whether each step adds noise once, when it is done."""
        stages = all(len(step) == 1 for step in self.method.steps)
        return bool(self.eta) and stages and not any(self.method.corrections)

    def whole(self) -> LinOp:
        """R: over a step the path adds N(0, R R^T)."""
        return spread(self.process, self.Psi, self.ts[:-1], self.ts[1:], self.eta).chol

    def roots(self) -> Iterator[list[tuple[Any, ...]]]:
        """Factors of (z, k), increment and area of the path, where a step has two stages.

        Over the step the path adds N(0, C), C = R R^T, taken as R z. Up to the stage at m it adds
        y with covariance C_m and Cov(y, R z) = C_m P^T, P = Psi(s,m): given z, its mean is
        C_m P^T R^-T z and its covariance (C_m^-1 + P^T C_sm^-1 P)^-1, for which k stands. At 3/4
        of a short step this is the stage of SRA1 (Roessler 2010).
        """
        if not self.eta or self.kicked:
            yield from ([()] * (b.j - b.i) for b in self.blocks for _ in b.step)
            return
        t, s, R = self.ts[:-1], self.ts[1:], self.whole()
        whole = [(r,) for r in R.terms(self.x)]
        for k, b in enumerate(self.blocks):
            if len(b.step) == 2:
                at = torch.arange(b.i, b.j)
                m = self.points[self.called(k, 1)]
                yield self.inner(t[at], m, s[at], pick(R, at))
            yield whole[b.i : b.j]

    def inner(self, t: Tensor, m: Tensor, s: Tensor, R: LinOp) -> list[tuple[Any, ...]]:
        """Factors of (z, k) at m in the steps from t to s."""
        process, Psi, eta = self.process, self.Psi, self.eta
        carry, C = Psi(s, m), spread(process, Psi, t, m, eta)
        mean = C @ carry.T @ R.inv.T
        rest = (C.inv + carry.T @ spread(process, Psi, m, s, eta).inv @ carry).inv
        root = (0.5 * (rest + rest.T)).chol
        return list(zip(mean.terms(self.x), root.terms(self.x), strict=True))


def pick(op: LinOp, at: slice | Tensor) -> LinOp:
    picked: LinOp = op.map(lambda p: p[at])
    return picked

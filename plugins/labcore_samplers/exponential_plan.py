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
from itertools import accumulate, chain, groupby, islice
from math import floor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labcore import LinOp, Process
from labcore_samplers.exponential_flow import Psi as Flow
from labcore_samplers.exponential_flow import spread
from labcore_samplers.exponential_weights import Form, Rule, Variable, between, keep, weights

Position = Fraction | int


@dataclass(frozen=True)
class Stage:
    """From x_t to position ``to``, through the values at ``nodes``."""

    to: Position
    nodes: tuple[Position, ...]


Step = tuple[Stage, ...]


@dataclass(frozen=True)
class Method:
    """Steps, the last of which repeats, and what they interpolate: see exponential_weights.

    ``rule`` is that of stages with two nodes; all others are exact. ``corrections`` come before
    the steps of the same number, if there are any.
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

    ``output`` makes the value of x and the score; ``roots`` weigh the draws of the step.
    """

    time: Tensor
    output: tuple[Any, Any] | None
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
    """The lines of one stage of a block, by numbers of points; ``back`` has a list a node."""

    start: Tensor
    end: Tensor
    nodes: list[Tensor]
    back: list[list[int]]


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
            at = self.numbers(k, self.blocks[k].calls[m]).tolist()
            calls = [times[a] for a in at], [outputs[a] for a in at]
            columns.setdefault(k, []).append(list(map(Move, *calls, next(lines), root)))
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
    def starts(self) -> Tensor:
        """How many calls come before each step."""
        sizes = [len(b.calls) for b in self.blocks for _ in range(b.i, b.j)]
        return torch.tensor([0, *accumulate(sizes)])

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

    def numbers(self, k: int, p: Position) -> Tensor:
        """The points at position p of the steps of block k."""
        return self.find(k, p)[0]

    def find(self, k: int, p: Position) -> tuple[Tensor, Tensor]:
        """The points at position p of the steps of block k, and the calls before those there."""
        b, a, last = self.blocks[k], floor(p), len(self.blocks) - 1
        step, c = torch.arange(b.i + a, b.j + a), p - a
        if not c:
            return step, self.starts[step]
        low, high = min(b.i + a, last), min(b.j + a - 1, last)
        among = range(low, high + 1)
        first = torch.tensor([self.firsts[q, c] - self.blocks[q].i for q in among])
        call = torch.tensor([self.blocks[q].calls.index(c) for q in among])
        q = step.clamp(max=last) - low
        return step + first[q], self.starts[step] + call[q]

    def piece(self, k: int, start: Position, m: int, stage: Stage) -> Piece:
        """The lines of a stage that follows call m of its step."""
        b = self.blocks[k]
        now = self.starts[b.i : b.j] + m
        found = [self.find(k, p) for p in stage.nodes]
        return Piece(
            self.numbers(k, start),
            self.numbers(k, stage.to),
            [point for point, _ in found],
            [(now - call).tolist() for _, call in found],
        )

    def lines(self, pieces: list[Piece]) -> list[list[Line]]:
        """The lines of each piece."""
        process, method, made = self.process, self.method, dict[int, list[Line]]()
        order = sorted(range(len(pieces)), key=lambda n: len(pieces[n].nodes))
        for k, same in groupby(order, key=lambda n: len(pieces[n].nodes)):
            which = list(same)
            group = [pieces[n] for n in which]
            t, s = (
                self.points[torch.cat(ends)] for ends in zip(*(p[:2] for p in group), strict=True)
            )
            nodes = [
                self.points[torch.cat(at)] for at in zip(*(p.nodes for p in group), strict=True)
            ]
            rule: Rule = method.rule if k == 2 else "exact"
            W = weights(
                process,
                self.Psi,
                t,
                s,
                nodes,
                form=method.form,
                variable=method.variable,
                rule=rule,
                eta=self.eta,
            )
            back = [chain.from_iterable(of) for of in zip(*(p.back for p in group), strict=True)]
            terms = [zip(b, w.per_step(self.x), strict=True) for b, w in zip(back, W, strict=True)]
            carry = keep(process, self.Psi, t, s, method.form).per_step(self.x)
            drawn = map(Line, carry, zip(*terms, strict=True))
            made.update(
                {n: list(islice(drawn, len(p.start))) for n, p in zip(which, group, strict=True)}
            )
        return [made[n] for n in range(len(pieces))]

    def outputs(self) -> list[tuple[Any, Any]] | list[None]:
        """Phi(t,0)^-1 and Phi(t,0)^-1 Sigma(t), which make x0; None where the score is used."""
        t = self.points
        if self.method.form == "noise":
            return [None] * len(t)
        back = self.process.Phi(t, torch.zeros_like(t)).inv
        pull = back @ self.process.Sigma(t)
        return list(zip(back.per_step(self.x), pull.per_step(self.x), strict=True))

    def roots(self) -> Iterator[list[tuple[Any, ...]]]:
        """Factors of (z) or, for two stages, of (z, k), increment and area of the path.

        Over the step the path adds N(0, C), C = R R^T, taken as R z. Up to the stage at m it adds
        y with covariance C_m and Cov(y, R z) = C_m P^T, P = Psi(s,m): given z, its mean is
        C_m P^T R^-T z and its covariance (C_m^-1 + P^T C_sm^-1 P)^-1, for which k stands. At 3/4
        of a short step this is the stage of SRA1 (Roessler 2010).
        """
        if not self.eta:
            yield from ([()] * (b.j - b.i) for b in self.blocks for _ in b.step)
            return
        t, s = self.ts[:-1], self.ts[1:]
        R = spread(self.process, self.Psi, t, s, self.eta).chol
        whole = [(r,) for r in R.per_step(self.x)]
        for k, b in enumerate(self.blocks):
            if len(b.step) == 2:
                at = torch.arange(b.i, b.j)
                m = self.points[self.numbers(k, b.step[0].to)]
                yield self.inner(t[at], m, s[at], pick(R, at))
            yield whole[b.i : b.j]

    def inner(self, t: Tensor, m: Tensor, s: Tensor, R: LinOp) -> list[tuple[Any, ...]]:
        """Factors of (z, k) at m in the steps from t to s."""
        process, Psi, eta = self.process, self.Psi, self.eta
        carry, C = Psi(s, m), spread(process, Psi, t, m, eta)
        mean = C @ carry.T @ R.inv.T
        rest = (C.inv + carry.T @ spread(process, Psi, m, s, eta).inv @ carry).inv
        root = (0.5 * (rest + rest.T)).chol
        return list(zip(mean.per_step(self.x), root.per_step(self.x), strict=True))


def pick(op: LinOp, at: Tensor) -> LinOp:
    picked: LinOp = op.map(lambda p: p[at])
    return picked

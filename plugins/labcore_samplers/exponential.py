"""Exponential integrators as a table: which earlier values each step interpolates.

A position counts grid steps: 0 is now, -1 the last grid time, 1/2 halfway in half log-SNR through
the step, -1/3 two thirds through the last one. A stage goes from x_t to a position c in (0, 1]
through the values at its nodes (exponential_weights.py); the score is then called there, unless
c = 1. A step is a tuple of stages; a method lists its first steps and the one it repeats.

    Euler       x_s from the value at 0                              DDIM
    Midpoint    x at 1/2 by Euler; x_s from the value at 1/2         DPM-Solver-2, ++2S
    Third       x at 1/3; x at 2/3 from 0, 1/3; x_s from 0, 2/3      DPM-Solver-3, as Heun's
    AB(k)       x_s from the values at 0, -1, .. 1-k                 DEIS, 2M, 3M

A correction goes from position -1 to 0 once the score at 0 is known, so through its value too: the
state is replaced, the score is not called again (UniPC).

A multistep method of order p starts with steps of order p - 1, whose local error is that of the
whole: two steps of Euler's order would cap the order at 2. Its extra evaluations are declared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from math import floor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labcore import Noise, Process, Score
from labcore_samplers.exponential_flow import Psi as Flow
from labcore_samplers.exponential_flow import frozen_flow
from labcore_samplers.exponential_weights import (
    Form,
    Rule,
    Variable,
    between,
    frozen,
    keep,
    spread,
    weights,
)

Position = Fraction | int


@dataclass(frozen=True)
class Stage:
    """From x_t to position ``to``, through the values at ``nodes``."""

    to: Position
    nodes: tuple[Position, ...]


Step = tuple[Stage, ...]
HALF, THIRD, QUARTER = Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)


def AB(k: int) -> Step:
    return (Stage(1, tuple(range(0, -k, -1))),)


EULER = AB(1)
MIDPOINT = (Stage(HALF, (0,)), Stage(1, (HALF,)))
THIRD_ORDER = (
    Stage(THIRD, (0,)),
    Stage(2 * THIRD, (0, THIRD)),
    Stage(1, (0, 2 * THIRD)),
)
SRA = (Stage(3 * QUARTER, (0,)), Stage(1, (0, 3 * QUARTER)))


def corrector(k: int) -> Stage:
    """From -1 to 0, through the values at -1, 0, -2, .. -k."""
    return Stage(0, (-1, 0, *range(-2, -k - 1, -1)))


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
    """keep @ x + sum of weight @ (the value so many calls back) + sum of root @ draw."""

    keep: Any
    terms: tuple[tuple[int, Any], ...]
    roots: tuple[Any, ...] = ()


class Move(NamedTuple):
    """A score call at ``time``, whose value joins the past, and the stage that follows it."""

    time: Tensor
    output: tuple[Any, Any] | None
    line: Line


def integrate(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    method: Method,
    eta: float = 0.0,
) -> Iterator[Tensor]:
    """x (B, *event) at ts[1:]; at eta > 0 with one Brownian path for all stages of a step."""
    plan = Plan(process, frozen_flow(process, ts), ts, x, method, eta)
    steps, fixes = plan.build()
    past: deque[Tensor] = deque(maxlen=plan.depth(steps, fixes))
    before = x
    for (t, s), moves, fix in zip(pairwise(ts), steps, fixes, strict=True):
        draws = _draws(noise, t, s, len(moves[0].line.roots))
        y = x
        for move in moves:
            past.appendleft(_value(move, score, y))
            if fix is not None and move is moves[0]:
                x = _reach(fix, before, past, ())
            y = _reach(move.line, x, past, draws)
        before, x = x, y
        yield x


def _value(move: Move, score: Score, x: Tensor) -> Tensor:
    g = score(x, move.time)
    if move.output is None:
        return g
    back, pull = move.output
    return pull.accumulate(back @ x, g)


def _reach(line: Line, x: Tensor, past: deque[Tensor], draws: tuple[Tensor, ...]) -> Tensor:
    y = line.keep @ x
    for back, weight in line.terms:
        y = weight.accumulate(y, past[back])
    for root, z in zip(line.roots, draws, strict=False):
        y = root.accumulate(y, z)
    return y


def _draws(noise: Noise, t: Tensor, s: Tensor, parts: int) -> tuple[Tensor, ...]:
    if parts == 2:
        return noise.levy(t, s)
    return (noise(t, s),) if parts else ()


class Steps(NamedTuple):
    """Steps i .. j - 1, which are alike."""

    i: int
    j: int
    step: Step
    fix: Stage | None


@dataclass(frozen=True)
class Plan:
    """All coefficients of a run: first steps one by one, the others at once."""

    process: Process
    Psi: Flow
    ts: Tensor
    x: Tensor
    method: Method
    eta: float

    def build(self) -> tuple[list[tuple[Move, ...]], list[Line | None]]:
        N, method = len(self.ts) - 1, self.method
        last = len(method.steps) - 1
        every = [method.steps[min(i, last)] for i in range(N)]
        calls = [(0, *(stage.to for stage in step[:-1])) for step in every]
        starts = [0, *accumulate(len(at) for at in calls)]
        plan: list[tuple[Move, ...]] = []
        fixes: list[Line | None] = []
        while len(plan) < N:
            i = len(plan)
            fix = method.corrections[min(i, last)] if method.corrections else None
            steps = Steps(i, i + 1 if i < last else N, every[i], fix)
            plan.extend(self.moves(steps, starts, calls))
            fixes.extend(self.fixes(steps, starts, calls))
        return plan, fixes

    def depth(self, steps: list[tuple[Move, ...]], fixes: list[Line | None]) -> int:
        """How many values the past must hold."""
        lines = [move.line for moves in steps for move in moves]
        lines += [fix for fix in fixes if fix is not None]
        return 1 + max(back for line in lines for back, _ in line.terms)

    def moves(
        self, steps: Steps, starts: list[int], calls: list[tuple[Position, ...]]
    ) -> Iterator[tuple[Move, ...]]:
        roots = self.roots(steps)
        columns = []
        for k, stage in enumerate(steps.step):
            called = self.time(steps, calls[steps.i][k])
            lines = self.lines(steps, 0, stage, _back(steps, k, stage, starts, calls))
            outputs = self.outputs(called)
            noisy = [line._replace(roots=r) for line, r in zip(lines, roots[k], strict=True)]
            columns.append(list(map(Move, called, outputs, noisy)))
        return zip(*columns, strict=True)

    def fixes(
        self, steps: Steps, starts: list[int], calls: list[tuple[Position, ...]]
    ) -> list[Line] | list[None]:
        if steps.fix is None:
            return [None] * (steps.j - steps.i)
        return self.lines(steps, -1, steps.fix, _back(steps, 0, steps.fix, starts, calls))

    def lines(
        self, steps: Steps, start: Position, stage: Stage, back: list[list[int]]
    ) -> list[Line]:
        """A stage of all the steps."""
        method, process = self.method, self.process
        t, s = self.time(steps, start), self.time(steps, stage.to)
        rule: Rule = method.rule if len(stage.nodes) == 2 else "exact"
        W = weights(
            process,
            self.Psi,
            t,
            s,
            [self.time(steps, p) for p in stage.nodes],
            form=method.form,
            variable=method.variable,
            rule=rule,
            eta=self.eta,
        )
        carry = keep(process, self.Psi, t, s, method.form, self.eta).per_step(self.x)
        terms = [zip(b, w.per_step(self.x), strict=True) for b, w in zip(back, W, strict=True)]
        return [Line(k, of) for k, of in zip(carry, zip(*terms, strict=True), strict=True)]

    def outputs(self, t: Tensor) -> list[tuple[Any, Any]] | list[None]:
        """Phi(t,0)^-1 and Phi(t,0)^-1 Sigma(t), which make x0; None where the score is used."""
        if self.method.form == "noise":
            return [None] * len(t)
        back = self.process.Phi(t, torch.zeros_like(t)).inv
        pull = back @ self.process.Sigma(t)
        return list(zip(back.per_step(self.x), pull.per_step(self.x), strict=True))

    def time(self, steps: Steps, p: Position) -> Tensor:
        """The times at position p of the steps, (j - i,)."""
        k, (i, j) = floor(p), steps[:2]
        t = self.ts[i + k : j + k]
        if p == k:
            return t
        return between(self.process, t, self.ts[i + k + 1 : j + k + 1], float(p - k))

    def roots(self, steps: Steps) -> list[list[tuple[Any, ...]]]:
        """Factors of (z) or, for two stages, of (z, k), increment and area of the path.

        Over the step the path adds N(0, C), C = R R^T, taken as R z. Up to the stage at m it adds
        y with covariance C_m and Cov(y, R z) = C_m P^T, P = Psi(s,m): given z, its mean is
        C_m P^T R^-T z and its covariance (C_m^-1 + P^T C_sm^-1 P)^-1, for which k stands. At 3/4
        of a short step this is the stage of SRA1 (Roessler 2010).
        """
        step, process, Psi, eta = steps.step, self.process, self.Psi, self.eta
        if not eta:
            return [[()] * (steps.j - steps.i)] * len(step)
        t, s = self.time(steps, 0), self.time(steps, 1)
        R = spread(process, Psi, t, s, eta).chol
        last = [(r,) for r in R.per_step(self.x)]
        if len(step) == 1:
            return [last]
        m = self.time(steps, step[0].to)
        carry, C = frozen(process, Psi, s, m, eta), spread(process, Psi, t, m, eta)
        mean = C @ carry.T @ R.inv.T
        rest = (C.inv + carry.T @ spread(process, Psi, m, s, eta).inv @ carry).inv
        root = (0.5 * (rest + rest.T)).chol
        first = zip(mean.per_step(self.x), root.per_step(self.x), strict=True)
        return [list(first), last]


def _back(
    steps: Steps,
    k: int,
    stage: Stage,
    starts: list[int],
    calls: list[tuple[Position, ...]],
) -> list[list[int]]:
    """How many calls before call k of each step the values at the stage's nodes were made."""

    def since(n: int, p: Position) -> int:
        a = floor(p)
        return starts[n] + k - starts[n + a] - calls[n + a].index(p - a)

    return [[since(n, p) for n in range(steps.i, steps.j)] for p in stage.nodes]

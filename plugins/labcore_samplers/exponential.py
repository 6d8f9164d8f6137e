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
from fractions import Fraction
from itertools import pairwise

from torch import Tensor

from labcore import Noise, Process, Score
from labcore_samplers.affine import affine_steps
from labcore_samplers.exponential_flow import frozen_flow
from labcore_samplers.exponential_plan import Line, Method, Move, Plan, Stage, Step
from labcore_samplers.kicked import kicked_steps, kicks

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
    plan = Plan(process, frozen_flow(process, ts, eta), ts, x, method, eta)
    if plan.kicked and plan.once:
        return kicked_steps(score, x, ts, noise, *plan.affine(), plan.whole())
    if plan.kicked:
        return _kicked(plan, score, kicks(noise, ts, plan.whole(), x))
    if plan.once:
        return affine_steps(score, x, ts, *plan.affine())
    return _staged(plan, score, noise)


def _staged(plan: Plan, score: Score, noise: Noise) -> Iterator[Tensor]:
    """Steps of any numbers of stages, with corrections, and with areas if there is noise."""
    steps, fixes = plan.build()
    past: deque[Tensor] = deque(maxlen=depth(steps, fixes))
    x = before = plan.x
    for (t, s), moves, fix in zip(pairwise(plan.ts.tolist()), steps, fixes, strict=True):
        draws = noise.levy(t, s) if moves[0].roots else ()
        y = x
        for move in moves:
            past.appendleft(_value(move, score, y))
            if fix is not None and move is moves[0]:
                x = _reach(fix, before, past)
            y = _reach(move.line, x, past)
            for root, z in zip(move.roots, draws, strict=False):
                y = root.accumulate(y, z)
        before, x = x, y
        yield x


def _kicked(plan: Plan, score: Score, kick: Iterator[Tensor]) -> Iterator[Tensor]:
    """Steps of one stage, each built in its own noise."""
    steps, _ = plan.build()
    past: deque[Tensor] = deque(maxlen=depth(steps, []))
    x = plan.x
    for (move,) in steps:
        past.appendleft(_value(move, score, x))
        x = move.line.keep.accumulate(next(kick), x)
        for back, weight in move.line.terms:
            x = weight.accumulate(x, past[back])
        yield x


def depth(steps: list[tuple[Move, ...]], fixes: list[Line | None]) -> int:
    """How many values the past must hold."""
    lines = [move.line for moves in steps for move in moves]
    lines += [fix for fix in fixes if fix is not None]
    return 1 + max(back for line in lines for back, _ in line.terms)


def _value(move: Move, score: Score, x: Tensor) -> Tensor:
    g = score(x, move.time)
    if move.pull is None:
        return g
    value: Tensor = move.pull.added(x, g)
    return value


def _reach(line: Line, x: Tensor, past: deque[Tensor]) -> Tensor:
    y: Tensor = line.keep @ x
    for back, weight in line.terms:
        y = weight.accumulate(y, past[back])
    return y

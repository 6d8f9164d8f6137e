"""The contract every study relies on: shapes, times, purity, repeatability, the given grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.guards import undisturbed
from labcore.noise import Noise, brownian
from labcore.scores import Score, ScoreWith, counted
from labcore.seeds import generator
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.checks.metamorphic import Turned
from labcore.testing.checks.steps import SAME
from labcore.testing.compare import difference
from labcore.testing.models import quadratic, uneven
from labcore.testing.probe import run_probe


def yields(case: Case) -> Check:
    """One state for each of ts[1:], in the shape and dtype and on the device of x, finite."""
    device = case.start([case.seed], 1, torch.float64).device
    for dtype in (torch.float32, torch.float64):
        for steps in (case.least, case.least + 1, 7):
            states = case.run(steps, dtype=dtype)
            if len(states) != steps:
                raise Broken(f"{len(states)} states for {steps} steps", "yield one a step")
            for x in states:
                if x.shape != (3, *case.event) or x.dtype != dtype:
                    raise Broken(
                        f"it yields {tuple(x.shape)} {x.dtype} for {(3, *case.event)} {dtype}",
                        "keep the shape and dtype of x",
                    )
                if x.device != device:
                    raise Broken(f"it yields on {x.device} for x on {device}", "stay there")
                if steps > 2 and not bool(torch.isfinite(x).all()):
                    raise Broken("NaN or Inf on Gaussian data", "check its coefficients")
    return passed(
        "one finite state a step, in the shape and dtype (float32, float64) and on the device of x"
    )


def times(case: Case) -> Check:
    """The score is called within [ts[-1], ts[0]] only."""
    for steps in (case.least, max(3, case.least), 20):
        ts = quadratic(case.process, steps)

        def watched(x: Tensor, t: Tensor, ts: Tensor = ts) -> Tensor:
            value = case.score(x, t)
            low, high = float(t.min()), float(t.max())
            if not (float(ts[-1]) <= low and high <= float(ts[0])):
                raise Broken(
                    f"it calls the score at t={low:g}, outside [{ts[-1]:g}, {ts[0]:g}]",
                    "no score exists there; clamp stage times to the grid",
                )
            return value

        case.run(steps, score=watched)
    return passed("the score is called within [t_eps, T] only")


Keep = Callable[[str, Tensor], Tensor]


class Watched(Noise):
    """Another noise, with every draw shown to ``keep``."""

    def __init__(self, noise: Noise, keep: Keep) -> None:
        self._noise, self._keep = noise, keep

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        draws = self._noise.draw(t, s, stream, parts)
        return tuple(self._keep("a draw of the noise", z) for z in draws)

    def tree(self, resolution: float) -> Noise:
        return Watched(self._noise.tree(resolution), self._keep)


def pure(case: Case) -> Check:
    """Nothing it is given or has yielded is written to, and process-wide state is left alone."""
    kept: list[tuple[str, Tensor, Tensor]] = []

    def keep(what: str, x: Tensor) -> Tensor:
        kept.append((what, x, x.clone()))
        return x

    ts = keep("ts", quadratic(case.process, 4))
    x = keep("x", case.start([0], 3, torch.float64))
    noise = Watched(brownian(ts, case.event, [0], 3, dtype=torch.float64), keep)
    with undisturbed() as changed, torch.inference_mode():
        states = case.call(lambda x, t: keep("a score", case.score(x, t)), x, ts, noise)
        for state in states:
            keep("a state it had yielded", state)
    if changed:
        raise Broken(
            f"it changes {', '.join(changed)}", "leave it alone; take draws from noise(t, s)"
        )
    for what, value, copy in kept:
        if not torch.equal(value, copy):
            raise Broken(f"it writes to {what}", "work in place on its own tensors only")
    return passed("writes to nothing it is given; no global RNG, dtype or thread count touched")


def repeatable(case: Case) -> Check:
    """A run is the same after another one and beside another one."""
    first = case.run(5)
    case.run(3, seeds=(1,))
    with torch.inference_mode():
        pairs = zip(case.states(5), case.states(5, seeds=(1,)), strict=True)
        beside = [x.clone() for x, _ in pairs]
    for again in (case.run(5), beside):
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise Broken(
                "two runs of one seed differ", "keep no state between calls: all of it is local"
            )
    return passed("equal to the bit after another run and beside one")


def rows(case: Case) -> Check:
    """Rows do not act on each other: seeds in one batch, and a row, give what they do alone."""
    if case.coupled:
        return skipped("rows are coupled, as declared")
    both = case.run(6, seeds=(3, 4))[-1]
    alone = torch.cat([case.run(6, seeds=(seed,))[-1] for seed in (3, 4)])
    ts, x = uneven(case.process, 6), case.start([case.seed], 4, torch.float64)
    whole = case.end(x, ts, Turned(case, lambda z: z))
    row = case.end(x[2:3], ts, Turned(case, lambda z: z[2:3]))
    for a, b in ((both, alone), (whole[2:3], row)):
        if not torch.allclose(a, b, rtol=1e-9, atol=1e-11):
            raise Broken(
                "its result depends on how the batch is split", "declare coupled=True if it must"
            )
    return passed("two seeds in one batch, and one row of it, give what each gives alone")


def _stays(case: Case, ts: Tensor) -> bool:
    """Whether the score, or the density, is called, and at the last time alone."""
    asked = set[float]()

    def noting(of: Score) -> Score:
        def call(x: Tensor, t: Tensor) -> Tensor:
            asked.update(t.reshape(-1).tolist())
            return of(x, t)

        return call

    model = ScoreWith(noting(case.score), noting(case.log_prob))
    case.run(len(ts) - 1, ts=ts, score=counted(model, 3))
    return asked == {float(ts[-1])}


def grid(case: Case) -> Check:
    """It steps on ts: moving a time moves the result, and nothing but the steps near that time.

    Two uneven grids that share their first and last times: the states before the others, and
    times of calls and weights after them, are the same. For a chain at t_eps, which declares no
    order, the other times only count steps.
    """
    if case.coupled:
        return skipped("rows are coupled, as declared: it chooses its steps")
    ts = quadratic(case.process, max(4, case.least))
    moved = ts.clone()
    moved[2] = 0.7 * ts[2] + 0.3 * ts[1]
    ends = [case.run(4, ts=times)[-1] for times in (ts, moved)]
    if torch.allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12):
        if case.entry.traits.get("order") is None and _stays(case, ts):
            return passed("a chain at t_eps: the other times only count steps")
        raise Broken("moving a time of the grid changes nothing", "step on the ts given")
    p, q = (run_probe(case, times) for times in _sharing(case))
    far = difference(p, q)
    if far.size > SAME and case.entry.evals(case.options) is not None:
        raise Broken(
            f"{far.what} changes, by {far.size:.1g}, with times of the grid that are far away",
            "step from ts[i] to ts[i+1], on the times given",
        )
    note = "" if far.size <= SAME else f"; {far.what} depends on the whole grid"
    return passed(f"moving a time moves the result, by the steps near it alone{note}")


def _sharing(case: Case) -> list[Tensor]:
    """Two uneven grids of 26 steps, the first 8 and the last 13 times the same."""
    process, g = case.process, generator("uneven grids", case.seed)
    shares = torch.rand(2, 26, generator=g, dtype=torch.float64) + 0.3
    shares[1, :7], shares[1, -12:] = shares[0, :7], shares[0, -12:]
    shares[1, 7:-12] *= shares[0, 7:-12].sum() / shares[1, 7:-12].sum()
    grids = []
    for of in shares:
        first = of[:14].cumsum(0) / shares[0].sum()
        last = 1 - of[14:].flip(0).cumsum(0).flip(0) / shares[0].sum()
        roots = torch.cat([first.new_zeros(1), first[:13], last, first.new_ones(1)])
        ts = (process.T**0.5 + roots * (process.t_eps**0.5 - process.T**0.5)).square()
        ts[0], ts[-1] = process.T, process.t_eps
        grids.append(ts)
    return grids

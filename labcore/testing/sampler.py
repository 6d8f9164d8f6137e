"""The contract of a sampler: what every study relies on, checked on anyone's entry.

    labcore.testing.check_sampler(my_entry)

raises SamplerError that names the broken clause; a plugin's test suite needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from labcore.entry import Entry
from labcore.errors import SamplerError
from labcore.guards import undisturbed
from labcore.linop import Event
from labcore.noise import Noise, brownian, initial
from labcore.processes import Process
from labcore.scores import CountedScore, Score, counted
from labcore.targets import state_law
from labcore.testing.audit import default_data, strong_order, weak_order
from labcore.testing.gaussians import gaussian_score
from labcore.testing.models import quadratic, uneven, vp

STEPS = (1, 2, 5, 10, 100, 1000)


class Case:
    """One sampler with its options on one process, and a way to run it."""

    def __init__(self, entry: Entry, process: Process, options: dict[str, Any]) -> None:
        self.entry, self.process, self.options = entry, process, options
        self.event = tuple(process.event(process.event_shape or (2,)))
        self.data_event: Event = process.event_shape or (2,)
        self.data = default_data(torch.Size(self.data_event).numel())
        self._exact = gaussian_score(process, self.data, self.data_event)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact score, which insists on its protocol."""
        if not isinstance(t, Tensor) or t.shape not in ((), (len(x),)):
            raise self.broken(
                f"it calls the score with t={t!r:.40}", "pass a 0-d tensor, such as ts[i]"
            )
        return self._exact(x, t)

    def start(self, seeds: Sequence[int], n: int, dtype: torch.dtype) -> Tensor:
        return self.process.prior().chol @ initial(seeds, n, self.event, dtype=dtype)

    def run(self, steps: int, **how: Any) -> list[Tensor]:
        """Copies of all states; the keywords are those of ``states``."""
        with torch.inference_mode():
            return [x.clone() for x in self.states(steps, **how)]

    def states(
        self,
        steps: int,
        *,
        ts: Tensor | None = None,
        seeds: Sequence[int] = (0,),
        n: int = 3,
        dtype: torch.dtype = torch.float64,
        score: Score | None = None,
    ) -> Iterator[Tensor]:
        """A run on ``ts``, by default the quadratic grid."""
        ts = quadratic(self.process, steps) if ts is None else ts
        x = self.start(seeds, n, dtype)
        noise = brownian(ts, self.event, seeds, n, dtype=dtype)
        return self.call(score or self.score, x, ts, noise)

    def call(self, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
        if not isinstance(score, CountedScore):
            score = counted(score, len(x))
        score.model = replace(score.model, log_prob=self.log_prob, reverse=self.reverse)
        return iter(self.entry(self.process, score, x, ts, noise, **self.options))

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact log-density, for samplers that need one."""
        return state_law(self.process, self.data, t, self.data_event).log_prob(x.flatten(1))

    def reverse(self, x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """The exact kernel X_s | X_t, for samplers that need it."""
        before = state_law(self.process, self.data, s, self.data_event)
        after = state_law(self.process, self.data, t, self.data_event)
        Phi = self.process.Phi(t, s).dense(self.event)[0]
        gain = before.covs[0] @ Phi.T @ torch.linalg.inv(after.covs[0])
        L = torch.linalg.cholesky(before.covs[0] - gain @ Phi @ before.covs[0])
        mean = before.means[0] + (x.flatten(1).double() - after.means[0]) @ gain.T
        return (mean + z.flatten(1).double() @ L.T).reshape(x.shape).to(x)

    def broken(self, clause: str, remedy: str) -> SamplerError:
        return SamplerError(f"sampler '{self.entry.name}': {clause}; {remedy}")


def check_yields(case: Case) -> None:
    """One state for each of ts[1:], in the shape and dtype of x, finite."""
    for dtype in (torch.float32, torch.float64):
        for steps in (1, 2, 7):
            states = case.run(steps, dtype=dtype)
            if len(states) != steps:
                raise case.broken(f"{len(states)} states for {steps} steps", "yield one a step")
            for x in states:
                if x.shape != (3, *case.event) or x.dtype != dtype:
                    raise case.broken(
                        f"it yields {tuple(x.shape)} {x.dtype} for {(3, *case.event)} {dtype}",
                        "keep the shape and dtype of x",
                    )
                if steps > 2 and not bool(torch.isfinite(x).all()):
                    raise case.broken("NaN or Inf on Gaussian data", "check its coefficients")


def check_nfe(case: Case) -> None:
    """The metered NFE is evals a step plus extra, at every step count and precision."""
    traits = case.entry.traits
    evals = case.entry.evals(case.options)
    if not evals:
        return
    for dtype in (torch.float32, torch.float64):
        for steps in STEPS:
            score = counted(case.score, 3)
            case.run(steps, dtype=dtype, score=score)
            declared = evals * steps + traits.get("extra", 0)
            if score.nfe != declared:
                raise case.broken(
                    f"{score.nfe:g} score evaluations in {steps} steps ({dtype}), declared "
                    f"{declared}",
                    "correct evals= and extra=",
                )


def check_times(case: Case) -> None:
    """The score is called within [ts[-1], ts[0]] only."""
    for steps in (1, 3, 20):
        ts = quadratic(case.process, steps)

        def watched(x: Tensor, t: Tensor, ts: Tensor = ts) -> Tensor:
            value = case.score(x, t)
            low, high = float(t.min()), float(t.max())
            if not (float(ts[-1]) <= low and high <= float(ts[0])):
                raise case.broken(
                    f"it calls the score at t={low:g}, outside [{ts[-1]:g}, {ts[0]:g}]",
                    "no score exists there; clamp stage times to the grid",
                )
            return value

        case.run(steps, score=watched)


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


def check_pure(case: Case) -> None:
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
        raise case.broken(
            f"it changes {', '.join(changed)}", "leave it alone; take draws from noise(t, s)"
        )
    for what, value, copy in kept:
        if not torch.equal(value, copy):
            raise case.broken(f"it writes to {what}", "work in place on its own tensors only")


def check_repeatable(case: Case) -> None:
    """A run is the same after another one and beside another one."""
    first = case.run(5)
    case.run(3, seeds=(1,))
    with torch.inference_mode():
        pairs = zip(case.states(5), case.states(5, seeds=(1,)), strict=True)
        beside = [x.clone() for x, _ in pairs]
    for again in (case.run(5), beside):
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise case.broken(
                "two runs of one seed differ", "keep no state between calls: all of it is local"
            )


def check_rows(case: Case) -> None:
    """Rows do not act on each other: two seeds in one batch give what each gives alone."""
    if case.entry.traits.get("coupled"):
        return
    both = case.run(6, seeds=(3, 4))[-1]
    alone = torch.cat([case.run(6, seeds=(seed,))[-1] for seed in (3, 4)])
    if not torch.allclose(both, alone, rtol=1e-9, atol=1e-11):
        raise case.broken(
            "its result depends on how the batch is split", "declare coupled=True if it must"
        )


def check_grid_used(case: Case) -> None:
    """Interior times of the grid matter: it steps on ts, not on a grid of its own."""
    if case.entry.traits.get("coupled"):
        return
    ts = quadratic(case.process, 4)
    moved = ts.clone()
    moved[2] = 0.7 * ts[2] + 0.3 * ts[1]
    ends = [case.run(4, ts=times)[-1] for times in (ts, moved)]
    if torch.allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12):
        raise case.broken("moving a time of the grid changes nothing", "step on the ts given")


def check_order(case: Case, within: float = 0.15) -> None:
    """The order in law, by the exact audit on steps of uneven lengths, is the declared one."""
    declared = case.entry.traits.get("order")
    if declared is None:
        return
    data, event, options = case.data, case.data_event, case.options
    for steps in ((128, 256, 512), (512, 1024)):  # finer where the first are not yet asymptotic
        measured = weak_order(
            case.entry, case.process, uneven, data, steps=steps, event=event, options=options
        )
        if abs(measured.slope - declared) <= within:
            return
    raise case.broken(
        f"its order in law is {measured.slope:.2f} on Gaussian data, declared {declared}",
        "look for a wrong coefficient, or declare what it reaches",
    )


def check_strong(case: Case, within: float = 0.15) -> None:
    """The order on one Brownian path is the declared one, or higher: an affine score spares some
    terms (SRA1 is of strong order 1.5, and of 2 on Gaussian data)."""
    declared = case.entry.traits.get("strong")
    if declared is None:
        return
    measured = strong_order(
        case.entry, case.process, case.score, quadratic, case.event, options=case.options
    )
    if measured.slope < declared - within:
        raise case.broken(
            f"its order on one path is {measured.slope:.2f}, declared strong={declared}",
            "ask noise for the step taken, or declare what it reaches",
        )


CLAUSES: tuple[Callable[[Case], None], ...] = (
    check_pure,
    check_yields,
    check_times,
    check_repeatable,
    check_rows,
    check_grid_used,
    check_nfe,
    check_order,
    check_strong,
)


def check_sampler(entry: Entry, process: Process | None = None, **options: Any) -> None:
    """Hold a sampler entry to its whole contract on ``process`` (default: VP, 2-D data).

    Raises SamplerError that names the first broken clause, and InvalidOption for wrong options.
    """
    case = Case(entry, process or vp(), entry.bind(options))
    for clause in CLAUSES:
        clause(case)

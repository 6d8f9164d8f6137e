"""The contract of a sampler: what every study relies on, checked on anyone's entry.

    labcore.testing.check_sampler(my_entry)

raises SamplerError that names the broken clause; a plugin's test suite needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from labcore.entry import Entry
from labcore.errors import SamplerError
from labcore.linop import Event
from labcore.noise import brownian, initial
from labcore.processes import Process
from labcore.scores import Score, counted
from labcore.testing.audit import default_data, weak_order
from labcore.testing.gaussians import gaussian_score
from labcore.testing.models import quadratic, vp

STEPS = (1, 2, 5, 10, 100, 1000)


class Case:
    """One sampler with its options on one process, and a way to run it."""

    def __init__(self, entry: Entry, process: Process, options: dict[str, Any]) -> None:
        self.entry, self.process, self.options = entry, process, options
        self.event = tuple(process.event(process.event_shape or (2,)))
        self.data_event: Event = process.event_shape or (2,)
        self.data = default_data(torch.Size(self.data_event).numel())
        self.score = gaussian_score(process, self.data, self.data_event)

    def start(self, seeds: Sequence[int], n: int, dtype: torch.dtype) -> Tensor:
        return self.process.prior().chol @ initial(seeds, n, self.event, dtype=dtype)

    def run(
        self,
        steps: int,
        *,
        seeds: Sequence[int] = (0,),
        n: int = 3,
        dtype: torch.dtype = torch.float64,
        score: Score | None = None,
    ) -> list[Tensor]:
        ts = quadratic(self.process, steps)
        x = self.start(seeds, n, dtype)
        noise = brownian(ts, self.event, seeds, n, dtype=dtype)
        with torch.inference_mode():
            states = self.states(score or self.score, x, ts, noise)
            return [state.clone() for state in states]

    def states(self, score: Score, x: Tensor, ts: Tensor, noise: Any) -> Iterator[Tensor]:
        return iter(self.entry(self.process, score, x, ts, noise, **self.options))

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
            if steps > 2 and not bool(torch.isfinite(states[-1]).all()):
                raise case.broken("NaN or Inf on Gaussian data", "check its coefficients")


def check_nfe(case: Case) -> None:
    """The metered NFE is evals a step plus extra, at every step count and precision."""
    traits = case.entry.traits
    if not traits.get("evals"):
        return
    for dtype in (torch.float32, torch.float64):
        for steps in STEPS:
            score = counted(case.score, 3)
            case.run(steps, dtype=dtype, score=score)
            declared = traits["evals"] * steps + traits.get("extra", 0)
            if score.nfe != declared:
                raise case.broken(
                    f"{score.nfe:g} score evaluations in {steps} steps ({dtype}), declared "
                    f"{declared}",
                    "correct evals= and extra=",
                )


def check_times(case: Case) -> None:
    """The score is called within [ts[-1], ts[0]] only, at 0-d or (B,) times."""
    for steps in (1, 3, 20):
        ts = quadratic(case.process, steps)

        def watched(x: Tensor, t: Tensor, ts: Tensor = ts) -> Tensor:
            low, high = float(t.min()), float(t.max())
            if not (float(ts[-1]) <= low and high <= float(ts[0])):
                raise case.broken(
                    f"it calls the score at t={low:g}, outside [{ts[-1]:g}, {ts[0]:g}]",
                    "no score exists there; clamp stage times to the grid",
                )
            return case.score(x, t)

        case.run(steps, score=watched)


def check_pure(case: Case) -> None:
    """Neither x nor ts is changed, the global random state is left alone, nothing is kept."""
    ts, x = quadratic(case.process, 4), case.start([0], 3, torch.float64)
    given, grid, state = x.clone(), ts.clone(), torch.get_rng_state()
    defaults = torch.get_default_dtype(), torch.get_num_threads()
    noise = brownian(ts, case.event, [0], 3, dtype=torch.float64)
    with torch.inference_mode():
        for _ in case.states(case.score, x, ts, noise):
            pass
    if not (torch.equal(x, given) and torch.equal(ts, grid)):
        raise case.broken("it changes its input in place", "work on a copy of x and ts")
    if not torch.equal(torch.get_rng_state(), state):
        raise case.broken("it draws from the global random state", "take draws from noise(t, s)")
    if defaults != (torch.get_default_dtype(), torch.get_num_threads()):
        raise case.broken("it changes torch's default dtype or threads", "leave them alone")
    if not torch.equal(case.run(5)[-1], case.run(5)[-1]):
        raise case.broken("two runs of one seed differ", "keep no state between calls")


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
    x = case.start([0], 3, torch.float64)
    ends = []
    for times in (ts, moved):
        noise = brownian(times, case.event, [0], 3, dtype=torch.float64)
        with torch.inference_mode():
            ends.append([s.clone() for s in case.states(case.score, x, times, noise)][-1])
    if torch.allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12):
        raise case.broken("moving a time of the grid changes nothing", "step on the ts given")


def check_order(case: Case, within: float = 0.15) -> None:
    """The order in law, by the exact audit, is the declared one."""
    declared = case.entry.traits.get("order")
    if declared is None:
        return
    measured = weak_order(
        case.entry, case.process, quadratic, case.data, event=case.data_event, options=case.options
    )
    if abs(measured.slope - declared) > within:
        raise case.broken(
            f"its order in law is {measured.slope:.2f} on Gaussian data, declared {declared}",
            "look for a wrong coefficient, or declare what it reaches",
        )


CLAUSES: tuple[Callable[[Case], None], ...] = (
    check_yields,
    check_nfe,
    check_times,
    check_pure,
    check_rows,
    check_grid_used,
    check_order,
)


def check_sampler(entry: Entry, process: Process | None = None, **options: Any) -> None:
    """Hold a sampler entry to its whole contract on ``process`` (default: VP, 2-D data).

    Raises SamplerError that names the first broken clause, and InvalidOption for wrong options.
    """
    case = Case(entry, process or vp(), entry.bind(options))
    for clause in CLAUSES:
        clause(case)

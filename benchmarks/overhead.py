"""What every sampler costs beyond its score, beside the same methods by hand and in libraries.

python benchmarks/overhead.py     ratios against their goals (some eight minutes)

The samplers are those of the registry, so none can be forgotten. The floor of a run is what cannot
be avoided: the network (and log-density, and exact kernel) called as often as the run calls it,
counted, and one fresh normal of the state's size a draw. An overhead is (time - own floor) over
the floor of ours, so that libraries whose network takes other inputs are held to one unit; a ratio
is 1 + overhead. There are two:

    run       all of a run of 50 steps, with its set-up: what the goals over the floor are for
    a step    what 40 more steps add: a set-up is paid once, however many steps follow

``share`` is our overhead of a step over that of the best peer's same method, and must not exceed
0.6; ``of a run`` is the same of whole runs. ``of the lean`` stands beside, without a goal: a step
of a loop by hand that has one time for the whole batch and does its sums on numbers. The
Brownian paths of ours are the same on grids that nest, the normals of most peers are fresh: our
overhead has the price of that in it. Methods that solve to a tolerance take the steps they like,
so for them both are of the run.

The plugins that run a library's own steps on the lab's grid, score and noise cannot be cheaper
than the library's integrator: they are held beside it, and the loops by hand beside our own.

Everything runs in one thread, interleaved, and is timed by that thread's clock. Ratios are of
median times over all rounds, since a step is a difference of two runs; ``at best`` is the ratio of
each run's fastest round, for a machine on which others work.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import beyond
import peers
import peers_libraries
import timing
import torch
from peers import Runner
from subjects import (
    LONG,
    SHAPE,
    START,
    TS,
    VP,
    N,
    Subject,
    bare_calls,
    clocked,
    quietly,
    subjects,
)
from torch import Tensor

Row = dict[str, object]
MOST = 0.6
"""Of the best peer's overhead."""

AS_IT_IS = {f"torchdiffeq:{name}": 1.05 for name in peers.ADAPTIVE}
"""Solvers with a step control, which is the library's: its own cost, as well as it is measured."""

GOALS = {
    "samplers:euler": 1.2,
    "samplers:ddim": 1.2,
    "samplers:heun": 1.5,
    "samplers:dpmpp_2m": 1.5,
    "samplers:euler_maruyama": 1.15,
    "samplers:ancestral": 1.15,
    "samplers:ddim(eta=1)": 1.15,
    "samplers:sde_dpmpp_2m": 1.4,
    "torchsde:euler": 3.3,
}
"""Of the floor."""


def libraries(ts: Tensor) -> Iterator[Runner]:
    n = len(ts) - 1
    for library in (
        lambda: peers.by_hand(START, ts),
        lambda: peers.by_hand(START, ts, lean=True),
        lambda: peers_libraries.k_diffusion(START, n),
        lambda: peers_libraries.diffusers(START, n),
        lambda: peers_libraries.azula(START, n),
        lambda: peers.torchdiffeq(START, ts),
        lambda: peers.torchsde(START, n, VP.t_eps),
    ):
        try:
            yield from library()
        except ModuleNotFoundError as missing:
            print(f"left out: {missing}")


def check(who: str, x: Tensor) -> None:
    """A benchmark of a wrong program is worth nothing: the samples have the law of the data."""
    mean, std = x.mean(0), x.std(0)
    assert torch.allclose(mean, peers.M, atol=0.2), (who, mean)
    assert torch.allclose(std, torch.full((2,), peers.V**0.5), atol=0.2), (who, std)


Sum = Mapping[str, float]
"""How often each piece of the measured work goes into a sum of times."""


@dataclass(frozen=True)
class Cost:
    """A run, its floor and the floor of ours."""

    who: str
    run: Sum
    floor: Sum
    unit: Sum
    same: tuple[str, ...] = ()
    bound: bool = False

    def ratio(self, times: Sum) -> float:
        run, floor, unit = (
            sum(often * times[name] for name, often in parts.items())
            for parts in (self.run, self.floor, self.unit)
        )
        return 1 + (run - floor) / unit

    def beyond(self, short: "Cost") -> "Cost":
        """What this run costs more than a shorter one; itself, where its floor is no larger."""

        def less(a: Sum, b: Sum) -> Sum:
            return {name: a.get(name, 0) - b.get(name, 0) for name in {**a, **b}}

        unit = less(self.unit, short.unit)
        if sum(unit.values()) < sum(short.unit.values()) / 2:
            return short
        more = less(self.run, short.run), less(self.floor, short.floor), unit
        return replace(self, run=more[0], floor=more[1], unit=more[2])


@dataclass(frozen=True)
class Costs:
    """Of a run, and of what more steps add to it."""

    run: Cost
    step: Cost


Work = dict[str, Callable[[], object]]


def of_ours(subject: Subject, work: Work, rivalled: bool) -> Costs:
    """Its costs, once it was seen to do its work; the runs join the work to be timed."""

    def cost(ts: Tensor) -> Cost:
        x, count = quietly(partial(subject.tried, ts))()
        if subject.lawful:
            check(subject.who, x)
        assert bool(x.isfinite().all()), subject.who
        floor = {f"bare {what}": often / N for what, often in count.calls.items()}
        floor["fresh"] = count.draws / N
        name = f"{subject.who}, {len(ts) - 1} steps"
        work[name] = quietly(partial(subject.run, ts))
        return Cost(subject.who, {name: 1}, floor, floor)

    short = cost(TS)
    return Costs(short, cost(LONG).beyond(short) if rivalled else short)


def of_theirs(short: Runner, long: Runner, work: Work) -> Costs:
    bare = f"{short.who}, bare"
    work[bare] = quietly(short.bare)

    def cost(runner: Runner, name: str) -> Cost:
        x: list[Tensor] = []
        calls = peers.calls(quietly(lambda: x.append(runner.run())))
        check(runner.who, x[0])
        work[name] = quietly(runner.run)
        own = {bare: calls / peers.calls(short.bare), "fresh": runner.draws / N}
        unit = {"bare score": calls / N, "fresh": runner.draws / N}
        return Cost(runner.who, {name: 1}, own, unit, runner.same, runner.bound)

    few, many = cost(short, short.who), cost(long, f"{long.who}, longer")
    return Costs(few, many.beyond(few))


def loops() -> Iterator[Row]:
    """Every sampler over its floor and beside its peers, with a nearly free score."""
    z, generator = torch.empty(SHAPE), torch.Generator().manual_seed(0)

    def fresh() -> None:
        for _ in range(N):
            z.normal_(generator=generator)

    work: Work = {"fresh": quietly(fresh)}
    work |= {f"bare {what}": quietly(bare) for what, bare in bare_calls().items()}
    pairs = zip(libraries(TS), libraries(LONG), strict=True)
    theirs = [of_theirs(*pair, work) for pair in pairs]
    same = {who for peer in theirs for who in peer.run.same}
    ours = [of_ours(subject, work, subject.who in same) for subject in subjects()]
    assert len({peer.run.who for peer in theirs}) == len(theirs), "two peers of one name"
    times = clocked(work, repeats=19, seconds=float(os.environ.get("SEC", "450")))

    middle = timing.medians(times)
    best = {name: min(column) for name, column in times.items()}
    known = {each.run.who: (each.run.ratio(middle), each.step.ratio(middle)) for each in theirs}
    for cost in ours:
        who = cost.run.who
        same_method = [peer.run for peer in theirs if who in peer.run.same]
        rivals = {peer.who: known[peer.who] for peer in same_method if not peer.bound}
        bounds = [known[peer.who][1] for peer in same_method if peer.bound]
        row = judged(who, cost.run.ratio(middle), cost.step.ratio(middle), rivals, bounds)
        yield {**row, "at best": cost.run.ratio(best)}


def judged(
    who: str,
    run: float,
    step: float,
    rivals: Mapping[str, tuple[float, float]],
    bounds: Sequence[float],
) -> Row:
    goal, most = GOALS.get(who), AS_IT_IS.get(who, MOST)
    row: Row = {"sampler": who, "run": run, "goal": f"<= {goal:g}" if goal else ""}
    row["a step"] = step if rivals else ""
    met = [run <= goal] if goal else []
    row |= {"best peer": "", "its step": "", "share": "", "most": "", "of a run": ""}
    row["of the lean"] = part(step, min(bounds)) if bounds else ""
    if rivals:
        peer = min(rivals, key=lambda name: rivals[name][1])
        share = part(step, rivals[peer][1])
        row |= {"best peer": peer, "its step": rivals[peer][1], "share": share, "most": most}
        row["of a run"] = part(run, min(of_run for of_run, _ in rivals.values()))
        met.append(share <= most)
    return {**row, "met": ("yes" if all(met) else "NO") if met else ""}


def part(ours: float, theirs: float) -> float:
    """Our overhead over theirs; without end where theirs is lost in the noise of its floor."""
    return (ours - 1) / (theirs - 1) if theirs > 1 else float("inf")


def main() -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # libraries': of their own future, of rounding in their times
    begun = time.perf_counter()
    met = timing.table(loops())
    print()
    met = timing.table(beyond.rows()) and met
    print(f"{time.perf_counter() - begun:.0f} s; every goal met: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

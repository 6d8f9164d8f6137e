"""What every sampler costs beyond its score, beside the same methods by hand and in libraries.

python benchmarks/overhead.py     ratios against their goals (some half an hour)

The samplers are those of the registry, so none can be forgotten. The floor of a run is what cannot
be avoided: the network (and log-density, and exact kernel) called as often as the run calls it,
counted, and one fresh normal of the state's size a draw, in turn (floors.py). An overhead is (time
- own floor) over the floor of ours, so that libraries whose network takes other inputs are held to
one unit; a ratio is 1 + overhead. There are two:

    run       all of a run of 50 steps, with its set-up: what the goals over the floor are for
    a step    what 40 more steps add: a set-up is paid once, however many steps follow

``share`` is our overhead of a step over that of the best peer's same method, and must not exceed
0.6; ``within`` is the interval of 95 % that the rounds leave for it (drawn again and again with
replacement). A row that the interval does not show to meet its goal is timed once more, alone with
its peers in several processes, and the median of theirs counts: where the states lie in memory is
the chance of a process, and moves a step by a microsecond or two. ``of a run`` is the share of
whole runs. ``of the lean`` stands beside, without a goal: a step of a loop by hand that has one
time for the whole batch and does its sums on numbers. The Brownian paths of ours are the same on
grids that nest, the normals of most peers are fresh: our overhead has the price of that in it.
Methods that solve to a tolerance take the steps they like, so for them both are of the run.

The plugins that run a library's own steps on the lab's grid, score and noise cannot be cheaper
than the library's integrator: they are held beside it, and the loops by hand beside our own.

Everything runs in one thread, interleaved, and is timed by that thread's clock. Ratios are of
median times over all rounds, since a step is a difference of two runs, after each round's times
were divided by how slow the machine was in it; ``at best`` is the ratio of each run's fastest
round, for a machine on which others work.
"""

import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from subprocess import PIPE, run

import beyond
import peers
import peers_libraries
import timing
import torch
from costs import Beside, Cost, Costs, Sum
from floors import Calls, floor
from peers import Runner
from subjects import (
    LONG,
    START,
    TS,
    VP,
    Subject,
    bare_calls,
    clocked,
    quietly,
    subjects,
)
from timing import Rounds
from torch import Tensor

Row = dict[str, object]
MOST = 0.6
"""Of the best peer's overhead."""

PROCESSES, ROUNDS = 5, 30
"""Of a row that the times of the whole table leave open."""

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


Work = dict[str, Callable[[], object]]


def floor_of(who: str, pieces: Mapping[str, Calls], often: Mapping[str, int], work: Work) -> str:
    """The name under which the floor of such a run joins the work to be timed."""
    name = " ".join([who, *(f"{n} {piece}" for piece, n in often.items() if n)])
    work.setdefault(name, quietly(floor(pieces, often)))
    return name


def of_ours(subject: Subject, bare: Mapping[str, Calls], work: Work, rivalled: bool) -> Costs:
    """Its costs, once it was seen to do its work; the runs join the work to be timed."""

    def cost(ts: Tensor) -> Cost:
        x, count = quietly(partial(subject.tried, ts))()
        if subject.lawful:
            check(subject.who, x)
        assert bool(x.isfinite().all()), subject.who
        often = {**dict(sorted(count.calls.items())), "fresh": count.draws}
        unit = {floor_of("bare", bare, often, work): 1}
        name = f"{subject.who}, {len(ts) - 1} steps"
        work[name] = quietly(partial(subject.run, ts))
        return Cost(subject.who, {name: 1}, unit, unit, sum(often.values()))

    short = cost(TS)
    return Costs(short, cost(LONG).beyond(short) if rivalled else short)


def of_theirs(short: Runner, long: Runner, bare: Mapping[str, Calls], work: Work) -> Costs:
    def cost(runner: Runner, name: str) -> Cost:
        x: list[Tensor] = []
        calls = peers.calls(quietly(lambda: x.append(runner.run())))
        check(runner.who, x[0])
        work[name] = quietly(runner.run)
        often = {"score": calls, "fresh": runner.draws}
        own = floor_of(f"{name}, bare", {**bare, "score": runner.bare}, often, work)
        unit = {floor_of("bare", bare, often, work): 1}
        size = sum(often.values())
        return Cost(runner.who, {name: 1}, {own: 1}, unit, size, runner.same, runner.bound)

    few, many = cost(short, short.who), cost(long, f"{long.who}, longer")
    return Costs(few, many.beyond(few))


@dataclass(frozen=True)
class Plan:
    """All that is to be timed, and the costs that are made of it."""

    work: Work
    ours: list[Costs]
    theirs: list[Costs]

    def beside(self) -> list[Beside]:
        return [Beside.of(each, self.theirs) for each in self.ours]


def plan(only: str | None = None) -> Plan:
    """Of every sampler, with a nearly free score; or of one and its peers."""
    work: Work = {}
    bare = bare_calls()
    pairs = zip(libraries(TS), libraries(LONG), strict=True)
    chosen = [pair for pair in pairs if only is None or only in pair[0].same]
    theirs = [of_theirs(*pair, bare, work) for pair in chosen]
    assert len({peer.run.who for peer in theirs}) == len(theirs), "two peers of one name"
    same = {who for peer in theirs for who in peer.run.same}
    those = [subject for subject in subjects() if only in (None, subject.who)]
    ours = [of_ours(each, bare, work, each.who in same) for each in those]
    return Plan(work, ours, theirs)


def loops() -> Iterator[Row]:
    """Every sampler over its floor and beside its peers."""
    everything = plan()
    seconds = float(os.environ.get("SEC", "450"))
    times = clocked(everything.work, repeats=19, seconds=seconds)
    for row in everything.beside():
        those = timing.steadied({name: times[name] for name in row.pieces()})
        yield judged(row, decisive(row, [those]))


def decisive(row: Beside, parts: list[Rounds]) -> list[Rounds]:
    """These times or, where they do not show the goal met, those of processes of its own."""
    if not row.rivals or timing.interval(row.share, parts)[1] <= most(row):
        return parts
    alone = [sys.executable, __file__, "--only", row.who]
    done = (run(alone, check=True, stdout=PIPE, text=True).stdout for _ in range(PROCESSES))
    return [timing.steadied(json.loads(out.splitlines()[-1])) for out in done]


def only(who: str) -> None:
    """The times of one sampler and its peers, for the process that asked."""
    chosen = plan(who)
    (row,) = chosen.beside()
    work = {name: chosen.work[name] for name in row.pieces()}
    print(json.dumps(clocked(work, repeats=ROUNDS, seconds=8)))


def most(row: Beside) -> float:
    return AS_IT_IS.get(row.who, MOST)


def judged(row: Beside, parts: list[Rounds]) -> Row:
    def value(figure: Callable[[Sum], float]) -> float:
        return timing.typical(figure, parts)

    ours, goal = row.ours, GOALS.get(row.who)
    said: Row = {"sampler": row.who, "run": value(ours.run.ratio)}
    said["goal"] = f"<= {goal:g}" if goal else ""
    met = [value(ours.run.ratio) <= goal] if goal else []
    said |= dict.fromkeys(("a step", "best peer", "its step", "share", "within", "most"), "")
    said["of a run"] = ""
    if row.rivals:
        best = min(row.rivals, key=lambda rival: value(rival.step.ratio))
        share, interval = value(row.share), timing.interval(row.share, parts)
        said |= {"a step": value(ours.step.ratio), "best peer": best.run.who}
        said |= {"its step": value(best.step.ratio), "share": share, "most": most(row)}
        said |= {
            "within": "{:.2g}-{:.2g}".format(*interval),
            "of a run": value(row.share_of_a_run),
        }
        met.append(share <= most(row))
    said["of the lean"] = value(row.share_of_bounds) if row.bounds else ""
    quickest = {name: min(c) for name, c in parts[0].items()}
    said |= {"at best": ours.run.ratio(quickest), "processes": len(parts)}
    return {**said, "met": ("yes" if all(met) else "NO") if met else ""}


def main() -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # libraries': of their own future, of rounding in their times
    match sys.argv[1:]:
        case ["--only", who]:
            only(who)
            return 0
    begun = time.perf_counter()
    met = timing.table(loops())
    print()
    met = timing.table(beyond.rows()) and met
    print(f"{time.perf_counter() - begun:.0f} s; every goal met: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""What every sampler costs beyond its score, beside the same methods by hand and in libraries.

python benchmarks/overhead.py     ratios against their goals (under six minutes)

The samplers are those of the registry, so none can be forgotten. The floor of a run is what cannot
be avoided: the network (and log-density, and exact kernel) called as often as the run calls it,
counted, and one fresh normal of the state's size a draw. The overhead is (time - own floor) over
the floor of ours, of the whole run with its set-up, so that libraries whose network takes other
inputs are held to one unit; a ratio is 1 + overhead.

The goal beside others is for the overhead: ``share`` is ours over that of the best peer's same
method, and must not exceed 0.6. (The quotient of the ratios themselves, ``of it``, cannot go below
1 over the peer's, which for the plainest loops is above 0.6 already.) Methods that other plugins
of ours run by a library's own steps are held beside that library too; entries that do nothing but
run a library on the lab's grid, score and noise stand without a peer.

Everything runs in one thread, interleaved, and is timed by that thread's clock; ``at best`` is the
ratio of each one's fastest round, for a machine on which others work.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import beyond
import peers
import peers_libraries
import timing
import torch
from peers import Runner
from subjects import SHAPE, START, TS, VP, N, Subject, bare_calls, clocked, quietly, subjects
from torch import Tensor

Row = dict[str, object]
MOST = 0.6
"""Of the best peer's overhead."""

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


def libraries() -> Iterator[Runner]:
    for library in (
        lambda: peers.by_hand(START, TS),
        lambda: peers_libraries.k_diffusion(START, N),
        lambda: peers_libraries.diffusers(START, N),
        lambda: peers_libraries.azula(START, N),
        lambda: peers.torchdiffeq(START, TS),
        lambda: peers.torchsde(START, N, VP.t_eps),
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


@dataclass(frozen=True)
class Cost:
    """A run and its floor, as a sum of times by name in the measured work."""

    who: str
    floor: dict[str, float]
    unit: dict[str, float]
    same: tuple[str, ...] = ()

    def ratio(self, times: dict[str, float]) -> float:
        def of(parts: dict[str, float]) -> float:
            return sum(often * times[name] for name, often in parts.items())

        return 1 + (times[self.who] - of(self.floor)) / of(self.unit)


def of_ours(subject: Subject, work: dict[str, Callable[[], object]]) -> Cost:
    """Its cost, once it was seen to do its work; the run joins the work to be timed."""
    x, count = quietly(subject.tried)()
    if subject.lawful:
        check(subject.who, x)
    assert bool(x.isfinite().all()), subject.who
    floor = {f"bare {what}": often / N for what, often in count.calls.items()}
    floor["fresh"] = count.draws / N
    work[subject.who] = quietly(subject.run)
    return Cost(subject.who, floor, floor)


def of_theirs(runner: Runner, work: dict[str, Callable[[], object]]) -> Cost:
    x: list[Tensor] = []
    calls = peers.calls(quietly(lambda: x.append(runner.run())))
    check(runner.who, x[0])
    bare = f"bare {id(runner.bare)}"
    work[bare], work[runner.who] = quietly(runner.bare), quietly(runner.run)
    own = {bare: calls / peers.calls(work[bare]), "fresh": runner.draws / N}
    unit = {"bare score": calls / N, "fresh": runner.draws / N}
    return Cost(runner.who, own, unit, runner.same)


def loops() -> Iterator[Row]:
    """Every sampler over its floor and beside its peers, with a nearly free score."""
    z, generator = torch.empty(SHAPE), torch.Generator().manual_seed(0)

    def fresh() -> None:
        for _ in range(N):
            z.normal_(generator=generator)

    work: dict[str, Callable[[], object]] = {"fresh": quietly(fresh)}
    work |= {f"bare {what}": quietly(bare) for what, bare in bare_calls().items()}
    ours = [of_ours(subject, work) for subject in subjects()]
    theirs = [of_theirs(runner, work) for runner in libraries()]
    times = clocked(work, repeats=15, seconds=float(os.environ.get("SEC", "150")))

    rounds = [
        dict(zip(times, column, strict=True)) for column in zip(*times.values(), strict=True)
    ]
    best = {name: min(column) for name, column in times.items()}

    def ratio(cost: Cost) -> float:
        return float(torch.tensor([cost.ratio(each) for each in rounds]).median())

    known = {cost.who: ratio(cost) for cost in theirs}
    for cost in ours:
        rivals = {peer.who: known[peer.who] for peer in theirs if cost.who in peer.same}
        yield {**judged(cost.who, ratio(cost), rivals), "at best": cost.ratio(best)}


def judged(who: str, ratio: float, rivals: dict[str, float]) -> Row:
    goal = GOALS.get(who)
    row: Row = {"sampler": who, "ratio": ratio, "floor goal": f"<= {goal:g}" if goal else ""}
    met = [ratio <= goal] if goal else []
    row |= {"best peer": "", "its ratio": "", "of it": "", "share": ""}
    if rivals:
        peer = min(rivals, key=lambda name: rivals[name])
        share = (ratio - 1) / (rivals[peer] - 1)
        row |= {"best peer": peer, "its ratio": rivals[peer], "of it": ratio / rivals[peer]}
        row |= {"share": share}
        met.append(share <= MOST)
    return {**row, "met": ("yes" if all(met) else "NO") if met else ""}


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

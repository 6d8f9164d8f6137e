"""What a sampler costs beyond its score: ours, loops written by hand and other libraries.

python benchmarks/overhead.py     ratios against their goals (under three minutes)

The floor is what cannot be avoided: the network called as often, and one fresh normal a draw. A
ratio is 1 + (time - own floor) / floor of ours, so that libraries whose network takes other
inputs are held to one unit; ``passes`` is the same overhead a step in passes over the state (one
elementwise operation out of place), which does not depend on the score. Everything runs in one
thread, interleaved, and is timed by that thread's clock; ``at best`` is the ratio of each one's
fastest round, for a machine on which others work.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import peers
import timing
import torch
from alive import Alive
from peers import Runner
from torch import Tensor

import labcore
from labcore.noise import brownian
from labcore.testing import quadratic, vp
from labcore_samplers import ancestral, ddim, euler, euler_maruyama, heun
from labcore_torchsde import register_samplers as torchsde_samplers

Row = dict[str, object]
N, SHAPE = 50, (4096, 2)
VP = vp(peers.B0, peers.B1)
TS = quadratic(VP, N)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
THROUGH_TORCHSDE = next(e for e in torchsde_samplers() if e.name == "euler")

clocked = partial(timing.rounds, clock=time.thread_time)


def quietly(fn: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return fn()

    return run


def repeated(fn: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [fn() for _ in range(times)]


def run(
    sampler: labcore.Entry,
    x: Tensor = START,
    ts: Tensor = TS,
    score: labcore.Score = peers.score,
    process: labcore.Process = VP,
    **options: Any,
) -> Tensor:
    """One run as a study makes it: noise, coefficients, loop; the last state."""
    noise = brownian(ts, x.shape[1:], [0], len(x))
    return deque(sampler(process, score, x, ts, noise, **options), maxlen=1).pop()


def ours() -> Iterator[Runner]:
    times = TS[:-1].unbind()

    def bare() -> None:
        for t in times:
            peers.score(START, t)

    yield Runner("labcore, euler", partial(run, euler), bare)
    yield Runner("labcore, ddim", partial(run, ddim), bare)
    yield Runner("labcore, heun", partial(run, heun), bare, evals=2)
    yield Runner("labcore, euler_maruyama", partial(run, euler_maruyama), bare, stochastic=True)
    yield Runner("labcore, ancestral", partial(run, ancestral), bare, stochastic=True)
    yield Runner("labcore, ddim(eta=1)", partial(run, ddim, eta=1.0), bare, stochastic=True)
    yield Runner("labcore, torchsde euler", partial(run, THROUGH_TORCHSDE), bare, stochastic=True)


GOALS = {
    "labcore, euler": 1.2,
    "labcore, ddim": 1.2,
    "labcore, heun": 1.5,
    "labcore, euler_maruyama": 1.15,
    "labcore, ancestral": 1.15,
    "labcore, ddim(eta=1)": 1.15,
    "labcore, torchsde euler": 3.3,
}


def everyone() -> Iterator[Runner]:
    yield from ours()
    for library in (
        lambda: peers.by_hand(START, TS),
        lambda: peers.k_diffusion(START, N),
        lambda: peers.diffusers(START, N),
        lambda: peers.azula(START, N),
        lambda: peers.torchdiffeq(START, TS),
        lambda: peers.torchsde(START, N, VP.t_eps),
    ):
        try:
            yield from library()
        except ModuleNotFoundError as missing:
            print(f"left out: {missing}")


def check(runner: Runner) -> None:
    """A benchmark of a wrong program is worth nothing: the samples have the law of the data."""
    x = quietly(runner.run)()
    mean, std = x.mean(0), x.std(0)
    assert torch.allclose(mean, peers.M, atol=0.2), (runner.who, mean)
    assert torch.allclose(std, torch.full((2,), peers.V**0.5), atol=0.2), (runner.who, std)


def loops() -> Iterator[Row]:
    """Every library's loop over its floor, with a nearly free score."""
    runners, z = list(everyone()), torch.empty(SHAPE)
    generator = torch.Generator().manual_seed(0)

    def fresh() -> None:
        for _ in range(N):
            z.normal_(generator=generator)

    def once() -> None:
        for _ in range(N):
            torch.neg(z)

    work = {"fresh": quietly(fresh), "pass": quietly(once)}
    for runner in runners:
        check(runner)
        work[f"bare {runner.who}"] = quietly(repeated(runner.bare, runner.evals))
        work[runner.who] = quietly(runner.run)
    times = clocked(work, repeats=15, seconds=60)

    for runner in sorted(runners, key=lambda r: (r.stochastic, r.evals)):
        kind = "stochastic" if runner.stochastic else "deterministic"
        label = f"{kind}, {runner.evals} call{'s' * (runner.evals > 1)} a step"
        ratio, best, passes = overhead(runner, times)
        row = timing.row(label, runner.who, ratio, GOALS.get(runner.who))
        yield {**row, "at best": best, "passes": passes}


def overhead(runner: Runner, times: timing.Rounds) -> tuple[float, float, float]:
    """The ratio, the same from each column's fastest round, and the passes; see above."""
    draws = float(runner.stochastic)
    unit = f"bare labcore, {'heun' if runner.evals == 2 else 'euler'}"
    names = (runner.who, f"bare {runner.who}", unit, "fresh", "pass")

    def compare(own: float, bare: float, floor: float, fresh: float, one: float) -> Tensor:
        spent = own - bare - draws * fresh
        return torch.tensor([1 + spent / (floor + draws * fresh), spent / one])

    columns = [times[name] for name in names]
    rounds = torch.stack([compare(*c) for c in zip(*columns, strict=True)])
    ratio, passes = rounds.median(0).values.tolist()
    return ratio, float(compare(*map(min, columns))[0]), passes


def larger(copies: int = 8) -> Iterator[Row]:
    """The same on a batch of 32768, where the cost of a call weighs less beside its work."""
    x, z, times = START.repeat(copies, 1), torch.empty(START.repeat(copies, 1).shape), TS[:-1]
    generator = torch.Generator()
    work: dict[str, Callable[[], object]] = {
        "bare": lambda: [peers.score(x, t) is None for t in times],
        "bare, normals": lambda: [
            (peers.score(x, t) is None, z.normal_(generator=generator) is None) for t in times
        ],
        "euler": lambda: run(euler, x),
        "euler_maruyama": lambda: run(euler_maruyama, x),
    }
    measured = clocked({k: quietly(f) for k, f in work.items()}, repeats=9, seconds=15)
    for who, floor, goal in (("euler", "bare", 1.2), ("euler_maruyama", "bare, normals", 1.15)):
        ratio = timing.ratios(measured, floor)[who]
        yield timing.row(f"batch of {len(x)}", f"labcore, {who} / {floor}", ratio, goal)


class Net(torch.nn.Module):
    """A small network plus the score of N(0, I); the time is embedded once when it is shared."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.time = torch.nn.Sequential(torch.nn.Linear(32, width), torch.nn.SiLU())
        self.rise = torch.nn.Linear(2, width)
        self.body = torch.nn.Sequential(
            torch.nn.SiLU(),
            torch.nn.Linear(width, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, 2),
        )
        self.w = torch.linspace(1, 16, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t.to(x).unsqueeze(-1) * self.w
        embedded = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        return self.body(self.rise(x) + embedded) - x


def networks() -> Iterator[Row]:
    """The same loops on a real network, over its bare calls with one time and with (B,) times."""
    torch.manual_seed(0)
    net, x, z = Net().eval(), START[:1024], torch.empty(1024, 2)
    generator, times = torch.Generator(), TS[:-1].unbind()
    work: dict[str, Callable[[], object]] = {
        "one t": lambda: [net(x, t) is None for t in times],
        "a t a sample": lambda: [net(x, t.expand(1024)) is None for t in times],
        "one t, normals": lambda: [
            (net(x, t) is None, z.normal_(generator=generator) is None) for t in times
        ],
        "euler": lambda: run(euler, x, score=net),
        "euler_maruyama": lambda: run(euler_maruyama, x, score=net),
    }
    measured = clocked({k: quietly(f) for k, f in work.items()}, repeats=25, seconds=20)
    for who, floor, goal in (
        ("euler", "one t", 1.05),
        ("euler_maruyama", "one t, normals", 1.05),
        ("euler", "a t a sample", 0.85),
    ):
        ratio = timing.ratios(measured, floor)[who]
        yield timing.row("network 2-128-128-2", f"labcore, {who} / {floor}", ratio, goal)


def increments(n: int = 1000) -> Iterator[Row]:
    """Increments of one Brownian path along a grid, over as many fresh normals."""
    import torchsde

    ts, generator = quadratic(VP, n), torch.Generator().manual_seed(0)
    times = ts.unbind()
    us = (-ts).tolist()

    def library(motion: Any) -> Callable[[], object]:
        def walk() -> None:
            B = motion(us[0], us[-1])
            for a, b in pairwise(us):
                B(a, b)

        return walk

    def path() -> None:
        noise = brownian(ts, SHAPE[1:], [0], SHAPE[0])
        for t, s in pairwise(times):
            noise(t, s)

    work: dict[str, Callable[[], object]] = {
        "fresh": lambda: [torch.randn(SHAPE, generator=generator) for _ in range(n)],
        "labcore": path,
        "BrownianInterval": library(
            lambda a, b: torchsde.BrownianInterval(a, b, SHAPE, entropy=0)
        ),
        "BrownianTree": library(
            lambda a, b: torchsde.BrownianTree(a, torch.zeros(SHAPE), b, entropy=0)
        ),
    }
    ratio = timing.ratios(clocked(work, repeats=7, seconds=15), "fresh")
    for who, goal in (("labcore", 1.3), ("BrownianInterval", None), ("BrownianTree", None)):
        yield timing.row(f"{n} Brownian increments / fresh", who, ratio[who], goal)


def memory(n: int = 400) -> Iterator[Row]:
    """Peak memory in states of a run of n steps."""
    x, ts = START.repeat(8, 1), quadratic(VP, n)
    subjects: dict[str, Callable[[], object]] = {
        "labcore, euler": lambda: run(euler, x, ts),
        "labcore, heun": lambda: run(heun, x, ts),
        "labcore, euler_maruyama": lambda: run(euler_maruyama, x, ts),
        "labcore, ancestral": lambda: run(ancestral, x, ts),
        "labcore, torchsde euler": lambda: run(THROUGH_TORCHSDE, x, ts),
        "by hand, Euler-Maruyama": list(peers.by_hand(x, ts))[3].run,
        "torchsde, euler": next(peers.torchsde(x, n, VP.t_eps)).run,
        "torchdiffeq, euler": next(peers.torchdiffeq(x, ts)).run,
    }
    for who, subject in subjects.items():
        with Alive() as alive, torch.inference_mode():
            subject()
        states = alive.peak / (x.numel() * x.element_size())
        goal = 12.0 if who.startswith("labcore") else None
        yield timing.row(f"peak memory in states, {n} steps", who, states, goal)


def main() -> int:
    torch.set_num_threads(1)
    begun = time.perf_counter()
    rows = [*loops(), *larger(), *networks(), *increments(), *memory()]
    met = timing.table(rows)
    print(f"{time.perf_counter() - begun:.0f} s; every goal met: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

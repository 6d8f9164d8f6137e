"""Overhead beyond the table of all samplers: larger batches, a real network, noise, memory."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import peers
import timing
import torch
from alive import Alive
from subjects import SHAPE, START, TS, VP, clocked, quietly, run
from torch import Tensor

from labcore.noise import brownian
from labcore.registry import load_registry
from labcore.testing import quadratic
from labcore_samplers import ancestral, euler, euler_maruyama, heun

Row = dict[str, object]
THROUGH_TORCHSDE = load_registry().get("sampler", "torchsde:euler")


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
        "by hand, Euler-Maruyama": named(peers.by_hand(x, ts), "by hand, Euler-Maruyama"),
        "torchsde, euler": named(peers.torchsde(x, n, VP.t_eps), "torchsde, euler"),
        "torchdiffeq, euler": named(peers.torchdiffeq(x, ts), "torchdiffeq, euler"),
    }
    for who, subject in subjects.items():
        with Alive() as alive, torch.inference_mode():
            subject()
        states = alive.peak / (x.numel() * x.element_size())
        goal = 12.0 if who.startswith("labcore") else None
        yield timing.row(f"peak memory in states, {n} steps", who, states, goal)


def named(runners: Iterator[peers.Runner], who: str) -> Callable[[], Tensor]:
    return next(runner.run for runner in runners if runner.who == who)


def rows() -> list[Row]:
    return [*larger(), *networks(), *increments(), *memory()]

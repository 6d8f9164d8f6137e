"""A training step over the bare network's forward and backward, beside usual loops, as ratios.

python benchmarks/training.py         every case against its goal (a minute)

The floor is the network alone: forward on given inputs and levels, the mean square of its output,
and backward, at batch 2048 on one thread. What a step adds is drawing data, times and noise, the
operators at 2048 different times, the loss, clipping, Adam and the moving average of the weights.
The hand loop is what one writes first, torch's defaults and an average in a Python loop; azula's
is its own denoiser and loss, with the same optimiser, clipping and average as the hand loop's.
Floors of the operators are the two batched matrix products that use them.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timing
import torch
from torch import Tensor

import labcore
from labcore import Parts, Recipe, load_registry, read_use
from labcore.kernels import exact_kernel, perturbation_kernel
from labcore.learn.devices import Alone
from labcore.learn.session import Session, begin

Work = Callable[[], object]
BATCH = 2048
NETWORK = "mlp(width=256, depth=4)"


CASES = {
    "scalar, vp, d=2": ("gaussian(d=2)", "vp"),
    "scalar, vp, d=64": ("digits", "vp"),
    "diagonal, diag_vp, d=64": ("digits", "diag_vp(d=64)"),
    "dense, ou, d=64": ("digits", "ou(d=64)"),
    "channels, cld, d=64": ("digits", "cld"),
}


def session(target: str, process: str, registry: labcore.Registry) -> Session:
    """A training about to begin."""
    uses = [read_use(text) for text in (target, process, NETWORK, "dsm")]
    recipe = Recipe(uses[0], uses[1], uses[2], uses[3], batch=BATCH, warmup=0).resolve(registry)
    return begin(recipe, Parts(registry), Path(tempfile.gettempdir()), Alone(torch.device("cpu")))


def floor(net: torch.nn.Module, event: tuple[int, ...]) -> Work:
    x, c = torch.randn(BATCH, *event), torch.linspace(-1, 1, BATCH)

    def bare() -> None:
        net.zero_grad(set_to_none=True)
        net(x, c).square().mean().backward()

    return bare


def by_hand(net: torch.nn.Module, loss: Callable[[], Tensor]) -> Work:
    """What one writes first around a loss."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    average = copy.deepcopy(net)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), net.parameters(), strict=True):
                kept.mul_(0.999).add_(new, alpha=0.001)

    return step


def hand_loss(made: Session) -> Callable[[], Tensor]:
    """VP by its two coefficients."""

    def loss() -> Tensor:
        x0 = made.draw(BATCH, torch.Generator()).float()
        t = torch.rand(BATCH) * (1 - 1e-3) + 1e-3
        log_a = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
        a, s = log_a.exp(), (1 - (2 * log_a).exp()).sqrt()
        z = torch.randn_like(x0)
        x = a[:, None] * x0 + s[:, None] * z
        result: Tensor = (made.net(x, (s / a).log() / 4) - z).square().sum(1).mean()
        return result

    return loss


def azula_loss(made: Session) -> Callable[[], Tensor]:
    """azula's own preconditioned denoiser under its VP schedule, and its loss."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = made.net

        def forward(self, x: Tensor, c: Tensor, **given: Any) -> Tensor:
            F: Tensor = self.net(x, c)
            return F

    denoiser = KarrasDenoiser(Backbone(), VPSchedule())

    def loss() -> Tensor:
        x0 = made.draw(BATCH, torch.Generator()).float()
        result: Tensor = denoiser.loss(x0, torch.rand(BATCH)).mean()
        return result

    return loss


def steps(label: str, registry: labcore.Registry) -> Iterator[dict[str, object]]:
    made = session(*CASES[label], registry)
    work = {"floor": floor(copy.deepcopy(made.net), made.event), "labcore": made.advance}
    if "scalar" in label:
        fresh = [copy.copy(made) for _ in range(2)]
        for one in fresh:
            one.net = copy.deepcopy(made.net)
        work["hand loop"] = by_hand(fresh[0].net, hand_loss(fresh[0]))
        work["azula"] = by_hand(fresh[1].net, azula_loss(fresh[1]))
    found = timing.ratios(
        timing.rounds(work, repeats=21, seconds=15.0, clock=time.thread_time), "floor"
    )
    for who in list(work)[1:]:
        goal = 1.06 if who == "labcore" else None
        yield timing.row(f"step, {label}", who, found[who], goal)


def kernels(name: str, registry: labcore.Registry, d: int, B: int) -> Iterator[dict[str, object]]:
    process = Parts(registry).process(read_use(name).resolve("process", registry))
    kernel = perturbation_kernel(process, dtype=torch.float32)
    exact = exact_kernel(process)
    t = torch.rand(B, dtype=torch.float64) * (process.T - process.t_eps) + process.t_eps
    Phi, L, _ = kernel(t)
    x = torch.randn(B, *process.event((d,)))
    work: dict[str, Work] = {
        "floor": lambda: (Phi @ x, L @ x),
        "labcore": lambda: kernel(t),
        "exponentials and factors": lambda: exact(t),
    }
    found = timing.ratios(
        timing.rounds(work, repeats=15, seconds=10.0, clock=time.thread_time), "floor"
    )
    for who in list(work)[1:]:
        goal = 1.5 if who == "labcore" else None
        yield timing.row(f"Phi and L at {B} times, {name}", who, found[who], goal)


def rows() -> Iterator[dict[str, object]]:
    registry = load_registry()
    for label in CASES:
        yield from steps(label, registry)
    yield from kernels("ou(d=64)", registry, 64, 512)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, one thread, {NETWORK}; a ratio is the time over the floor's"
    )
    return 0 if timing.table(list(rows())) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Cells a second: a study of many small cells, from the axes to rows in a store.

    python benchmarks/study.py

One cell is 50 DDIM steps of 512 samples of a 2-D Gaussian and its sliced W2 (50 directions). The
floor is what every way must do: a draw of x_T and of the reference, 50 bare score calls in
blocks of 100 cells, and the projections and sorts of the metric. Peers run the cells one by one,
as scripts do: a hand-written loop, and torchsde's sdeint with its own noise, each measured by
POT's sliced distance. All on one thread, in turn.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import ratios, rounds, row, table
from torch import Tensor

import labcore
from labcore import lab, use

STEPS, SAMPLES, DIRECTIONS, CELLS, BLOCK = 50, 512, 50, 400, 100

study = labcore.Study(
    name="rate",
    question="how many cells a second?",
    target=use("targets:gaussian"),
    process=use("vp"),
    grid=use("log_snr"),
    sampler="ddim",
    steps=STEPS,
    seed=range(CELLS),
    n=SAMPLES,
    metrics=[use("sliced_w2", directions=DIRECTIONS)],
    floor_repeats=2,
)


class Bench:
    """The parts of the cells, shared by every way of running them."""

    def __init__(self) -> None:
        self.registry = labcore.load_registry()
        self.cells = study.cells(self.registry)
        parts = lab.Parts(self.registry)
        cell = self.cells[0]
        self.process = parts.process(cell.process)
        self.target = parts.target(cell.target)
        self.score = parts.score(cell.score, cell.process, cell.target)
        self.ts = parts.times(cell)
        self.reference = self.target.sample(SAMPLES, torch.Generator().manual_seed(0))

    def ours(self) -> None:
        """Through the whole lab: expansion, checks, noise, counting, metric, durable store."""
        with tempfile.TemporaryDirectory() as folder:
            summary = lab.run_study(study, Path(folder) / "s.sqlite")
        if summary.failed:
            raise SystemExit(f"{summary.failed} cells failed")

    def floor(self) -> None:
        """Draws, score calls, projections and sorts, and nothing else."""
        x = torch.randn(BLOCK * SAMPLES, 2, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for _ in range(CELLS // BLOCK):
                for t in self.ts[:-1]:
                    self.score(x, t)
        along = torch.randn(2, DIRECTIONS)
        for _ in range(2 * CELLS):
            np.sort((torch.randn(SAMPLES, 2) @ along).T.numpy(), axis=1)

    def hand(self, seed: int) -> None:
        """A hand-written DDIM loop, with POT for the distance."""
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(SAMPLES, 2, generator=g)
        zero = torch.zeros((), dtype=torch.float64)
        with torch.inference_mode():
            for t, s in zip(self.ts[:-1], self.ts[1:], strict=True):
                a_t, a_s = self.process.Phi(t, zero).param, self.process.Phi(s, zero).param
                v_t, v_s = self.process.Sigma(t).param, self.process.Sigma(s).param
                eps = -v_t.sqrt().float() * self.score(x, t)
                x0 = (x - v_t.sqrt().float() * eps) / a_t.float()
                x = a_s.float() * x0 + v_s.sqrt().float() * eps
        self.distance(x, seed)

    def torchsde(self, seed: int) -> None:
        """sdeint on the reverse SDE in uniform steps, with POT for the distance."""
        import torchsde

        T, end, score, process = self.process.T, float(self.ts[-1]), self.score, self.process

        class Reverse(torch.nn.Module):
            noise_type, sde_type = "diagonal", "ito"

            def f(self, u: Tensor, x: Tensor) -> Tensor:
                t = torch.clamp(-u.double(), min=end)
                beta = process.GG(t).param.float()
                return 0.5 * beta * x + beta * score(x, t)

            def g(self, u: Tensor, x: Tensor) -> Tensor:
                t = torch.clamp(-u.double(), min=end)
                return process.G(t).param.float().expand_as(x)

        x = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(seed))
        times = torch.tensor([-T, -end])
        brownian = torchsde.BrownianInterval(-T, -end, size=x.shape, entropy=seed)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = torchsde.sdeint(
                Reverse(), x, times, bm=brownian, dt=(T - end) / STEPS, method="euler"
            )[-1]
        self.distance(x, seed)

    def distance(self, x: Tensor, seed: int) -> None:
        import ot

        ot.sliced_wasserstein_distance(
            x.numpy(), self.reference.numpy(), n_projections=DIRECTIONS, seed=seed
        )


def several(run: Callable[[int], None], times: int) -> Callable[[], None]:
    def work() -> None:
        for seed in range(times):
            run(seed)

    return work


def main() -> None:
    torch.set_num_threads(1)
    bench, few = Bench(), 5
    work = {
        "floor": bench.floor,
        "labcore": bench.ours,
        "hand loop + POT": several(bench.hand, few),
        "torchsde + POT": several(bench.torchsde, few),
    }
    times = rounds(work, repeats=9, seconds=90)
    for name in ("hand loop + POT", "torchsde + POT"):
        times[name] = [seconds * CELLS / few for seconds in times[name]]
    over = ratios(times, "floor")
    best = min(times["labcore"])
    goals = {"labcore": 2181 / 1000}
    ok = table(
        row(f"{CELLS} cells, over the floor", name, over[name], goals.get(name)) for name in times
    )
    slower = over["hand loop + POT"] / over["labcore"]
    ok &= table([row("hand loop over labcore", "", slower, 10, least=True)])
    print(f"\nlabcore on this machine: {CELLS / best:.0f} cells a second on one core")
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()

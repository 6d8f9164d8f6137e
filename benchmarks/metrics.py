"""The metrics beside POT, scikit-learn and brute force, one thread, timed in turn.

python benchmarks/metrics.py          ratios and peak memory against their goals (two minutes)
python benchmarks/metrics.py sees     which shift and spread each metric detects (half an hour)

Peers are imported only here. A ratio is ours over the floor, or a peer over ours.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import ot
import timing
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import rbf_kernel

import labcore
from labcore_metrics import register_metrics
from labcore_metrics.assignment import assignment_distance
from labcore_metrics.energy_distance import energy_distance, sliced_energy_distance
from labcore_metrics.gaussian import frechet_distance, law_moments
from labcore_metrics.kernel import mmd2
from labcore_metrics.sliced import frames, sliced_distance

Row = dict[str, object]


def sets(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g), torch.randn(n, d, generator=g) + 0.1


def sliced(n: int, d: int, L: int) -> Iterator[Row]:
    """Sliced W2 over its sorts, and POT over ours, with the same directions."""
    (x, y), theta = sets(n, d), frames(L, d, torch.Generator().manual_seed(0))
    a, b = ((theta.float() @ z.T).numpy() for z in (x, y))
    flat = (x.numpy(), y.numpy())
    projections = np.ascontiguousarray(theta.T.numpy(), dtype=np.float32)
    times = timing.rounds(
        {
            "sorts": lambda: (np.sort(a, axis=1), np.sort(b, axis=1)),
            "sliced_w2": lambda: sliced_distance(x, y, theta),
            "energy by sorting": lambda: sliced_energy_distance(x, y, theta),
            "POT": lambda: ot.sliced_wasserstein_distance(*flat, projections=projections),
        },
        repeats=3,
        seconds=5,
    )
    work, ratio = f"sliced W2, n={n}, d={d}, {L} directions", timing.ratios(times, "sorts")
    yield timing.row(work, "ours / its sorts", ratio["sliced_w2"])
    yield timing.row(work, "POT / ours", timing.ratios(times, "sliced_w2")["POT"], 15, least=True)
    yield timing.row(work, "energy by sorting / sorts", ratio["energy by sorting"])


def pair_work(n: int, d: int) -> dict[str, Callable[[], float]]:
    """Energy and MMD over all pairs in our blocks, and on whole distance matrices."""
    x, y = sets(n, d)
    a, b = x.double().numpy(), y.double().numpy()

    def whole(kernel: Callable[..., np.ndarray]) -> Callable[[], float]:
        return lambda: float(kernel(a, b).mean() - (kernel(a, a).sum() + kernel(b, b).sum()) / n)

    return {
        "energy": lambda: energy_distance(x, y),
        "energy, matrices": whole(lambda p, q: ot.dist(p, q, metric="euclidean")),
        "mmd": lambda: mmd2(x, y, 1.5),
        "mmd, matrices": whole(lambda p, q: rbf_kernel(p, q, gamma=1 / 4.5)),
    }


def all_pairs(n: int, d: int) -> Iterator[Row]:
    times = timing.rounds(pair_work(n, d), repeats=3, seconds=5)
    for name, peer in (("energy", "POT"), ("mmd", "scikit-learn")):
        label = f"{name}, all pairs, n={n}, d={d}"
        ratio = timing.ratios(times, name)[f"{name}, matrices"]
        yield timing.row(label, f"{peer}'s matrices / ours", ratio, 1, least=True)
        if d == 2:
            yield timing.row(label, "ours, peak MB", peak_memory(name, n, d), 15)
            peak = peak_memory(f"{name}, matrices", n, d)
            yield timing.row(label, f"{peer}'s matrices, peak MB", peak)


def matching(n: int, d: int) -> Iterator[Row]:
    x, y = sets(n, d)
    a, b = x.double().numpy(), y.double().numpy()
    times = timing.rounds(
        {
            "w2": lambda: assignment_distance(x, y),
            "POT": lambda: ot.emd2([], [], ot.dist(a, b)),
        },
        repeats=5,
        seconds=5,
    )
    label = f"exact W2, n={n}, d={d}"
    yield timing.row(label, "POT / ours", timing.ratios(times, "w2")["POT"])


def gaussians(d: int) -> Iterator[Row]:
    x, y = sets(2 * d, d)
    S, R = torch.cov(x.double().T), torch.cov(y.double().T)
    m, n = x.double().mean(0), y.double().mean(0)

    def matrix_root() -> float:
        root = np.real(sqrtm((S @ R).numpy()))
        return float((m - n).square().sum() + S.trace() + R.trace()) - 2 * float(np.trace(root))

    def ours() -> float:
        return frechet_distance(law_moments(m, S), law_moments(n, R))

    times = timing.rounds({"frechet": ours, "sqrtm": matrix_root}, repeats=5, seconds=5)
    yield timing.row(f"Frechet, d={d}", "sqrtm / ours", timing.ratios(times, "frechet")["sqrtm"])


def peak_memory(name: str, n: int, d: int) -> float:
    """MB of resident memory that the named work adds, in a process that did nothing before."""
    command = [sys.executable, __file__, "peak", name, str(n), str(d)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, n: int, d: int) -> None:
    page, done = os.sysconf("SC_PAGE_SIZE") / 2**20, threading.Event()
    statm = Path("/proc/self/statm")

    def resident() -> float:
        return int(statm.read_text().split()[1]) * page

    pair_work(64, d)[name]()
    work = pair_work(n, d)[name]
    seen = [resident()]

    def watch() -> None:
        while not done.wait(1e-3):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    print(max(seen) - seen[0])


# What each metric can see


def moved(n: int, d: int, kind: str, size: float, seed: int) -> labcore.Outcome:
    """Two standard Gaussian sets, the first moved: mean + size e_1, or width times 1 + size."""
    one, eye = torch.ones(1, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    law = labcore.Mixture(one, 0 * eye[:1], eye[None])
    g = torch.Generator().manual_seed(seed if size == 0 else 1000 + seed)
    x, y = torch.randn(n, d, generator=g), torch.randn(n, d, generator=g)
    if kind == "shift":
        x[:, 0] += size
    else:
        x *= 1 + size
    target = labcore.Target((d,), lambda n, g: y, lambda z: law.log_prob(z), law)
    return labcore.Outcome(x, y, target, law, seed)


def values(
    metric: labcore.Entry, repeats: int, n: int, d: int, kind: str = "spread", size: float = 0.0
) -> dict[str, np.ndarray]:
    rows = [metric(moved(n, d, kind, size, seed)) for seed in range(repeats)]
    rows = [row if type(row) is dict else {"": row} for row in rows]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def smallest_seen(metric: labcore.Entry, n: int, d: int, repeats: int) -> Iterator[Row]:
    """The smallest move of a grid that leaves the floor's central 95 % nine times in ten."""
    floor = values(metric, 2 * repeats, n, d)
    seen: dict[tuple[str, str], float] = {}
    for kind in ("shift", "spread"):
        for size in 0.01 * 2 ** np.arange(0, 8.5, 0.5):
            for key, found in values(metric, repeats, n, d, kind, float(size)).items():
                low, high = np.quantile(floor[key], [0.025, 0.975])
                if ((found < low) | (found > high)).mean() >= 0.9:
                    seen.setdefault((key, kind), size)
            if all((key, kind) in seen for key in floor):
                break
    for key, column in floor.items():
        yield {
            "metric": f"{metric.name}.{key}".rstrip("."),
            "n": n,
            "d": d,
            "floor": float(column.mean()),
            "sd": float(column.std()),
            "shift": seen.get((key, "shift"), "-"),
            "spread": seen.get((key, "spread"), "-"),
        }


def sees() -> None:
    rows: list[Row] = []
    for metric in register_metrics():
        for d in (2, 64):
            if metric.name != "mode_weights":  # one Gaussian has one mode
                rows += smallest_seen(metric, 1000, d, repeats=40)
            if metric.name in ("sliced_w2", "frechet", "moments"):
                rows += smallest_seen(metric, 10_000, d, repeats=20)
    timing.table(rows)


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows = [
        *sliced(100_000, 2, 100),
        *sliced(100_000, 64, 25),
        *all_pairs(10_000, 2),
        *all_pairs(4000, 64),
        *matching(1000, 2),
        *matching(1000, 64),
        *gaussians(128),
    ]
    met = timing.table(rows)
    print(f"{time.perf_counter() - start:.0f} s; every goal met: {'yes' if met else 'NO'}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["sees"]:
            sees()
        case ["peak", name, n, d]:
            print_peak(name, int(n), int(d))
        case _:
            sys.exit(__doc__)

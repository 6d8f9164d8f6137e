"""Exact and empirical scores over the matrix products they cannot avoid, and beside usual peers.

python benchmarks/scores.py           ratios and peak memory against their goals (a minute)

The floor of a mixture score is its two products, of all components' bases with the batch and back,
with nothing between them; that of an empirical score the products of the batch with the data and
of a (B, N) table with the data: the faster of doing it at once and in blocks of rows. A ratio is
the time over the floor's, which is the stricter the more a peer works on all rows at once.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import timing
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from labcore import Mixture, Process, Score, Target, from_mixture, state_law
from labcore_linear import register_processes
from labcore_scores import empirical, exact
from labcore_targets import digits

Work = Callable[[], object]
PROCESSES = {entry.name: entry for entry in register_processes()}
T = torch.tensor(0.3, dtype=torch.float64)


def a_mixture(d: int, K: int) -> Target:
    g = torch.Generator().manual_seed(0)
    M = torch.randn(K, d, d, generator=g, dtype=torch.float64) / d**0.5
    covs = M @ M.mT + 0.05 * torch.eye(d, dtype=torch.float64)
    means = 2 * torch.randn(K, d, generator=g, dtype=torch.float64)
    return from_mixture(Mixture(torch.full((K,), 1 / K, dtype=torch.float64), means, covs))


def inferred(work: Work) -> Work:
    """As samplers call it."""
    return torch.inference_mode()(work)


def in_blocks(product: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
    return torch.cat([product(part) for part in x.split(rows)])


def floors(left: Tensor, right: Tensor, x: Tensor, rows: int) -> dict[str, Work]:
    """x (B, d) times left (d, n), times right (n, d)."""

    def product(part: Tensor) -> Tensor:
        return (part @ left) @ right

    return {
        "products": lambda: product(x),
        "products in blocks": lambda: in_blocks(product, x, rows),
    }


def torch_distributions(process: Process, target: Target, x: Tensor) -> Tensor:
    """What one writes first: MixtureSameFamily at each step, differentiated."""
    assert target.mixture is not None
    law = state_law(process, target.mixture, T, target.event)
    y = x.flatten(1).clone().requires_grad_()
    p_t = MixtureSameFamily(
        Categorical(law.weights.float(), validate_args=False),
        MultivariateNormal(law.means.float(), law.covs.float(), validate_args=False),
        validate_args=False,
    )
    return torch.autograd.grad(p_t.log_prob(y).sum(), y)[0]


def cholesky(process: Process, target: Target, x: Tensor) -> Tensor:
    """What one writes next: factorise each C_k at each step, and solve."""
    assert target.mixture is not None
    law = state_law(process, target.mixture, T, target.event)
    L = torch.linalg.cholesky(law.covs.float())
    delta = (x.flatten(1)[None] - law.means.float()[:, None]).mT
    pull = torch.cholesky_solve(delta, L)
    c = law.weights.float().log() - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    r = torch.softmax(c[:, None] - 0.5 * (delta * pull).sum(1), 0)
    return -(r[:, None] * pull).sum(0).mT


def over_floor(work: dict[str, Work], seconds: float) -> dict[str, float]:
    times = timing.rounds(work, repeats=25, seconds=seconds)
    median = timing.medians(times)
    floor = min(("products", "products in blocks"), key=median.__getitem__)
    return timing.ratios(times, floor)


def mixtures(name: str, d: int, K: int, B: int, goal: float | None) -> Iterator[dict[str, object]]:
    options = {"d": d} if name in ("ou", "diag_vp") else {}
    process, target = PROCESSES[name](**options), a_mixture(d, K)
    score = exact(process, target)
    x = torch.randn(B, *process.event((d,)), generator=torch.Generator().manual_seed(0))
    spread = torch.linspace(0.2, 0.4, B, dtype=torch.float64)
    V = torch.randn(d, K * d)
    work = {
        **floors(V, V.T.contiguous(), x.reshape(-1, d), max(64, 2**17 // (K * d))),
        "labcore, one t": inferred(lambda: score(x, T)),
        "labcore, a t a row": inferred(lambda: score(x, spread)),
        "Cholesky a step": lambda: cholesky(process, target, x),
        "torch.distributions": lambda: torch_distributions(process, target, x),
    }
    if name in ("ou", "diag_vp"):
        del work["labcore, a t a row"]  # as many factorisations as rows
    label = f"mixture, {name}, d={d}, K={K}, B={B}"
    for who, ratio in over_floor(work, 3.0).items():
        if "products" not in who:
            yield timing.row(label, who, ratio, goal if who == "labcore, one t" else None)


def naive(data: Tensor, a: Tensor, s: Tensor, x: Tensor) -> Tensor:
    """softmax of - |x - a x_i|^2 / 2s, by cdist."""
    r = torch.softmax(-torch.cdist(x, a * data).square() / (2 * s), 1)
    return (a * (r @ data) - x) / s


def differences(data: Tensor, a: Tensor, s: Tensor, x: Tensor) -> Tensor:
    """The same with every difference x - a x_i in memory, in blocks of 64 MB."""
    rows = max(1, 2**24 // data.numel())
    parts = []
    for part in x.split(rows):
        delta = a * data - part[:, None]
        r = torch.softmax(-delta.square().sum(2) / (2 * s), 1)
        parts.append((r[:, :, None] * delta).sum(1) / s)
    return torch.cat(parts)


def data_sets(data: Tensor, B: int, what: str) -> Iterator[dict[str, object]]:
    N, d = data.shape
    process, score = vp_and_score(data)
    a, s = process.Phi(T, torch.zeros_like(T)).param.float(), process.Sigma(T).param.float()
    x = torch.randn(B, d, generator=torch.Generator().manual_seed(0))
    work = {
        **floors(data.T.contiguous(), data, x, max(16, 2**20 // N)),
        "labcore, one t": inferred(lambda: score(x, T)),
        "labcore, a t a row": inferred(lambda: score(x, torch.linspace(0.2, 0.4, B))),
        "cdist and softmax": lambda: naive(data, a, s, x),
    }
    if N * d < 2e6:
        work["all differences"] = lambda: differences(data, a, s, x)
    label = f"empirical, {what}, d={d}, N={N}, B={B}"
    for who, ratio in over_floor(work, 4.0).items():
        if "products" not in who:
            yield timing.row(label, who, ratio, 1.3 if who == "labcore, one t" else None)
    yield timing.row(label, "labcore, peak MB", peak_memory(N, d, B), 64.0)


def vp_and_score(data: Tensor) -> tuple[Process, Score]:
    process = PROCESSES["vp"]()
    target = Target(tuple(data.shape[1:]), lambda n, g: data[:n], data=data)
    return process, empirical(process, target)


def peak_memory(N: int, d: int, B: int) -> float:
    """MB that one call adds, in a process that did nothing before."""
    command = [sys.executable, __file__, "peak", str(N), str(d), str(B)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(N: int, d: int, B: int) -> None:
    score, x = vp_and_score(torch.randn(N, d))[1], torch.randn(B, d)

    def peak() -> float:
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(found[1]) / 1024 if found else float("nan")

    with torch.inference_mode():
        score(x[:32], T)
        before = peak()
        score(x, T)
    print(peak() - before)


def rows() -> Iterator[dict[str, object]]:
    for d, K, B in ((64, 10, 4096), (64, 100, 1024), (256, 4, 1024), (2, 100, 4096)):
        yield from mixtures("vp", d, K, B, 1.3)
    yield from mixtures("vp", 2, 1000, 4096, 1.3)
    yield from mixtures("vp", 2, 8, 51200, None)
    yield from mixtures("cld", 64, 10, 2048, 1.3)
    yield from mixtures("diag_vp", 64, 10, 4096, None)
    yield from mixtures("ou", 64, 10, 4096, None)
    g = torch.Generator().manual_seed(0)
    images = digits().data
    assert images is not None
    yield from data_sets(images, 2048, "digits")
    for N, d, B in ((10_000, 2, 1024), (20_000, 16, 512), (10_000, 784, 256)):
        yield from data_sets(torch.randn(N, d, generator=g), B, "normals")


def main() -> int:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["peak"]:
        print_peak(*(int(v) for v in sys.argv[2:]))
        return 0
    print(f"torch {torch.__version__}, one thread; a ratio is the time over the floor's")
    return 0 if timing.table(list(rows())) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The empirical score is that of the data's own law: brute force, limits, memory, small times."""

import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from torch import Tensor

import labcore_linear
from labcore import LabError, Mixture, Process, Target, from_mixture
from labcore_scores import empirical, exact

F64 = torch.float64
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}


def process_on(name: str, d: int) -> Process:
    sized = {"diag_vp": {"d": d}, "ou": {"d": d}, "rotating": {"d": d}}
    return ENTRIES[name](**sized.get(name, {}))


def of(data: Tensor) -> Target:
    return Target(tuple(data.shape[1:]), lambda n, g: data[:n], data=data)


def points(n: int, *event: int, seed: int = 0) -> Tensor:
    return 3 + torch.randn(n, *event, generator=torch.Generator().manual_seed(seed))


def batch(process: Process, data: Tensor, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    u = torch.rand(n, generator=draw, dtype=F64)
    t = process.t_eps * (process.T / process.t_eps) ** u
    z = torch.randn(n, *process.event(tuple(data.shape[1:])), generator=draw, dtype=F64)
    return process.perturb(data[torch.arange(n) % len(data)].double(), t, z), t


def brute(process: Process, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """sum_i r_i Sigma^-1 (Phi x_i - x), every difference taken, row by row."""
    rows = []
    for row, time in zip(x, t.expand(len(x)), strict=True):
        means = process.mean(data.double(), time).reshape(len(data), -1)
        Sigma = process.Sigma(time).dense(tuple(x.shape[1:]))[0]
        delta = means - row.reshape(1, -1)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(Sigma), delta.T, upper=False)
        r = torch.softmax(-0.5 * white.square().sum(0), 0)
        rows.append(torch.linalg.solve(Sigma, delta.T @ r).reshape(row.shape))
    return torch.stack(rows)


def in_noise(process: Process, t: Tensor, got: Tensor, wanted: Tensor) -> float:
    """Largest |L^T (got - wanted)|: an error in units of the noise."""
    return float((process.Sigma(t).chol.T @ (got.double() - wanted)).abs().max())


@pytest.mark.parametrize("event", [(1,), (2,), (6,)])
@pytest.mark.parametrize("name", ["vp", "edm", "diag_vp", "cld", "ou"])
def test_it_is_the_brute_force_average(name: str, event: tuple[int, ...]) -> None:
    data, process = points(150, *event), process_on(name, event[0])
    score = empirical(process, of(data))
    x, t = batch(process, data, 20)
    wanted = brute(process, data, x, t)
    assert in_noise(process, t, score(x, t), wanted) < 1e-8
    assert (
        in_noise(process, t, score(x.float(), t), brute(process, data, x.float().double(), t))
        < 2e-3
    )
    t = t[torch.arange(20) % 2]
    x = x.float().double()
    for time in (t, t[0]):
        assert in_noise(process, time, score(x, time), brute(process, data, x, time)) < 1e-8


@pytest.mark.parametrize("name", ["vp", "cld"])
def test_images_keep_their_shape(name: str) -> None:
    data, process = points(60, 1, 3, 2), process_on(name, 6)
    x, t = batch(process, data, 10)
    got = empirical(process, of(data))(x, t)
    flat = empirical(process, of(data.flatten(1)))(x.reshape(*x.shape[: x.ndim - 3], 6), t)
    assert got.shape == x.shape
    assert torch.equal(got.reshape(flat.shape), flat)


def test_it_is_the_limit_of_narrow_mixtures() -> None:
    data = points(30, 3)
    law = Mixture(
        torch.full((30,), 1 / 30, dtype=F64),
        data.double(),
        (1e-12 * torch.eye(3, dtype=F64)).repeat(30, 1, 1),
    )
    process = process_on("cld", 3)
    x, t = batch(process, data, 16)
    wanted = exact(process, from_mixture(law))(x, t)
    assert in_noise(process, t, empirical(process, of(data))(x, t), wanted) < 1e-5


def test_its_clean_point_is_the_nearest_datum_at_small_t_and_the_mean_at_T() -> None:
    data = points(500, 2)
    process = process_on("edm", 2)
    score = empirical(process, of(data))
    x = data[:50].double() + 1e-5
    early = torch.tensor(1e-4, dtype=F64)
    assert torch.allclose(
        process.tweedie(x, early, score(x, early)), data[:50].double(), atol=1e-7
    )
    late = torch.tensor(1e5, dtype=F64)
    found = process.tweedie(x, late, score(x, late))
    assert torch.allclose(found, data.double().mean(0).expand(50, 2), atol=1e-4)


@pytest.mark.parametrize("sigma", [1e-2, 1e-3, 1e-4])
def test_float32_tells_neighbours_a_sigma_apart(sigma: float) -> None:
    """Log-weights come from products as large as 1e9, wrong by several if left to float32."""
    process = process_on("edm", 2)
    base = points(200, 2).float()
    data = torch.cat([base, (base.double() + sigma).float()])
    t = torch.tensor(sigma, dtype=F64)
    x = (base.double() + sigma / 2).float()
    got, wanted = empirical(process, of(data))(x, t), brute(process, data, x.double(), t)
    assert in_noise(process, t, got, wanted) < 2e-3


def test_repeated_data_weigh_as_often_as_they_occur() -> None:
    data, process = points(20, 2), process_on("vp", 2)
    twice = torch.cat([data, data, data[:1]])
    law_of_twice = torch.cat([torch.full((20,), 2.0), torch.tensor([])])
    law_of_twice[0] = 3.0
    x, t = batch(process, data, 8)
    score = empirical(process, of(twice))(x, t)
    narrow = Mixture(
        law_of_twice.double() / 41,
        data.double(),
        (1e-13 * torch.eye(2, dtype=F64)).repeat(20, 1, 1),
    )
    assert in_noise(process, t, score, exact(process, from_mixture(narrow))(x, t)) < 1e-6


@pytest.mark.parametrize("d", [3, 20])
def test_the_score_can_be_differentiated(d: int) -> None:
    data, process = points(40, d), process_on("vp", d)
    score = empirical(process, of(data))
    x, t = batch(process, data, 1)
    with torch.inference_mode():
        score(x, t[0])
    jacobian = torch.autograd.functional.jacobian(lambda y: score(y, t[0]), x)[0, :, 0]
    assert torch.allclose(jacobian, jacobian.T, rtol=1e-9, atol=1e-9)
    h = 1e-5 * torch.eye(d, dtype=F64)
    slope = torch.cat([score(x + e, t[0]) - score(x - e, t[0]) for e in h]).T / 2e-5
    assert torch.allclose(jacobian, slope, rtol=1e-5, atol=1e-5)


def test_an_empty_batch_and_a_single_datum() -> None:
    data, process = points(1, 4), process_on("vp", 4)
    score = empirical(process, of(data))
    x, t = batch(process, data, 5)
    assert score(x[:0], t[:0]).shape == (0, 4)
    wanted = process.Sigma(t).inv @ (process.mean(data.double().expand(5, 4), t) - x)
    assert torch.allclose(score(x, t), wanted, rtol=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_stays_below_64_megabytes() -> None:
    """The table of weights alone would be 1.6 GB, for one time and for many."""
    code = r"""
        import re, torch
        from pathlib import Path
        torch.set_num_threads(1)
        import labcore_linear
        from labcore import Target
        from labcore_scores import empirical

        data = torch.randn(100_000, 4)
        target = Target((4,), lambda n, g: data[:n], data=data)
        process = {e.name: e for e in labcore_linear.register_processes()}["vp"]()
        score = empirical(process, target)
        x = torch.randn(4096, 4)

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

        with torch.inference_mode():
            score(x[:64], torch.tensor(0.5))
            score(x[:64], torch.linspace(0.3, 0.9, 64))
            before = peak()
            score(x, torch.tensor(0.5))
            score(x[:512], torch.linspace(0.3, 0.9, 512))
        print(peak() - before)
    """
    ran = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) < 64


def test_without_data_it_says_what_to_use() -> None:
    law = Mixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    with pytest.raises(LabError, match=r"'empirical'.*'exact'"):
        empirical(process_on("vp", 2), from_mixture(law))

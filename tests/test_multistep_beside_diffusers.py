"""Multistep methods: exact weights, their identities, and diffusers' PNDM and IPNDM.

Where diffusers differs:

- IPNDM starts at alpha = 0, where it divides by max(alpha, 1e-8); compared from its second time.
- PNDM's pseudo Runge-Kutta steps take index t - 1000/n/2 for the middle: the middle of the step
  where 1000/n is even, as here.
- Both keep their tables in float32.
"""

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labcore import Entry, Process, Scalar, Score
from labcore.noise import initial, replay
from labcore.testing import default_data, gaussian_score, uneven
from labcore_linear import vp
from labcore_samplers import euler, heun, ipndm, lms, lms2, lms3, plms, pndm
from labcore_samplers.multistep import adams_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schedulers = pytest.importorskip("diffusers.schedulers")

F64, ROWS = torch.float64, 16
MEAN, SPREAD = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.3, 1.2], dtype=F64)


def test_weights_on_equal_steps_are_the_textbooks() -> None:
    now = torch.tensor([3.0], dtype=F64)
    for k, wanted in {
        1: [1.0],
        2: [3 / 2, -1 / 2],
        3: [23 / 12, -16 / 12, 5 / 12],
        4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    }.items():
        nodes = 3.0 + 0.25 * torch.arange(k, dtype=F64)[None]
        got = adams_weights(nodes, now, now - 0.25)[0].tolist()
        assert got == pytest.approx(wanted, rel=1e-13)


def test_weights_on_any_steps_integrate_polynomials_exactly() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 2, 3, 4):
        nodes = np.sort(rng.uniform(1, 2, k))[::1].copy()
        t, s = nodes[0], nodes[0] - 0.3
        w = adams_weights(*(torch.tensor(of, dtype=F64) for of in (nodes[None], [t], [s])))[0]
        for p in range(k):
            mean = (s ** (p + 1) - t ** (p + 1)) / (p + 1) / (s - t)
            assert float(w @ torch.tensor(nodes**p)) == pytest.approx(mean, rel=1e-9)


def run(sampler: Entry, process: Process, n: int = 9, **options: Any) -> Tensor:
    data_event = process.event_shape or (2,)
    event = process.event(data_event)
    score = gaussian_score(process, default_data(torch.Size(data_event).numel()), data_event)
    x = initial([0], ROWS, event, dtype=F64)
    return torch.stack(list(sampler(process, score, x, uneven(process, n), replay(x), **options)))


def test_starts_are_what_they_say() -> None:
    """lms3's first step is Heun's; lms2's and lms's Euler's, as the second of lms is lms2's."""
    process = vp()
    torch.testing.assert_close(
        run(lms3, process)[0], run(heun, process)[0], rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(run(lms2, process)[0], run(euler, process)[0])
    torch.testing.assert_close(run(lms, process, k=4)[1], run(lms2, process)[1])
    torch.testing.assert_close(run(lms, process, k=2), run(lms2, process))


def of_table(alpha: Tensor, sigma: Tensor, n: int) -> Process:
    """The process with signal and noise alpha, sigma at times i/n from data to noise."""

    def at(table: Tensor, t: Tensor) -> Tensor:
        return table[(n * t).round().long()]

    def rate(t: Tensor) -> Scalar:
        raise AssertionError("exponential steps need no rates")

    return Process(
        A=rate,
        G=rate,
        Phi=lambda t, s: Scalar(at(alpha, t) / at(alpha, s)),
        Sigma=lambda t: Scalar(at(sigma, t) ** 2),
        T=1.0,
        t_eps=1 / n,
    )


def score_of(process: Process) -> Score:
    def score(x: Tensor, t: Tensor) -> Tensor:
        a, v = process.Phi(t, torch.zeros_like(t)).param, process.Sigma(t).param
        return (a * MEAN - x) / (a**2 * SPREAD + v)

    return score


def compare(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.double(), rtol=1e-5, atol=1e-5)


def test_ipndm_is_that_of_diffusers() -> None:
    n = 30
    scheduler = schedulers.IPNDMScheduler()
    scheduler.set_timesteps(n)
    sigma, alpha = scheduler.betas.double(), scheduler.alphas.double()
    process = of_table(alpha.flip(0), sigma.flip(0), n)
    score, x = score_of(process), initial([0], ROWS, (2,), dtype=F64)
    ts = torch.arange(n - 1, 0, -1, dtype=F64) / n
    ours = list(ipndm(process, score, x, ts, replay(x)))
    theirs = []
    for i, t in enumerate(ts[:-1], start=1):
        eps = -sigma[i] * score(x, t)
        v = (eps - sigma[i] * x) / alpha[
            i
        ]  # the network of this scheduler: eps = sigma x + alpha v
        x = scheduler.step(v, scheduler.timesteps[i], x).prev_sample
        theirs.append(x)
    compare(ours, theirs)


@pytest.mark.parametrize(("sampler", "skip"), [(plms, True), (pndm, False)])
def test_plms_and_pndm_are_those_of_diffusers(sampler: Entry, skip: bool) -> None:
    n = 20
    scheduler = schedulers.PNDMScheduler(
        beta_schedule="linear", skip_prk_steps=skip, timestep_spacing="leading"
    )
    scheduler.set_timesteps(n)
    abar = torch.cat([torch.ones(1, dtype=F64), scheduler.alphas_cumprod.double()])
    process = of_table(abar.sqrt(), (1 - abar).sqrt(), 1000)
    score, x = score_of(process), initial([0], ROWS, (2,), dtype=F64)
    whole = sorted({int(t) for t in scheduler.timesteps if int(t) % (1000 // n) == 0})[::-1]
    ts = (torch.tensor(whole, dtype=F64) + 1) / 1000
    ours = list(sampler(process, score, x, ts, replay(x)))
    seen: dict[int, Tensor] = {}
    for t in scheduler.timesteps:
        seen[int(t)] = x  # the last state asked for at a time is the one the step ends in
        eps = -((1 - abar[int(t) + 1]) ** 0.5) * score(x, (t.double() + 1) / 1000)
        x = scheduler.step(eps, int(t), x).prev_sample
    compare(ours, [seen[t] for t in whole[1:]])


def test_history_does_not_leak_between_steps_of_uneven_lengths() -> None:
    """On a grid cut in two, a run goes on from where the first half ended only at k = 1."""
    process = vp()
    ts = uneven(process, 8)
    score = gaussian_score(process, default_data(2), (2,))
    x = initial([0], ROWS, (2,), dtype=F64)
    for k, same in ((1, True), (3, False)):
        whole = list(lms(process, score, x, ts, replay(x), k=k))[-1]
        y = x
        for part in (ts[:5], ts[4:]):
            *_, y = lms(process, score, y, part, replay(x), k=k)
        assert torch.allclose(whole, y, rtol=1e-9) == same


def test_steps_are_counted_in_order() -> None:
    """plms asks for the end of the first step once more than the others."""
    process, asked = vp(), list[float]()
    exact = gaussian_score(process, default_data(2), (2,))

    def watched(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t))
        return exact(x, t)

    ts = uneven(process, 6)
    x = initial([0], ROWS, (2,), dtype=F64)
    list(plms(process, watched, x, ts, replay(x)))
    assert asked == [float(ts[0]), float(ts[1]), *ts[1:-1].tolist()]
    assert all(t >= s for t, s in pairwise(asked))

"""Chains that accept or refuse are reversible: p(x) q(y|x) a(x,y) = p(y) q(x|y) a(y,x)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from labcore import Entry, Mixture, Process, counted, from_mixture, state_law
from labcore.noise import brownian, initial, replay
from labcore.testing.audit import final
from labcore_linear import cld, edm, ou, vp
from labcore_samplers import (
    annealed_hmc,
    annealed_langevin,
    annealed_mala,
    hmc,
    langevin,
    mala,
    metropolis,
    predictor_corrector,
    predictor_metropolis,
)
from labcore_samplers.hmc import shots
from labcore_samplers.langevin import preconditioner
from labcore_samplers.metropolis import drifts, energy
from labcore_scores import exact

F64 = torch.float64
PROCESSES: dict[str, Process] = {"vp": vp(), "ou": ou(), "cld": cld()}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def mixture() -> Mixture:
    S = torch.tensor([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.8]]], dtype=F64)
    m = torch.tensor([[-0.8, 0.0], [0.9, 0.6]], dtype=F64)
    return Mixture(torch.tensor([0.65, 0.35], dtype=F64), m, S)


def at_level(process: Process, n: int) -> tuple[Tensor, Tensor, Tensor, Any, Mixture]:
    """A time u (1,), x of exactly p_u, z, the score and p_u."""
    u, event = torch.tensor([0.3 * process.T], dtype=F64), process.event((2,))
    law = state_law(process, mixture(), u[0], (2,))
    x = law.sample(n, torch.Generator().manual_seed(0)).double().reshape(n, *event)
    z = initial([1], n, event, dtype=F64)
    return u, x, z, counted(exact(process, from_mixture(mixture())), n), law


@each_process
def test_the_ratio_of_a_langevin_proposal_is_that_of_its_densities(process: Process) -> None:
    """q(y|x) = N(y; x + e P g(x), 2 e P), in dense linear algebra."""
    u, x, z, score, _ = at_level(process, 20)
    e = 0.4
    (propose,) = drifts(process, u, x, e, 1.0)
    (y, g), log_q = propose(score, (x, score(x, u[0])), z)
    P = preconditioner(process, u, 1.0).dense(process.event((2,)))[0]

    def density(to: Tensor, at: Tensor) -> Tensor:
        mean = at.flatten(1) + e * score(at, u[0]).flatten(1) @ P
        law = torch.distributions.MultivariateNormal(mean, 2 * e * P)
        return law.log_prob(to.flatten(1))

    torch.testing.assert_close(g, score(y, u[0]))
    torch.testing.assert_close(log_q, density(x, y) - density(y, x), rtol=1e-9, atol=1e-9)


@each_process
def test_a_trajectory_goes_back_when_its_momentum_is_turned(process: Process) -> None:
    """(x, p) -> (x', p') -> (x, -p): with the volume kept, this makes HMC reversible."""
    u, x, z, score, _ = at_level(process, 20)
    h, steps = 0.3, 4
    (propose,) = shots(process, u, x, h, steps, 1.0)
    (y, g), gain = propose(score, (x, score(x, u[0])), z)
    L = preconditioner(process, u, 1.0).chol
    one = shots(process, u, x, h, 1, 1.0)[0]
    point, p = (x, score(x, u[0])), z
    for _ in range(steps):  # one step at a time, to see the momentum
        new, _ = one(score, point, p)
        half = p + 0.5 * h * (L.T @ point[1])
        p, point = half + 0.5 * h * (L.T @ new[1]), new
    torch.testing.assert_close(point[0], y, rtol=1e-10, atol=1e-10)
    (back, _), loss = propose(score, (y, g), -p)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss, -gain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gain, energy(z) - energy(p), rtol=1e-9, atol=1e-9)


def two_states(chain: Entry, n: int, **options: Any) -> tuple[Tensor, Tensor]:
    """x of exactly p_u, and where one step at the level u has taken it."""
    process = vp()
    u, x, _, score, _ = at_level(process, n)
    ts = torch.tensor([process.T, float(u)], dtype=F64)
    noise = brownian(ts, (2,), [2], n, dtype=F64)
    return x, final(chain(process, score, x, ts, noise, **options), x)


def asymmetry(x: Tensor, y: Tensor) -> float:
    """The largest z-score of E[f(x) g(y) - g(x) f(y)], zero for a reversible chain in its law."""
    features = [
        lambda v: v[:, 0],
        lambda v: v[:, 1],
        lambda v: v[:, 0] ** 2,
        lambda v: v[:, 0] * v[:, 1],
        lambda v: torch.tanh(2 * v[:, 0]),
    ]
    worst = 0.0
    for i, f in enumerate(features):
        for g in features[:i]:
            d = f(x) * g(y) - g(x) * f(y)
            worst = max(worst, abs(float(d.mean() / d.std())) * math.sqrt(len(d)))
    return worst


@pytest.mark.parametrize(
    ("chain", "options"),
    [(metropolis, {"step": 1.5}), (mala, {"step": 0.7}), (hmc, {"step": 0.9, "leapfrog": 3})],
)
def test_one_step_from_the_law_is_as_likely_as_its_reverse(
    chain: Entry, options: dict[str, Any]
) -> None:
    """Ten statistics of 40000 pairs: beyond 4.4 once in 10^4 times. ULA of MALA's step is at 18,
    MALA without the ratio of its proposals at 9."""
    assert asymmetry(*two_states(chain, 40_000, **options)) < 4.4


def test_the_statistics_see_the_step_that_is_always_taken() -> None:
    assert asymmetry(*two_states(langevin, 40_000, step=0.7)) > 8


REFUSED = [
    ("metropolis", metropolis, lambda h: {"step": h}, 1.0),
    ("mala", mala, lambda h: {"step": h**2 / 2}, 3.0),
    ("hmc", hmc, lambda h: {"step": h, "leapfrog": round(1.2 / h)}, 2.0),
]


@pytest.mark.parametrize(
    ("chain", "options", "power"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_acceptance_tends_to_one_at_the_rate_of_theory(
    chain: Entry, options: Callable[[float], dict[str, Any]], power: float
) -> None:
    """1 - acceptance falls like h for a walk, h^3 for one leapfrog step (MALA), and h^2 for
    trajectories of a fixed length, which sum errors that come back."""
    process, n, refused = vp(), 4000, []
    score = counted(exact(process, from_mixture(mixture())), n)
    u, x, _, _, _ = at_level(process, n)
    for h in (0.6, 0.3):
        ts = torch.linspace(process.T, float(u), 26, dtype=F64)
        noise = brownian(ts, (2,), [2], n, dtype=F64)
        chain_of = chain(process, score, x, ts, noise, **options(h))
        told: dict[str, Tensor] = {}
        final(_keep(chain_of, told), x)
        refused.append(1 - float(told["acceptance"].mean()))
    assert refused[1] < 0.2
    assert math.log2(refused[0] / refused[1]) == pytest.approx(power, abs=0.25)


def _keep(chain: Any, told: dict[str, Tensor]) -> Any:
    told.update((yield from chain))


@pytest.mark.parametrize(
    ("chain", "plain", "options"),
    [
        (annealed_langevin, langevin, {"step": 0.3}),
        (annealed_mala, mala, {"step": 0.3}),
        (annealed_hmc, hmc, {"step": 0.4, "leapfrog": 2}),
    ],
)
def test_annealing_over_one_level_is_the_plain_chain(
    chain: Entry, plain: Entry, options: dict[str, Any]
) -> None:
    """On EDM, where nothing is carried."""
    process, ts = edm(), torch.tensor([2.0, 0.7], dtype=F64)
    score = counted(exact(process, from_mixture(mixture())), 50)
    x, told = initial([0], 50, (2,), dtype=F64), [{}, {}]  # type: ignore[var-annotated]
    ends = []
    for entry, kept in zip((chain, plain), told, strict=True):
        noise = brownian(ts, (2,), [3], 50, dtype=F64)
        run = entry(process, score, x, ts, noise, inner=4, data_std=0.0, **options)
        ends.append(final(_keep(run, kept), x))
    assert torch.equal(ends[0], ends[1])
    assert told[0].keys() == told[1].keys()
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0])


@each_process
def test_a_corrector_that_accepts_makes_the_steps_of_the_fixed_rule(process: Process) -> None:
    """Uniforms near 0 accept every proposal: then MALA is Langevin, move for move."""
    event = process.event((2,))
    ts = torch.tensor([process.T, 0.6 * process.T, 0.3 * process.T], dtype=F64)
    score = counted(exact(process, from_mixture(mixture())), 8)
    x = process.prior().chol @ initial([0], 8, event, dtype=F64)
    z = initial([1], 8 * 6, event, dtype=F64).reshape(6, 8, *event)
    yes = torch.full((1, 8, *event), -30.0, dtype=F64)
    moves = torch.cat([z[:2], yes, z[2:3], yes, z[3:5], yes, z[5:], yes])
    run = partial(predictor_metropolis, process, score, x, ts)
    got = final(run(replay(moves), r=0.2, inner=2), x)
    run = partial(predictor_corrector, process, score, x, ts)
    wanted = final(run(replay(z), corrector="fixed", r=0.2, inner=2), x)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12)

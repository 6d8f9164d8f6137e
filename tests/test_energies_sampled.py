"""Samplers on energy networks: the law of the energy, right or wrong, is where chains settle."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from labcore import (
    Entry,
    Mixture,
    Model,
    Parts,
    ScoreWith,
    counted,
    from_mixture,
    load_registry,
    state_law,
    use,
)
from labcore.noise import brownian, initial
from labcore.testing.audit import final
from labcore_linear import log_snr, vp
from labcore_samplers import annealed_hmc, annealed_langevin, annealed_mala, hmc, mala, metropolis
from labcore_scores import exact

F64 = torch.float64
PROCESS = vp(t_eps=0.05)
LAW = Mixture(
    torch.tensor([0.5, 0.5], dtype=F64),
    torch.tensor([[-1.0, 0.0], [1.0, 0.3]], dtype=F64),
    torch.tensor([[[0.1, 0.0], [0.0, 0.3]], [[0.3, 0.1], [0.1, 0.2]]], dtype=F64),
)
CHAINS: dict[str, tuple[Entry, dict[str, Any]]] = {
    "mala": (mala, {"step": 0.3}),
    "hmc": (hmc, {"step": 0.3}),
    "metropolis": (metropolis, {"step": 0.8}),
    "annealed_langevin": (annealed_langevin, {"step": 0.1}),
    "annealed_mala": (annealed_mala, {"step": 0.3}),
    "annealed_hmc": (annealed_hmc, {"step": 0.3}),
}


class Exact(torch.nn.Module):
    """sigma E for E = -log p_t + 12, p_t of the mixture under vp: one number a sample.

    With data_std = 1 the network sees x itself, and c = -log_snr/8 tells alpha and sigma.
    """

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        alpha2 = torch.sigmoid(-8 * c)
        covs = alpha2 * LAW.covs + (1 - alpha2) * torch.eye(2, dtype=F64)
        at = Mixture(LAW.weights, alpha2.sqrt() * LAW.means, covs)
        return (12 - at.log_joint(x).logsumexp(1)) * (1 - alpha2).sqrt()


def wrapped() -> ScoreWith:
    model = Model(Exact(), PROCESS, "energy", data_std=1.0, dtype=F64)
    return ScoreWith(model, model.log_prob)


def run(chain: str, score: Callable[..., Tensor], steps: int, n: int) -> tuple[Tensor, Any]:
    """The last states and what the chain says of itself."""
    entry, options = CHAINS[chain]
    ts = log_snr(PROCESS, steps)
    x = PROCESS.prior().chol @ initial([3], n, (2,), dtype=F64)
    noise, told = brownian(ts, (2,), [3], n, dtype=F64), {}

    def follow() -> Any:
        told.update((yield from entry(PROCESS, counted(score, n), x, ts, noise, **options)) or {})

    with torch.inference_mode():
        return final(follow(), x), told


@pytest.mark.parametrize("chain", CHAINS)
def test_an_energy_network_moves_chains_as_the_exact_density_does(chain: str) -> None:
    """The same proposals, the same decisions, whatever constant the energy carries."""
    got, told = run(chain, wrapped(), 8, 64)
    wanted, said = run(chain, exact(PROCESS, from_mixture(LAW)), 8, 64)
    assert torch.allclose(got, wanted, atol=1e-9)
    assert got.std() > 0.1
    for name, value in said.items():
        assert torch.allclose(told[name].double(), value.double(), atol=1e-9)


def p_values(x: Tensor, law: Mixture) -> list[float]:
    """Kolmogorov-Smirnov of both coordinates."""

    def cdf(i: int) -> Callable[[Any], Any]:
        mean, std = law.means[:, i], law.covs[:, i, i].sqrt()

        def of(v: Any) -> Any:
            z = (torch.as_tensor(v)[:, None] - mean) / std
            return (torch.special.ndtr(z) @ law.weights).numpy()

        return of

    return [float(kstest(x[:, i].numpy(), cdf(i)).pvalue) for i in range(2)]


@pytest.mark.parametrize("chain", ["mala", "annealed_mala"])
def test_chains_on_an_energy_settle_on_its_law(chain: str) -> None:
    x, told = run(chain, wrapped(), 60, 2000)
    law = state_law(PROCESS, LAW, PROCESS.t_eps, (2,))
    assert min(p_values(x, law)) > 1e-3
    assert 0.3 < float(told["acceptance"].double().mean()) <= 1


def test_a_trained_energy_is_sampled_as_it_is_not_as_the_data_are(tmp_path: Path) -> None:
    """After 150 steps the energy is far from the truth; MALA finds exp(-E), by quadrature."""
    registry = load_registry()
    parts = Parts(registry, tmp_path)
    process = use("vp", t_eps=0.05).resolve("process", registry)
    target = use(
        "mixture",
        weights=LAW.weights.tolist(),
        means=LAW.means.tolist(),
        covs=LAW.covs.tolist(),
    ).resolve("target", registry)
    recipe = use(
        "trained_energy", network='energy(backbone="mlp(width=32, depth=1)")', steps=150, batch=256
    )
    score = parts.score(recipe.resolve("score", registry), process, target)
    x, told = run("mala", score, 100, 1000)
    assert 0.2 < float(told["acceptance"].double().mean()) <= 1
    side = torch.linspace(-5, 5, 161, dtype=F64)
    grid = torch.cartesian_prod(side, side)
    log_p = counted(score, 1).log_prob(grid, torch.tensor(PROCESS.t_eps, dtype=F64)).double()
    mass = log_p.softmax(0).detach().reshape(161, 161)
    for axis in (0, 1):
        marginal = mass.sum(1 - axis).cumsum(0)
        middle = side + (side[1] - side[0]) / 2

        def cdf(v: Any, marginal: Tensor = marginal, middle: Tensor = middle) -> Any:
            import numpy as np

            return np.interp(v, middle.numpy(), marginal.numpy())

        found = kstest(x[:, axis].numpy(), cdf)
        assert found.pvalue > 1e-3, axis
    true = state_law(PROCESS, LAW, PROCESS.t_eps, (2,)).log_prob(grid).softmax(0)
    assert float((mass.flatten() - true).abs().sum() / 2) > 0.02  # the data would not have done
    assert math.isclose(float(mass.sum()), 1, rel_tol=1e-9)

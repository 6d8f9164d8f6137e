"""Contrastive objectives: at the true energy nothing moves, log Z is found, chains are kept."""

import math
from typing import Any

import pytest
import torch
from objectives import objective, smooth
from torch import Generator, Tensor

from labcore import InvalidOption, Model
from labcore_linear import vp
from labcore_objectives.denoising import perturbed

STD, D = 0.6, 2
PROCESS = vp()


def variance(log_snr: Tensor) -> Tensor:
    """Of x_t under vp, for data N(0, STD^2 I)."""
    alpha2 = torch.sigmoid(log_snr)
    return alpha2 * STD**2 + 1 - alpha2


class Gaussian(torch.nn.Module):
    """sigma E for E = a |x|^2 / (2 v_t) + b, whose truth is a = 1; x in units of R, R^2 = P."""

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, y: Tensor, c: Tensor) -> Tensor:
        log_snr = -8 * c
        alpha2 = torch.sigmoid(log_snr)
        P = alpha2 + 1 - alpha2  # data_std = 1: the model does not know the data's
        E = self.a * y.square().sum(1) * P / (2 * variance(log_snr)) + self.b
        return E * torch.sigmoid(-log_snr).sqrt()


def model(a: float = 1.0) -> Model:
    return Model(Gaussian(a), PROCESS, "energy", data_std=1.0, dtype=torch.float64)


def draws(n: int, seed: int) -> Tensor:
    return STD * torch.randn(n, D, generator=Generator().manual_seed(seed), dtype=torch.float64)


def true_log_Z(nodes: Tensor) -> Tensor:
    """Less that of N(0, P), P = 1."""
    return D / 2 * variance(-nodes).log()


def gradients(loss: Any, of: Model, parameters: list[Tensor], batches: int, n: int) -> Tensor:
    """The gradient of the mean loss, (batches, number of parameters)."""
    rows = []
    for i in range(batches):
        value = loss(of, draws(n, i), Generator().manual_seed(1000 + i)).mean()
        parts = torch.autograd.grad(value, parameters)
        rows.append(torch.cat([p.reshape(-1).double() for p in parts]))
    return torch.stack(rows)


def test_at_the_truth_nothing_moves_under_noise_contrast() -> None:
    def standardised(a: float, shift: float) -> Tensor:
        loss, energy = objective("nce(knots=128)", PROCESS), model(a)
        with torch.no_grad():
            loss.tenth.copy_((true_log_Z(loss.nodes) + shift) / 10)
        found = gradients(loss, energy, [energy.net.a, loss.tenth], 40, 500)  # type: ignore[attr-defined]
        total = torch.stack([found[:, 0], found[:, 1:].sum(1)], 1)
        return total.mean(0) / (total.std(0) / math.sqrt(len(total)))

    assert float(standardised(1.0, 0.0).abs().max()) < 4
    assert float(standardised(1.4, 0.0)[0]) > 10  # a wants to fall
    assert float(standardised(1.0, 0.3)[1]) > 10
    assert float(standardised(1.0, -0.3)[1]) < -10


def test_noise_contrast_finds_log_z() -> None:
    loss, energy = objective("nce(knots=12)", PROCESS), model()
    rate = torch.optim.Adam([loss.tenth], lr=0.005)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(rate, 200)
    for step in range(200):
        value = loss(energy, draws(256, step), Generator().manual_seed(step)).mean()
        rate.zero_grad()
        value.backward()
        rate.step()
        decay.step()
    off = loss.log_Z(-loss.nodes).detach() - true_log_Z(loss.nodes)
    t = torch.linspace(0.05, 1, 50, dtype=torch.float64)  # knots at times that are often drawn
    first, *_, last = (-PROCESS.log_snr(t)).tolist()
    seen = (loss.nodes > first) & (loss.nodes < last)
    assert int(seen.sum()) >= 5
    assert float(off[seen].abs().max()) < 0.06
    assert float(true_log_Z(loss.nodes).abs().max()) > 0.8  # where it began


@pytest.mark.parametrize(("k", "step"), [(1, 0.5), (10, 0.5), (400, 0.5), (400, 0.1)])
def test_contrastive_divergence_differs_from_zero_by_the_chains_error_alone(
    k: int, step: float
) -> None:
    loss = objective(f"cd(k={k}, step={step})", PROCESS)
    n = 4_000 if k < 100 else 800
    t, _ = loss.times(n, Generator().manual_seed(7))
    told = loss(model(), draws(n, 0), Generator().manual_seed(7)).detach()
    sigma = PROCESS.Sigma(t).param.sqrt()
    v = variance(PROCESS.log_snr(t))
    rho = 1 - step**2 * sigma**2 / (2 * v)  # y <- rho y + step sigma z
    later = rho ** (2 * k) * v + step**2 * sigma**2 * (1 - rho ** (2 * k)) / (1 - rho**2)
    wanted = sigma * D / 2 * (1 - later / v)
    off = told - wanted
    assert abs(float(off.mean())) < 5 * float(off.std()) / math.sqrt(n)
    assert float(wanted.abs().max()) < 0.3 * step**2 * D
    wrong = loss(model(1.5), draws(n, 0), Generator().manual_seed(7)).detach()
    if k == 10:
        assert float(wrong.mean()) > 10 * float(off.std()) / math.sqrt(n)


def test_contrastive_divergence_weighs_energies_by_the_noise() -> None:
    loss, energy, x0 = objective("cd(k=3)", PROCESS), model(1.5), draws(50, 0)
    told = loss(energy, x0, Generator().manual_seed(7)).detach()
    g = Generator().manual_seed(7)
    t, _ = loss.times(50, g)
    torch.rand(50, generator=g)  # which chains would stay
    at, level = energy.at(t)
    x, _ = perturbed(PROCESS, x0, at, g)
    y = loss.negatives(energy, x, at, level, g)
    by_hand = (energy.energy(x, t) - energy.energy(y, t)) * PROCESS.Sigma(t).param.sqrt()
    assert torch.allclose(told, by_hand.detach(), rtol=1e-9)


def test_the_energys_constant_feels_nothing() -> None:
    energy = model()
    loss = objective("cd", PROCESS)(energy, draws(64, 0), Generator().manual_seed(0)).mean()
    (slope,) = torch.autograd.grad(loss, energy.net.b)  # type: ignore[attr-defined]
    assert abs(float(slope)) < 1e-12


def test_chains_are_kept_checkpointed_and_left_alone_by_validation() -> None:
    energy = model(1.3)

    def advance(loss: Any, steps: range) -> list[Tensor]:
        return [
            loss(energy, draws(32, i).float(), Generator().manual_seed(i)).detach() for i in steps
        ]

    through = objective("cd(persistent=True)", PROCESS)
    whole = advance(through, range(6))
    first = objective("cd(persistent=True)", PROCESS)
    advance(first, range(3))
    held = {k: v.clone() for k, v in first.state_dict().items()}
    again = objective("cd(persistent=True)", PROCESS)
    again.load_state_dict(held)
    for got, wanted in zip(advance(again, range(3, 6)), whole[3:], strict=True):
        assert torch.equal(got, wanted)
    fresh = advance(objective("cd(persistent=True)", PROCESS), range(3, 6))
    assert not torch.equal(fresh[0], whole[3])
    chains = [c.clone() for c in again.chains]
    again.eval()
    advance(again, range(7, 9))
    assert all(torch.equal(a, b) for a, b in zip(chains, again.chains, strict=True))


def test_persistent_chains_reach_the_models_law() -> None:
    energy, loss = model(2.0), objective("cd(persistent=True, k=20, step=0.3, anew=0.0)", PROCESS)
    for i in range(30):
        loss(energy, draws(4000, i), Generator().manual_seed(i))
    y, t = loss.chains
    sigma2, v = PROCESS.Sigma(t).param, variance(PROCESS.log_snr(t)) / 2
    stationary = v / (1 - 0.3**2 * sigma2 / (4 * v))
    mixed = sigma2 > 0.5 * v
    ratio = (y.square().mean(1) / stationary)[mixed]
    assert abs(float(ratio.mean()) - 1) < 5 / math.sqrt(len(ratio))


def test_a_share_of_the_chains_begins_anew_at_another_time() -> None:
    energy = model()

    def stayed(anew: float) -> float:
        loss = objective(f"cd(persistent=True, anew={anew})", PROCESS)
        times = []
        for i in range(2):
            loss(energy, draws(4000, i), Generator().manual_seed(i))
            times.append(loss.chains[1])
        return float((times[0] == times[1]).double().mean())

    assert stayed(0.0) == 1
    assert stayed(1.0) == 0
    assert stayed(0.2) == pytest.approx(0.8, abs=5 * math.sqrt(0.16 / 4000))


@pytest.mark.parametrize("text", ["nce", "cd"])
def test_a_score_that_is_no_energy_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="it trains energies, the reading is 'eps'"):
        objective(text, PROCESS)(smooth("vp"), draws(4, 0), Generator())

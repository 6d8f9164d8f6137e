"""Laws of t: the densities they name, each sample counted so that the objective stays the same."""

import math

import pytest
import scipy.stats
import torch
from objectives import PROCESSES, agrees, data, objective, smooth
from torch import Generator, Tensor

from labcore import InvalidOption
from labcore_objectives.denoising import perturbed
from labcore_objectives.times import chosen, discrete, importance, log_normal, uniform
from labcore_objectives.weights import mean_weight


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("process", ["vp", "edm", "cld"])
def test_log_normal_times_have_the_papers_noise_levels(process: str) -> None:
    made = PROCESSES[process]
    t, counts = log_normal(made, stratified=False)(4000, seeded())
    log_sigma = (-made.log_snr(t) / 2).numpy()
    ends = -made.log_snr(torch.tensor([made.t_eps, made.T]).double()) / 2
    a, b = ((ends + 1.2) / 1.2).tolist()
    law = scipy.stats.truncnorm(a, b, loc=-1.2, scale=1.2)
    assert scipy.stats.kstest(log_sigma, law.cdf).pvalue > 0.01
    assert scipy.stats.kstest(log_sigma, scipy.stats.norm(-1.0, 1.2).cdf).pvalue < 1e-3
    assert torch.equal(counts, torch.ones_like(counts))


@pytest.mark.parametrize("process", PROCESSES)
def test_importance_draws_by_the_weight_and_counts_by_its_inverse(process: str) -> None:
    made = PROCESSES[process]
    weight = mean_weight(made, "likelihood")
    plain, wise = uniform(made, False), importance(made, weight, False)
    t, counts = wise(20_000, seeded())
    nodes = made.t_eps + (made.T - made.t_eps) * (torch.arange(200_001).double() + 0.5) / 200_001
    mean = float(weight(nodes).mean())
    assert torch.allclose(counts * weight(t), torch.tensor(mean).double(), rtol=2e-3)
    for f in (torch.ones_like, torch.sqrt, torch.sin):
        estimate = counts * f(t)
        error = float(estimate.std()) / math.sqrt(len(t))
        assert abs(float(estimate.mean() - f(nodes).mean())) < 5 * error
    s, ones = plain(20_000, seeded())
    assert scipy.stats.kstest(s.numpy(), scipy.stats.uniform(made.t_eps, made.T).cdf).pvalue > 0.01
    assert float(ones.mean()) == 1


@pytest.mark.parametrize("process", ["vp", "ou", "cld"])
def test_importance_is_the_same_likelihood_loss_with_less_variance(process: str) -> None:
    model, n = smooth(process, size=0.3), 40_000
    x0 = data(model.process, n)

    def sampled(times: str) -> Tensor:
        text = f"dsm(weight='likelihood', times='{times}', stratified=False)"
        loss: Tensor = objective(text, model.process)(model, x0, seeded(3))
        return loss.detach()

    plain, wise = sampled("uniform"), sampled("importance")
    error = math.sqrt(float(plain.var() + wise.var()) / n)
    assert abs(float(plain.mean() - wise.mean())) < 5 * error
    assert float(wise.var()) < 0.5 * float(plain.var())


@pytest.mark.parametrize("times", ["uniform", "log_normal", "importance"])
def test_stratified_times_cover_every_part_and_stay_unbiased(times: str) -> None:
    made, B = PROCESSES["vp"], 64
    weight = mean_weight(made, "likelihood")
    strata, free = (chosen(made, times, weight, s) for s in (True, False))
    many = [strata(B, seeded(i)) for i in range(300)]
    exact = free(200_000, seeded())
    per_batch = torch.stack([(c * t).mean() for t, c in many])
    single = exact[1] * exact[0]
    error = math.sqrt(float(per_batch.var()) / 300 + float(single.var()) / 200_000)
    assert abs(float(per_batch.mean() - single.mean())) < 5 * error
    assert float(per_batch.std()) < 0.3 * float(single.std()) / math.sqrt(B)
    if times == "uniform":
        parts = ((many[0][0] - made.t_eps) / (made.T - made.t_eps) * B).long()
        assert torch.equal(parts.sort()[0], torch.arange(B))
        assert not torch.equal(parts, torch.arange(B))


@pytest.mark.parametrize("process", ["vp", "edm", "cld"])
def test_discrete_times_are_the_levels_and_steps_of_ncsn_and_ddpm(process: str) -> None:
    made, n = PROCESSES[process], 10
    for spacing in ("levels", "steps"):
        t, counts = discrete(made, n, spacing)(20_000, seeded())
        found, often = t.unique(return_counts=True)
        assert len(found) == n
        assert float(counts.mean()) == 1
        assert torch.equal(often, torch.full((n,), 2_000))
        ends = torch.tensor([made.t_eps, made.T]).double()
        assert torch.allclose(found[[0, -1]], ends, rtol=1e-6)
        axis = found if spacing == "steps" else made.log_snr(found)
        gaps = axis.diff()
        assert torch.allclose(gaps, gaps.mean(), rtol=2e-3), spacing


def test_discrete_objectives_are_denoising_at_their_times() -> None:
    model = smooth("vp")
    x0 = data(model.process, 40_000)

    def mean(text: str) -> Tensor:
        loss: Tensor = objective(text, model.process)(model, x0, seeded(1))
        return loss.detach()

    fine = mean("ddpm(steps=1000)") - mean("dsm")
    assert agrees(fine, 2.0)
    made, t = model.process, discrete(model.process, 10, "levels")(40_000, seeded(1))[0]
    at, level = model.at(t)
    g = seeded(1)
    discrete(made, 10, "levels")(40_000, g)
    x, z = perturbed(made, x0, at, g)
    by_hand = (model.eps_at(x, at, level) - z).square().sum(1).detach()
    assert torch.equal(mean("ncsn(levels=10)"), by_hand)


def test_unknown_times_are_refused() -> None:
    with pytest.raises(InvalidOption, match="no times 'sometimes'"):
        chosen(PROCESSES["vp"], "sometimes", torch.ones_like, True)
    with pytest.raises(InvalidOption, match="levels"):
        objective("ncsn(levels=1)", PROCESSES["vp"])

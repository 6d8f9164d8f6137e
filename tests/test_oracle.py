"""The oracle has the exact law at any number of steps, on every process."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest, norm
from torch import Tensor

from labcore import Mixture, Process, ScoreError, counted, from_mixture, state_law
from labcore.noise import brownian, initial
from labcore.testing import audit, default_data, gaussian_score, quadratic
from labcore.testing.audit import final
from labcore_linear import cld, diag_vp, edm, ou, rotating, sigma_t, vp
from labcore_samplers import oracle
from labcore_scores import empirical, exact, perturbed

F64 = torch.float64
PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "sigma_t": sigma_t(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
    "rotating": rotating(),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def event_of(process: Process) -> tuple[int, ...]:
    return process.event_shape or (2,)


def three_modes(d: int) -> Mixture:
    means = torch.zeros(3, d, dtype=F64)
    means[0, 0], means[1, -1], means[2] = -3.0, 2.0, 1.5
    covs = torch.stack([(k + 1) / 10 * default_data(d).covs[0] for k in range(3)])
    return Mixture(torch.tensor([0.6, 0.3, 0.1], dtype=F64), means, covs)


@each_process
@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_law_of_a_gaussian_is_exact_at_any_number_of_steps(process: Process, steps: int) -> None:
    """The exact audit: no Monte-Carlo error to hide behind."""
    event = event_of(process)
    data = default_data(math.prod(event))
    kernel = exact(process, from_mixture(data, event))

    def sampler(process: Process, score: object, *rest: Tensor) -> object:
        return oracle(process, kernel, *rest)

    got = audit(sampler, process, quadratic(process, steps), data, event=event)  # type: ignore[arg-type]
    scale = float(got.exact.covs[0].trace().sqrt())
    assert got.w2 < 1e-8 * max(1.0, scale)


@each_process
@pytest.mark.parametrize("steps", [1, 5])
def test_law_of_a_mixture_is_exact(process: Process, steps: int) -> None:
    """From the exact p_T: masses of the modes and every coordinate's distribution.

    At n = 20000 and level 1e-4, the chi-square test sees a mass off by 0.02 and the
    Kolmogorov-Smirnov test distribution functions 0.025 apart, each with probability > 0.95.
    """
    event, n = event_of(process), 20_000
    data = three_modes(math.prod(event))
    target, state = from_mixture(data, event), process.event(event)
    score = counted(exact(process, target), n)
    ts = quadratic(process, steps)
    x0 = data.sample(n, torch.Generator().manual_seed(0)).reshape(n, *event)
    x = process.perturb(x0, process.T, initial([1], n, state, dtype=F64))
    noise = brownian(ts, state, [1], n, dtype=F64)
    out = final(oracle(process, score, x, ts, noise), x).flatten(1)
    law = state_law(process, data, ts[-1], event)
    counts = law.log_joint(out).argmax(1).bincount(minlength=3)
    again = law.log_joint(law.sample(400_000, torch.Generator().manual_seed(2))).argmax(1)
    wanted = again.bincount(minlength=3).double() / len(again)
    assert chisquare(counts.numpy(), (wanted * n / wanted.sum()).numpy()).pvalue > 1e-4
    for i in range(out.shape[1]):
        std = law.covs[:, i, i].sqrt()

        def cdf(v: Any, i: int = i, std: Tensor = std) -> Any:
            return sum(
                float(w) * norm.cdf(v, float(m[i]), float(s))
                for w, m, s in zip(law.weights, law.means, std, strict=True)
            )

        assert kstest(out[:, i].numpy(), cdf).pvalue > 1e-4
    assert score.nfe == steps


@each_process
def test_log_prob_is_the_score_s_potential_at_any_times(process: Process) -> None:
    event = event_of(process)
    data = three_modes(math.prod(event))
    score, t = exact(process, from_mixture(data, event)), torch.tensor(0.3 * process.T, dtype=F64)
    state = process.event(event)
    x = torch.randn(6, *state, dtype=F64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(score.log_prob(x, t).sum(), x)
    torch.testing.assert_close(slope, score(x, t), rtol=1e-7, atol=1e-8)
    law = state_law(process, data, t, event)
    wanted = law.log_prob(x.detach().flatten(1))
    torch.testing.assert_close(score.log_prob(x.detach(), t), wanted)
    both = torch.stack([t, t, t, t / 2, t / 2, t])
    rows = [score.log_prob(x[i : i + 1].detach(), both[i]) for i in range(6)]
    torch.testing.assert_close(score.log_prob(x.detach(), both), torch.cat(rows))


@pytest.mark.parametrize("process", [vp(), cld()], ids=["vp", "cld"])
def test_log_prob_of_a_data_set_is_that_of_narrow_components(process: Process) -> None:
    points = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    narrow = (1e-16 * torch.eye(2, dtype=F64)).expand(5, 2, 2)
    data = Mixture(torch.full((5,), 0.2, dtype=F64), points, narrow)
    from labcore import Target

    target = Target((2,), lambda n, g: points[:n].float(), data=points)
    t = torch.tensor(0.4, dtype=F64)
    x = torch.randn(9, *process.event((2,)), dtype=F64, generator=torch.Generator().manual_seed(2))
    got = empirical(process, target).log_prob(x, t)
    wanted = state_law(process, data, t, (2,)).log_prob(x.flatten(1))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_a_score_without_a_kernel_or_density_is_refused_with_a_remedy() -> None:
    process, target = vp(), from_mixture(default_data(2))
    x, ts = torch.zeros(3, 2, dtype=F64), quadratic(process, 2)
    noise = brownian(ts, (2,), [0], 3, dtype=F64)
    for score in (gaussian_score(process, default_data(2), (2,)), perturbed(process, target)):
        with pytest.raises(ScoreError, match=r"no exact reverse kernel.*needs=\('reverse',\)"):
            next(iter(oracle(process, counted(score, 3), x, ts, noise)))

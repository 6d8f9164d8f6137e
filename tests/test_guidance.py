"""Classifier-free guidance: a mixture of two scores that costs two and is budgeted as two."""

import pytest
import torch

import labcore
from labcore import InvalidOption, Mixture, counted, from_mixture, use
from labcore.expand import steps_within
from labcore.parts import Parts
from labcore.run import run_cells
from labcore.testing import quadratic
from labcore_linear import cld, vp
from labcore_samplers import ddim
from labcore_samplers.heun import heun
from labcore_scores import exact, guided
from labcore_scores.guided import given

F64 = torch.float64
LAW = Mixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=F64),
    torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], dtype=F64),
    torch.stack([s * torch.eye(2, dtype=F64) for s in (0.3, 0.2, 0.1)]),
)
x = torch.randn(7, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
t = torch.tensor(0.3, dtype=F64)


@pytest.mark.parametrize("w", [0.0, 1.0, 3.5, -1.0, -0.5])
def test_it_is_the_weighted_difference_of_exact_scores(w: float) -> None:
    process, target = vp(), from_mixture(LAW)
    chosen = from_mixture(given(LAW, (0, 2)))
    s = guided(process, target, label=(0, 2), weight=w)(x, t)
    wanted = (1 + w) * exact(process, chosen)(x, t) - w * exact(process, target)(x, t)
    torch.testing.assert_close(s, wanted)


def test_guidance_is_the_gradient_of_the_log_posterior_of_the_label() -> None:
    """s = grad log p_t + (1 + w) grad log p(label | x_t), for Bayes' posterior (eq. 4 and 6)."""
    process, target, w = cld(), from_mixture(LAW), 2.0
    y = torch.randn(5, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    law = labcore.state_law(process, LAW, t, (2,))
    y.requires_grad_(True)
    posterior = law.log_joint(y.flatten(1)).log_softmax(1)[:, [1, 2]].logsumexp(1)
    (slope,) = torch.autograd.grad(posterior.sum(), y)
    y = y.detach()
    wanted = exact(process, target)(y, t) + (1 + w) * slope
    got = guided(process, target, label=(1, 2), weight=w)(y, t)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)


def test_samples_of_the_condition_alone_have_its_law() -> None:
    """At w=0 only the chosen components are sampled; w > 0 sharpens them further."""
    process, target, ts, n = vp(), from_mixture(LAW), quadratic(vp(), 60), 3000
    start = torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    spread = []
    for w in (0.0, 2.0):
        out = start
        for out in ddim(process, guided(process, target, label=(1,), weight=w), start, ts, None):  # noqa: B007
            pass
        assert float((LAW.log_joint(out).argmax(1) == 1).double().mean()) > 0.99
        spread.append(float(out.var(0).mean()))
    assert spread[0] == pytest.approx(0.2, rel=0.1)
    assert spread[1] < spread[0]


def test_a_call_counts_for_two_and_so_does_the_budget() -> None:
    meter = counted(guided(vp(), from_mixture(LAW)), 7)
    meter(x, t)
    assert meter.nfe == 2
    assert steps_within(heun, 40, "stop", cost=2) == 10
    assert steps_within(heun, 41, "denoise", cost=2) == 9
    with pytest.raises(labcore.InvalidStudy, match=r"nfe=3 does not pay.*at least 4"):
        steps_within(heun, 3, "stop", cost=2)


def test_equal_budgets_stay_equal_in_a_study() -> None:
    study = labcore.Study(
        name="guidance",
        question="does it pay for both?",
        target=use("gmm_ring"),
        process=use("vp"),
        score=["scores:exact", use("guided", label=[0, 1], weight=1.0)],
        grid="log_snr",
        sampler=["samplers:heun", "ddim"],
        nfe=[24],
        end=["stop", "denoise"],
        n=10,
        metrics=["energy"],
    )
    registry = labcore.load_registry()
    for cell in study.cells(registry):
        (result,) = run_cells([cell], study.metric_uses(registry), Parts(registry))
        assert result.status == "ok", result.reason
        assert 20 < result.nfe <= 24


@pytest.mark.parametrize("label", [(3,), (-1,), (0, 0)])
def test_labels_that_are_no_components_are_refused(label: tuple[int, ...]) -> None:
    with pytest.raises(InvalidOption, match="names no set of components; the mixture has 3"):
        guided(vp(), from_mixture(LAW), label=label)

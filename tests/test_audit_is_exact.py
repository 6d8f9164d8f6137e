"""The exact audit: agrees with Monte Carlo and closed forms, and says what it cannot audit."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import labcore
from labcore import Entry, SamplerError
from labcore.noise import brownian, initial, replay
from labcore.targets import state_law
from labcore.testing import (
    audit,
    bures,
    default_data,
    gaussian,
    gaussian_score,
    kl,
    quadratic,
    vp,
    weak_order,
)
from labcore.testing.audit import Order, final
from labcore_linear import cld, ou
from labcore_samplers import ancestral, ddim, euler, euler_maruyama, heun

F64 = torch.float64
NOISY: dict[str, tuple[Entry, dict[str, Any]]] = {
    "euler_maruyama": (euler_maruyama, {}),
    "ancestral": (ancestral, {}),
    "ddim-0.6": (ddim, {"eta": 0.6}),
    "heun": (heun, {}),
}


@pytest.mark.parametrize(("sampler", "options"), NOISY.values(), ids=NOISY)
def test_agrees_with_a_million_samples(sampler: Entry, options: dict[str, Any]) -> None:
    """Mean and covariance within five standard errors, 8 steps of VP on 2-D data."""
    process, data, n, d = vp(), default_data(2), 1_000_000, 2
    ts = quadratic(process, 8)
    law = audit(sampler, process, ts, data, options=options)
    assert law.draws == (8 if sampler is not heun else 0)
    start = state_law(process, data, ts[0], (2,))
    x = start.means[0] + initial([5], n, (2,), dtype=F64) @ start._chol[0].T
    score = gaussian_score(process, data, (2,))
    with torch.inference_mode():
        noise = brownian(ts, (2,), [5], n, dtype=F64)
        out = final(sampler(process, score, x, ts, noise, **options), x)
    off = (out.mean(0) - law.mean).abs() / (law.cov.diagonal() / n).sqrt()
    assert float(off.max()) < 5
    v = law.cov.diagonal()
    error = ((v[:, None] * v + law.cov.square()) / n).sqrt()
    assert float(((out.T.cov() - law.cov).abs() / error).max()) < 5
    # The audit's distance to the truth is not Monte-Carlo's: the truth lies beyond it.
    assert law.w2 > 4 * math.sqrt(d * float(v.max()) / n)


def test_one_euler_maruyama_step_is_its_gaussian() -> None:
    """x + (beta/2 x + beta g) h + sqrt(beta h) z on 1-D data N(m, v), by hand."""
    m, v, t, s = 1.5, 0.3, 0.6, 0.5
    law = audit(
        euler_maruyama,
        vp(),
        torch.tensor([t, s], dtype=F64),
        gaussian(torch.tensor([m], dtype=F64), torch.tensor([[v]], dtype=F64)),
    )
    B, beta, h = 0.1 * t + 19.9 * t * t / 2, 0.1 + 19.9 * t, t - s
    mean, var = math.exp(-B / 2) * m, math.exp(-B) * v - math.expm1(-B)
    slope = 1 + h * (beta / 2 - beta / var)
    assert float(law.mean) == pytest.approx(slope * mean + h * beta * mean / var, rel=1e-12)
    assert float(law.cov) == pytest.approx(slope**2 * var + beta * h, rel=1e-12)


@labcore.sampler(order=None)
def closed_form(process, score, x, ts, noise):
    """The exact PF-ODE map of N(1, 0.3) data on VP: the audit must find nothing wrong."""
    for t, s in pairwise(ts):
        a, b = (state_law(process, ONE_D, u, (1,)) for u in (t, s))
        x = b.means[0] + (b.covs[0, 0] / a.covs[0, 0]).sqrt() * (x - a.means[0])
        yield x


ONE_D = gaussian(torch.tensor([1.0]), torch.tensor([[0.3]]))


def test_an_exact_sampler_has_no_error() -> None:
    law = audit(closed_form, vp(), quadratic(vp(), 5), ONE_D)
    assert law.w2 < 1e-14
    assert law.kl < 1e-14
    with pytest.raises(SamplerError, match=r"rounding floor; use fewer steps"):
        weak_order(closed_form, vp(), quadratic, ONE_D, steps=(4, 8))


def test_the_start_is_an_error_of_its_own() -> None:
    """From N(0, Sigma(T)) in place of p_T, the exact flow ends off by the prior mismatch."""
    process, ts = vp(0.1, 5.0), quadratic(vp(0.1, 5.0), 5)
    prior = gaussian(torch.zeros(1), process.prior().dense((1,))[0])
    begin, end = (state_law(process, ONE_D, u, (1,)) for u in (ts[0], ts[-1]))
    growth = (end.covs[0, 0, 0] / begin.covs[0, 0, 0]).sqrt()
    spread = (prior.covs[0, 0, 0] ** 0.5 - begin.covs[0, 0, 0] ** 0.5) * growth
    wanted = math.hypot(float(growth * begin.means[0, 0]), float(spread))
    law = audit(closed_form, process, ts, ONE_D, start=prior)
    assert law.w2 == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("process", [vp(), ou(), cld()], ids=["vp", "ou", "cld"])
def test_the_map_is_read_off_for_images_and_blocks_alike(process: labcore.Process) -> None:
    """The audited covariance is that of the map's own columns, found one row at a time."""
    event = process.event_shape or (2,)
    data, ts = default_data(2), quadratic(process, 3)
    state = tuple(process.event(event))
    D = math.prod(state)
    law = audit(euler_maruyama, process, ts, data, event=event)
    score = gaussian_score(process, data, event)
    inputs = [torch.zeros(4, D, dtype=F64)]
    for i in range(4):
        for j in range(D):
            e = torch.zeros(4, D, dtype=F64)
            e[i, j] = 1
            inputs.append(e)

    def output(e: Tensor) -> Tensor:
        x, z = e[:1].reshape(1, *state), e[1:].reshape(3, 1, *state)
        noise = replay(z)
        return final(euler_maruyama(process, score, x, ts, noise), x).flatten()

    zero, *rest = [output(e) for e in inputs]
    J = torch.stack([column - zero for column in rest], 1)
    start = state_law(process, data, ts[0], event)
    mean = zero + J[:, :D] @ start.means[0]
    cov = J[:, :D] @ start.covs[0] @ J[:, :D].T + J[:, D:] @ J[:, D:].T
    torch.testing.assert_close(law.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.cov, cov, rtol=1e-9, atol=1e-9)


def refused(name: str) -> Any:
    """Samplers whose output is no affine map of (x_T, z)."""

    @labcore.sampler(order=1)
    def clipped(process, score, x, ts, noise):
        for y in euler(process, score, x, ts, noise):
            yield y.clamp(-3, 3)

    @labcore.sampler(order=1)
    def corrected(process, score, x, ts, noise):
        """Langevin steps e = 2 (r |z| / |g|)^2, which depend on norms."""
        for (t, s), y in zip(pairwise(ts), euler(process, score, x, ts, noise), strict=True):
            z, g = noise(t, s), score(y, s)
            e = 2 * (0.1 * z.norm(dim=1) / (g.norm(dim=1) + 1e-9)) ** 2
            yield y + e[:, None] * g + (2 * e[:, None]).sqrt() * z

    @labcore.sampler(order=1)
    def adaptive(process, score, x, ts, noise):
        """More steps of its own where the slope is large."""
        v = labcore.velocity(process, score)
        for t, s in pairwise(ts):
            parts = 1 + (v(t, x).abs().max() > 3).int().item()
            for part in range(parts):
                x = x + float(s - t) / parts * v(t + (s - t) * part / parts, x)
            yield x

    @labcore.sampler(order=1)
    def draws_where_it_likes(process, score, x, ts, noise):
        for t, s in pairwise(ts):
            kick = noise(t, s) if bool((x != 0).any()) else 0.0
            x = x + 0.1 * kick
            yield x

    return {e.name: e for e in (clipped, corrected, adaptive, draws_where_it_likes)}[name]


@pytest.mark.parametrize("name", ["clipped", "corrected", "adaptive", "draws_where_it_likes"])
def test_what_is_not_affine_is_reported_as_not_auditable(name: str) -> None:
    with pytest.raises(SamplerError, match="cannot be audited exactly"):
        audit(refused(name), vp(), quadratic(vp(), 6), default_data(2))


def covariances(d: int, seed: int, log_scale: float = 0.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    M = torch.randn(2, d, d, generator=g, dtype=F64)
    C = M @ M.mT / d + 0.05 * torch.eye(d, dtype=F64)
    return C[0], math.exp(log_scale) * C[1]


laws = given(st.integers(1, 6), st.integers(0, 10_000), st.floats(-6, 6))


@laws
@settings(max_examples=60, deadline=None)
def test_bures_is_the_textbook_formula(d: int, seed: int, log_scale: float) -> None:
    """W2^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C2^1/2 C1 C2^1/2)^1/2), roots by scipy."""
    C1, C2 = covariances(d, seed, log_scale)
    m1, m2 = torch.zeros(d, dtype=F64), torch.linspace(0, 1, d, dtype=F64)
    root = np.real(sqrtm(C2.numpy()))
    cross = np.real(sqrtm(root @ C1.numpy() @ root))
    squared = float((m1 - m2).square().sum()) + float((C1 + C2).trace()) - 2 * np.trace(cross)
    assert bures(m1, C1, m2, C2) == pytest.approx(math.sqrt(max(squared, 0.0)), rel=1e-6, abs=1e-6)
    assert bures(m1, C1, m2, C2) == pytest.approx(bures(m2, C2, m1, C1), rel=1e-8)


@laws
@settings(max_examples=60, deadline=None)
def test_kl_is_that_of_torch(d: int, seed: int, log_scale: float) -> None:
    C1, C2 = covariances(d, seed, log_scale)
    m1, m2 = torch.zeros(d, dtype=F64), torch.linspace(0, 1, d, dtype=F64)
    wanted = kl_divergence(MultivariateNormal(m1, C1), MultivariateNormal(m2, C2))
    assert kl(m1, C1, m2, C2) == pytest.approx(float(wanted), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("e", [1e-3, 1e-6, 1e-9, 1e-12])
def test_distances_keep_their_digits_for_laws_that_nearly_agree(e: float) -> None:
    """For commuting covariances W2 = |sqrt(c1) - sqrt(c2)| and KL is the sum over coordinates."""
    m = torch.zeros(3, dtype=F64)
    c = torch.tensor([0.5, 1.0, 4.0], dtype=F64)
    w = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    C1, C2 = torch.diag(c * (1 + e * w)), torch.diag(c)
    moved = (C1 - C2).diagonal() / c  # what is left of e w after rounding
    root = (moved / (1 + (1 + moved).sqrt())).square()
    assert bures(m, C1, m, C2) == pytest.approx(float((c * root).sum().sqrt()), rel=1e-10)
    if e > 1e-7:
        ratio = float((moved - torch.log1p(moved)).sum() / 2)
        assert kl(m, C1, m, C2) == pytest.approx(ratio, rel=1e-6)


def test_singular_output_has_a_bures_distance_and_infinite_kl() -> None:
    zero, one, m = torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64), torch.zeros(2, dtype=F64)
    assert bures(m, zero, m, one) == pytest.approx(math.sqrt(2))
    assert kl(m, zero, m, one) == math.inf


def test_order_is_the_slope_of_the_errors() -> None:
    order = weak_order(euler, vp(), quadratic, default_data(2), steps=(256, 512, 1024))
    assert isinstance(order, Order)
    assert order.errors[0] > order.errors[1] > order.errors[2]
    wanted = -np.polyfit(np.log(order.steps), np.log(order.errors), 1)[0]
    assert order.slope == pytest.approx(wanted, rel=1e-9)
    assert order.local == pytest.approx(np.log2(np.divide(order.errors[:-1], order.errors[1:])))


def test_the_exact_score_of_gaussian_data_is_the_gradient_of_its_log_density() -> None:
    process, data = cld(), default_data(2)
    law = state_law(process, data, 0.4, (2,))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    (gradient,) = torch.autograd.grad(
        MultivariateNormal(law.means[0], law.covs[0]).log_prob(x).sum(), x
    )
    score, t = gaussian_score(process, data, (2,)), torch.tensor(0.4, dtype=F64)
    got = score(x.detach().reshape(5, 2, 2), t)
    torch.testing.assert_close(got.flatten(1), gradient, rtol=1e-9, atol=1e-9)
    rows = score(x.detach().reshape(5, 2, 2), t.expand(5))
    torch.testing.assert_close(rows, got, rtol=1e-12, atol=1e-12)

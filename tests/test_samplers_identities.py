"""Samplers that are one formula in two guises agree to rounding, whatever the structure."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import far, rotation
from mpmath import exp, expm1, mpf, sqrt, workdps
from mpmath import quad as mp_quad
from torch import Tensor

from labcore import Entry, LinOp, Mat, Mixture, Noise, Process, Score
from labcore.noise import brownian, initial, replay
from labcore.testing import audit, default_data, gaussian_score, quadratic, uneven
from labcore.testing.audit import final
from labcore_linear import diag_vp, edm, sigma_t, vp, vp_cosine
from labcore_samplers import ancestral, ddim, euler, euler_maruyama, heun

F64 = torch.float64
ALL: dict[str, tuple[Entry, dict[str, Any]]] = {
    "euler": (euler, {}),
    "heun": (heun, {}),
    "euler_maruyama": (euler_maruyama, {}),
    "ancestral": (ancestral, {}),
    "ddim": (ddim, {}),
    "ddim-0.5": (ddim, {"eta": 0.5}),
}
each = pytest.mark.parametrize(("sampler", "options"), ALL.values(), ids=ALL)


def bumps(process: Process) -> Score:
    """Not affine: the score of three isotropic Gaussians, on any event."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        v = float(process.Sigma(t).logdet((1,)).exp()) + 0.2
        flat = x.flatten(1)
        modes = torch.linspace(-2, 2, 3 * flat.shape[1], dtype=x.dtype).reshape(3, -1)
        delta = modes - flat[:, None]
        weight = torch.softmax(-delta.square().sum(-1) / (2 * v), 1)
        return ((weight[..., None] * delta).sum(1) / v).reshape(x.shape)

    return score


def run(
    sampler: Entry,
    process: Process,
    score: Score,
    *,
    n: int = 12,
    event: tuple[int, ...] = (2,),
    dtype: torch.dtype = F64,
    x: Tensor | None = None,
    noise: Noise | None = None,
    **options: Any,
) -> Tensor:
    """All states of one run on a shared path, (n, B, *event)."""
    ts = uneven(process, n)
    x = 2 * initial([0], 6, event, dtype=dtype) if x is None else x
    noise = noise or brownian(ts, event, [0], 6, dtype=dtype)
    return torch.stack(list(sampler(process, score, x, ts, noise, **options)))


PATHS = {"vp": vp(), "sigma_t": sigma_t(), "edm": edm(), "cosine": vp_cosine()}
each_scalar = pytest.mark.parametrize("process", PATHS.values(), ids=PATHS)


def alpha_sigma(process: Process, t: Tensor) -> tuple[float, float]:
    zero = torch.zeros((), dtype=F64)
    return float(process.Phi(t, zero).param), float(process.Sigma(t).param) ** 0.5


@each_scalar
def test_ddim_is_the_exponential_euler_step(process: Process) -> None:
    """DDIM as in its paper, and as DPM-Solver-1 in half log-SNR, written out in numbers.

    h there is a difference of logarithms, each right to 2^-52 of its own size.
    """
    score = bumps(process)
    x = y = 2 * initial([0], 6, (2,), dtype=F64)
    states = run(ddim, process, score, x=x)
    for (t, s), state in zip(pairwise(uneven(process, 12)), states, strict=True):
        (a_t, s_t), (a_s, s_s) = alpha_sigma(process, t), alpha_sigma(process, s)
        eps = -s_t * score(x, t)
        x = a_s / a_t * x + (s_s - a_s / a_t * s_t) * eps
        h = math.log(a_s / s_s) - math.log(a_t / s_t)
        y = a_s / a_t * y - s_s * math.expm1(h) * (-s_t * score(y, t))
        assert far(x[None], state[None]) < 1e-12
        assert far(y[None], state[None]) < 1e-12


def test_the_step_of_ddim_is_the_integral_of_the_linear_equation() -> None:
    """int_t^s Phi(s,u) G^2(u) / (2 sigma(u)) du in 30 digits, from beta alone (VP)."""

    def B(t: mpf) -> mpf:
        return mpf(0.1) * t + (mpf(20.0) - mpf(0.1)) * t * t / 2

    def integrand(u: mpf) -> mpf:
        beta = mpf(0.1) + (mpf(20.0) - mpf(0.1)) * u
        return exp(-(B(s) - B(u)) / 2) * beta / (2 * sqrt(-expm1(-B(u))))

    x, eps, process = torch.ones(1, 1, dtype=F64), 0.7, vp()
    with workdps(30):
        for t, s in ((1.0, 0.5), (0.5, 0.2), (0.2, 0.15), (0.05, 0.001), (0.011, 0.01)):
            t, s = mpf(t), mpf(s)
            ts = torch.tensor([float(t), float(s)], dtype=F64)
            sigma = float(sqrt(-expm1(-B(t))))
            noise = brownian(ts, (1,), [0], 1)
            (got,) = ddim(process, lambda x, t: 0 * x - eps / sigma, x, ts, noise)  # noqa: B023
            wanted = exp(-(B(s) - B(t)) / 2) + eps * mp_quad(integrand, [t, (t + s) / 2, s])
            assert float(got) == pytest.approx(float(wanted), rel=1e-12)


def test_euler_maruyama_is_the_paper_s_formula() -> None:
    """x + (beta/2 x + beta g)(t - s) + sqrt(beta (t - s)) z, VP."""
    process, score, x = vp(), bumps(vp()), 2 * initial([0], 6, (2,), dtype=F64)
    ts = uneven(process, 12)
    noise = brownian(ts, (2,), [0], 6, dtype=F64)
    states = run(euler_maruyama, process, score, x=x)
    for (t, s), state in zip(pairwise(ts), states, strict=True):
        beta, h = 0.1 + 19.9 * float(t), float(t - s)
        x = x + (beta / 2 * x + beta * score(x, t)) * h + math.sqrt(beta * h) * noise(t, s)
        assert far(x[None], state[None]) < 1e-12


def test_heun_on_edm_is_algorithm_1_of_the_paper() -> None:
    """Karras et al. (2022) with sigma(t) = t, s(t) = 1, on the denoiser D; no last Euler step."""
    process, score, x = edm(), bumps(edm()), 50 * initial([0], 6, (2,), dtype=F64)

    def D(x: Tensor, t: Tensor) -> Tensor:
        return x + t**2 * score(x, t)

    states = run(heun, process, score, x=x)
    for (t, s), state in zip(pairwise(uneven(process, 12)), states, strict=True):
        d = (x - D(x, t)) / t
        ahead = x + (s - t) * d
        x = x + (s - t) * (d / 2 + (ahead - D(ahead, s)) / s / 2)
        assert far(x[None], state[None]) < 1e-12


@settings(max_examples=40, deadline=None)
@given(st.floats(0.002, 0.99), st.floats(0.01, 0.99))
def test_ancestral_variance_is_beta_tilde(t: float, ratio: float) -> None:
    """Ho et al. (2020), eq. 7: beta_t (1 - abar_s)/(1 - abar_t), and its mean's coefficients.

    The paper's differences of abar cancel at small t: they are taken in 40 digits.
    """
    process, s = vp(), max(t * ratio, 1e-3)
    K, C = process.posterior(torch.tensor([s], dtype=F64), torch.tensor([t], dtype=F64))
    with workdps(40):
        abar_t, abar_s = (
            exp(-(mpf(0.1) * u + (mpf(20.0) - mpf(0.1)) * u * u / 2)) for u in (mpf(t), mpf(s))
        )
        a = abar_t / abar_s
        tilde = (1 - a) * (1 - abar_s) / (1 - abar_t)
        on_x0, on_x = sqrt(abar_s) * (1 - a) / (1 - abar_t), sqrt(a) * (1 - abar_s) / (1 - abar_t)
        got = sqrt(abar_s) - mpf(float(K.param)) * sqrt(abar_t)
        assert float(C.param) == pytest.approx(float(tilde), rel=1e-12)
        assert float(K.param) == pytest.approx(float(on_x), rel=1e-12)
        assert float(got) == pytest.approx(float(on_x0), rel=1e-12, abs=1e-12)


@each
def test_a_dense_process_is_a_diagonal_one_in_turned_coordinates(
    sampler: Entry, options: dict[str, Any]
) -> None:
    """In law: the Cholesky factor turns the noise, the output law does not see it."""
    diagonal, EYE = diag_vp(), Mat(torch.eye(2, dtype=F64)[None])
    U = rotation(0.7)
    turn = Mat(U[None])

    def over(f: Callable[..., LinOp]) -> Callable[..., LinOp]:
        return lambda *times: turn @ f(*times).lift(EYE) @ turn.T

    dense = replace(
        diagonal,
        A=over(diagonal.A),
        G=over(diagonal.G),
        Phi=over(diagonal.Phi),
        Sigma=over(diagonal.Sigma),
        closed_Q=over(diagonal.Q),
        structure="dense",
    )
    data = default_data(2)
    turned = Mixture(data.weights, data.means @ U.T, U @ data.covs @ U.T)
    ts = quadratic(diagonal, 10)
    one = audit(sampler, diagonal, ts, data, options=options)
    two = audit(sampler, dense, ts, turned, options=options)
    assert far(two.mean[None], (U @ one.mean)[None]) < 1e-12
    assert far(two.cov[None], (U @ one.cov @ U.T)[None]) < 1e-12


@each
@each_scalar
def test_single_precision_stays_close_to_double(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    """On the same draws; the coefficients are float64 in both."""
    score = gaussian_score(process, default_data(2), (2,))
    single = run(sampler, process, score, n=200, dtype=torch.float32, **options)
    double = run(sampler, process, score, n=200, **options)
    assert single.dtype == torch.float32
    error = (single.double() - double).abs().amax((1, 2)) / double.abs().amax((1, 2))
    assert float(error.max()) < 2e-4


@each
def test_images_are_sampled_as_their_flattened_vectors(
    sampler: Entry, options: dict[str, Any]
) -> None:
    process, event = vp(), (2, 3, 4)
    x = initial([0], 6, event, dtype=F64)
    z = initial([0], 12 * 6, event, name="draws", dtype=F64).reshape(12, 6, *event)
    image = run(sampler, process, bumps(process), x=x, noise=replay(z), event=event, **options)
    flat = run(
        sampler,
        process,
        bumps(process),
        x=x.flatten(1),
        noise=replay(z.flatten(2)),
        event=(24,),
        **options,
    )
    assert far(image.flatten(2), flat) < 1e-12


def test_one_seed_is_one_path_whatever_the_sampler_and_the_number_of_steps() -> None:
    """Two step counts on one path are far closer than two seeds."""
    process, score = vp(), bumps(vp())
    x = initial([0], 400, (2,), dtype=F64)

    def end(n: int, seed: int, sampler: Entry) -> Tensor:
        ts = quadratic(process, n)
        return final(sampler(process, score, x, ts, brownian(ts, (2,), [seed], 400, dtype=F64)), x)

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm(dim=1).median())

    reference = end(512, 1, ancestral)
    assert apart(end(1024, 1, ancestral), reference) < 0.05
    assert apart(end(512, 1, euler_maruyama), reference) < 0.05
    assert apart(end(512, 2, ancestral), reference) > 0.5

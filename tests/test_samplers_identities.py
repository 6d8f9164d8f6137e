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
from scipy.integrate import quad
from torch import Tensor

from labcore import Diag, Entry, LinOp, Mat, Mixture, Noise, Process, Score
from labcore.noise import brownian, initial, replay
from labcore.testing import audit, default_data, gaussian_score, quadratic, uneven
from labcore.testing.audit import final
from labcore_linear import diag_vp, edm, sigma_t, vp, vp_cosine
from labcore_samplers import ancestral, ddim, euler, euler_maruyama, heun

F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}
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
    """DDIM as in its paper, and as DPM-Solver-1 in half log-SNR, written out in numbers."""
    score = bumps(process)
    x = y = 2 * initial([0], 6, (2,), dtype=F64)
    states = run(ddim, process, score, x=x)
    for (t, s), state in zip(pairwise(uneven(process, 12)), states, strict=True):
        (a_t, s_t), (a_s, s_s) = alpha_sigma(process, t), alpha_sigma(process, s)
        eps = -s_t * score(x, t)
        x = a_s / a_t * x + (s_s - a_s / a_t * s_t) * eps
        torch.testing.assert_close(state, x, **EXACT)
        h = math.log(a_s / s_s) - math.log(a_t / s_t)
        y = a_s / a_t * y - s_s * math.expm1(h) * (-s_t * score(y, t))
        torch.testing.assert_close(state, y, rtol=1e-10, atol=1e-10)


def test_the_step_of_ddim_is_the_integral_of_the_linear_equation() -> None:
    """int_t^s Phi(s,u) G^2(u) / (2 sigma(u)) du by quadrature, from beta alone (VP)."""

    def B(t: float) -> float:
        return 0.1 * t + 19.9 * t * t / 2

    def integrand(u: float) -> float:
        beta = 0.1 + 19.9 * u
        return math.exp(-(B(s) - B(u)) / 2) * beta / (2 * math.sqrt(-math.expm1(-B(u))))

    x, eps, process = torch.ones(1, 1, dtype=F64), 0.7, vp()
    for t, s in ((1.0, 0.5), (0.5, 0.2), (0.2, 0.15), (0.05, 0.001)):
        ts = torch.tensor([t, s], dtype=F64)
        sigma = math.sqrt(-math.expm1(-B(t)))
        (got,) = ddim(process, lambda x, t: 0 * x - eps / sigma, x, ts, brownian(ts, (1,), [0], 1))  # noqa: B023
        wanted = math.exp(-(B(s) - B(t)) / 2) + eps * quad(integrand, t, s, epsabs=1e-13)[0]
        assert float(got) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("process", [*PATHS.values(), diag_vp()], ids=[*PATHS, "diag"])
def test_ddim_with_eta_1_is_ancestral(process: Process) -> None:
    score = gaussian_score(process, default_data(2), (2,))
    torch.testing.assert_close(
        run(ddim, process, score, eta=1.0), run(ancestral, process, score), **EXACT
    )


@each_scalar
def test_euler_maruyama_without_noise_is_euler(process: Process) -> None:
    score = bumps(process)
    same = run(euler_maruyama, process, score, lam=0.0)
    torch.testing.assert_close(same, run(euler, process, score), rtol=0, atol=0)


def test_euler_maruyama_is_the_paper_s_formula() -> None:
    """x + (beta/2 x + beta g)(t - s) + sqrt(beta (t - s)) z, VP."""
    process, score, x = vp(), bumps(vp()), 2 * initial([0], 6, (2,), dtype=F64)
    ts = uneven(process, 12)
    noise = brownian(ts, (2,), [0], 6, dtype=F64)
    states = run(euler_maruyama, process, score, x=x)
    for (t, s), state in zip(pairwise(ts), states, strict=True):
        beta, h = 0.1 + 19.9 * float(t), float(t - s)
        x = x + (beta / 2 * x + beta * score(x, t)) * h + math.sqrt(beta * h) * noise(t, s)
        torch.testing.assert_close(state, x, **EXACT)


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
        torch.testing.assert_close(state, x, rtol=1e-11, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.002, 0.99), st.floats(0.01, 0.99))
def test_ancestral_variance_is_beta_tilde(t: float, ratio: float) -> None:
    """Ho et al. (2020), eq. 7: beta_t (1 - abar_s)/(1 - abar_t), and its mean's coefficients."""
    process = vp()
    t_, s_ = torch.tensor([t], dtype=F64), torch.tensor([max(t * ratio, 1e-3)], dtype=F64)

    def abar(t: Tensor) -> float:
        return math.exp(-(0.1 * float(t) + 19.9 * float(t) ** 2 / 2))

    K, C = process.posterior(s_, t_)
    a = abar(t_) / abar(s_)
    assert float(C.param) == pytest.approx(
        -math.expm1(math.log(a)) * (1 - abar(s_)) / (1 - abar(t_)), rel=1e-9
    )
    x, x0 = 0.7, -1.3
    mean = math.sqrt(abar(s_)) * x0 + float(K.param) * (x - math.sqrt(abar(t_)) * x0)
    wanted = math.sqrt(abar(s_)) * (1 - a) / (1 - abar(t_)) * x0
    wanted += math.sqrt(a) * (1 - abar(s_)) / (1 - abar(t_)) * x
    assert mean == pytest.approx(wanted, rel=1e-9)


def lifted(process: Process, like: LinOp, structure: Any) -> Process:
    """The same process with its operators in a richer structure."""

    def over(f: Callable[..., LinOp]) -> Callable[..., LinOp]:
        return lambda *times: f(*times).lift(like)

    return replace(
        process,
        A=over(process.A),
        G=over(process.G),
        Phi=over(process.Phi),
        Sigma=over(process.Sigma),
        closed_Q=over(process.Q),
        structure=structure,
        event_shape=(2,),
    )


AS_DIAG = Diag(torch.ones(1, 2, dtype=F64))
AS_MAT = Mat(torch.eye(2, dtype=F64)[None])


@each
@each_scalar
def test_scalar_diagonal_and_dense_versions_of_one_process_agree(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    score = bumps(process)
    scalar = run(sampler, process, score, **options)
    diagonal = run(sampler, lifted(process, AS_DIAG, "diag"), score, **options)
    dense = run(sampler, lifted(process, AS_MAT, "dense"), score, **options)
    torch.testing.assert_close(diagonal, scalar, rtol=1e-12, atol=1e-12)
    # DDIM on dense operators integrates an ODE for Psi, to 1e-11 a step.
    loose = 1e-9 if sampler is ddim else 1e-12
    torch.testing.assert_close(dense, scalar, rtol=loose, atol=loose * float(scalar.abs().max()))


@each
def test_a_dense_process_is_a_diagonal_one_in_turned_coordinates(
    sampler: Entry, options: dict[str, Any]
) -> None:
    """In law: the Cholesky factor turns the noise, the output law does not see it."""
    diagonal = diag_vp()
    U = rotation(0.7)
    turn = Mat(U[None])

    def over(f: Callable[..., LinOp]) -> Callable[..., LinOp]:
        return lambda *times: turn @ f(*times).lift(AS_MAT) @ turn.T

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
    torch.testing.assert_close(two.mean, U @ one.mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(two.cov, U @ one.cov @ U.T, rtol=1e-8, atol=1e-9)


def rotation(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=F64)


@each
@each_scalar
def test_isotropic_processes_commute_with_rotations(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    """Turn data, start and noise, and the output turns with them."""
    U, score = rotation(1.1), bumps(process)
    x = 2 * initial([0], 6, (2,), dtype=F64)
    z = initial([0], 12 * 6, (2,), name="draws", dtype=F64).reshape(12, 6, 2)

    def turned(x: Tensor, t: Tensor) -> Tensor:
        return score(x @ U, t) @ U.T

    straight = run(sampler, process, score, x=x, noise=replay(z), **options)
    other = run(sampler, process, turned, x=x @ U.T, noise=replay(z @ U.T), **options)
    torch.testing.assert_close(other, straight @ U.T, rtol=1e-11, atol=1e-11)


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
    torch.testing.assert_close(image.flatten(2), flat, **EXACT)


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

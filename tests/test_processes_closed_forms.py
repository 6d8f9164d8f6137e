"""Closed forms agree with numerical integration, and keep their digits for neighbouring times."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

import labcore_linear
from labcore import InvalidProcess, Process
from labcore_linear import (
    gaussian_path,
    numerical_process,
    ornstein_uhlenbeck,
    variance_preserving,
)

F64 = torch.float64
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}
CLOSED = [name for name in ENTRIES if name != "rotating"]


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def state_event(process: Process) -> tuple[int, ...]:
    return process.event(process.event_shape or (1,))


def integrated(process: Process) -> Process:
    """The same A and G, with Phi and Sigma found numerically."""
    event = state_event(process)
    return numerical_process(
        lambda t: process.A(t).dense(event),
        lambda t: process.G(t).dense(event),
        T=process.T,
        t_eps=process.t_eps,
        Sigma0=process.Sigma(f64(0)).dense(event)[0],
    )


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest |got - wanted|_ij / sqrt(wanted_ii wanted_jj)."""
    root = wanted.diagonal(dim1=1, dim2=2).sqrt()
    return float(((got - wanted) / (root[:, :, None] * root[:, None])).abs().max())


def random_times(process: Process, n: int) -> tuple[Tensor, Tensor]:
    """t > s in [0, T], spread over scales, some pairs only 1e-5 apart."""
    g = torch.Generator().manual_seed(0)
    u = torch.rand(2, n, generator=g, dtype=F64)
    t = process.T * (process.t_eps / process.T) ** (u[0] * 1.2)
    return t, t * torch.where(torch.arange(n) % 3 == 0, 1 - 1e-5, u[1])


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_agree_with_numerical_integration(name):
    process = ENTRIES[name]()
    other, event = integrated(process), state_event(process)
    t, s = random_times(process, 60)
    for a, b in ((t, s), (s, t), (t, torch.zeros_like(t))):
        Phi = process.Phi(a, b).dense(event)
        error = (other.Phi(a, b).dense(other.event_shape) - Phi).abs().amax((1, 2))
        assert float((error / Phi.abs().amax((1, 2))).max()) < 1e-9
    dense = [op.dense(event) for op in (process.Sigma(t), process.Q(t, s))]
    assert relative(other.Sigma(t).param, dense[0]) < 1e-9
    assert relative(other.Q(t, s).param, dense[1]) < 1e-8


def lyapunov(A, G, d: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Phi(t,0) and Sigma(t) by a Runge-Kutta method of order 8."""

    def field(u, y):
        Phi, S = y.reshape(2, d, d)
        a, g = A(f64(u))[0].numpy(), G(f64(u))[0].numpy()
        return np.stack([a @ Phi, a @ S + S @ a.T + g @ g.T]).ravel()

    y0 = np.stack([np.eye(d), np.zeros((d, d))]).ravel()
    return solve_ivp(field, (0, t), y0, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1].reshape(2, d, d)


@pytest.mark.parametrize("d", [2, 3])
def test_a_process_that_does_not_commute_agrees_with_a_runge_kutta_method(d):
    process = ENTRIES["rotating"](d=d, omega=5.0, b1=8.0)
    A, G = (lambda t: process.A(t).param), (lambda t: process.G(t).param)
    a, b = A(f64(0.2, 0.9))
    assert float((a @ b - b @ a).abs().max()) > 0.1
    for t in (0.3, 1.0):
        Phi, Sigma = lyapunov(A, G, d, t)
        zero = f64(0)
        np.testing.assert_allclose(process.Phi(f64(t), zero).param[0], Phi, atol=1e-11)
        np.testing.assert_allclose(process.Sigma(f64(t)).param[0], Sigma, atol=1e-11)


def mp_linear(t, s, b0=0.1, b1=20.0):
    b0, b1 = mpmath.mpf(b0), mpmath.mpf(b1)
    return b0 * (t - s) + (b1 - b0) * (t**2 - s**2) / 2


def mp_cosine(t, s):
    s0 = mpmath.mpf(0.008)

    def angle(u):
        return (u + s0) / (1 + s0) * mpmath.pi / 2

    return -2 * mpmath.log(mpmath.cos(angle(t)) / mpmath.cos(angle(s)))


def mp_sub_vp(t, s):
    before = (1 - mpmath.exp(-mp_linear(s, 0))) ** 2
    return (1 - mpmath.exp(-mp_linear(t, 0))) ** 2 - mpmath.exp(-mp_linear(t, s)) * before


def mp_ve(t, s):
    r = mpmath.mpf(50.0) / mpmath.mpf(0.01)
    return mpmath.mpf(0.01) ** 2 * (r ** (2 * t) - r ** (2 * s))


def mp_path(alpha, sigma):
    return lambda t, s: sigma(t) ** 2 - (alpha(t) / alpha(s) * sigma(s)) ** 2


EXACT_Q = {
    "vp": lambda t, s: 1 - mpmath.exp(-mp_linear(t, s)),
    "vp_cosine": lambda t, s: 1 - mpmath.exp(-mp_cosine(t, s)),
    "sub_vp": mp_sub_vp,
    "ve": mp_ve,
    "sigma_t": lambda t, s: (
        (mpmath.mpf(25) ** (2 * t) - mpmath.mpf(25) ** (2 * s)) / (2 * mpmath.log(25))
    ),
    "edm": lambda t, s: t**2 - s**2,
    "rectified_flow": mp_path(lambda t: 1 - t, lambda t: t),
    "trigonometric": mp_path(
        lambda t: mpmath.cos(mpmath.pi * t / 2), lambda t: mpmath.sin(mpmath.pi * t / 2)
    ),
}


@pytest.mark.parametrize("name", EXACT_Q)
@settings(max_examples=60, deadline=None)
@given(end=st.floats(1e-6, 1.0), gap=st.floats(1e-12, 1.0))
def test_conditional_variances_keep_their_digits(name, end, gap):
    process = ENTRIES[name]()
    t = end * process.T
    s = t * (1 - gap)
    got = float(process.Q(f64(t), f64(s)).param)
    with mpmath.workdps(60):
        wanted = EXACT_Q[name](mpmath.mpf(t), mpmath.mpf(s))
        assert abs(got / wanted - 1) < 1e-12


def mp_van_loan(A, GG, h) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Phi and Sigma by the block exponential, at whatever precision mpmath works in."""
    d = A.rows
    C = mpmath.zeros(2 * d, 2 * d)
    C[:d, :d], C[:d, d:], C[d:, d:] = -A, GG, A.T
    F = mpmath.expm(C * h)
    Phi = F[d:, d:].T
    return Phi, Phi * F[:d, d:]


@settings(max_examples=40, deadline=None)
@given(end=st.floats(1e-5, 1.0), gap=st.floats(1e-9, 1.0), M=st.floats(0.1, 4.0))
def test_langevin_blocks_keep_the_digits_of_every_entry(end, gap, M):
    process = ENTRIES["cld"](M=M)
    t, s = end, end * (1 - gap)
    got = process.Q(f64(t), f64(s)).param[0]
    with mpmath.workdps(80):
        mass = mpmath.mpf(M)
        Gamma = 2 * mpmath.sqrt(mass)
        A = mpmath.matrix([[0, 4 / mass], [-4, -4 * Gamma / mass]])
        GG = mpmath.matrix([[0, 0], [0, 8 * Gamma]])
        Phi, wanted = mp_van_loan(A, GG, mpmath.mpf(t) - mpmath.mpf(s))
        carried = process.Phi(f64(t), f64(s)).param[0]
        for i in range(2):
            for j in range(2):
                assert abs(float(got[i, j]) / wanted[i, j] - 1) < 1e-12
                assert abs(float(carried[i, j]) - Phi[i, j]) < 1e-13 * max(1, 1 / M)


@pytest.mark.parametrize("h", [1e-6, 1e-3, 0.1, 1.0, 4.0])
def test_a_stiff_matrix_process_keeps_the_digits_of_every_entry(h):
    A, G = [[-300.0, 200.0], [0.0, -0.5]], [[1.0, 0.0], [0.5, 2.0]]
    process = ornstein_uhlenbeck(torch.tensor(A), torch.tensor(G), T=5.0, t_eps=1e-6)
    with mpmath.workdps(2000):
        Phi, Sigma = mp_van_loan(mpmath.matrix(A), mpmath.matrix(G) * mpmath.matrix(G).T, h)
        Phi, Sigma = (np.array(M.tolist(), dtype=float).reshape(2, 2) for M in (Phi, Sigma))
    t, s = f64(h), f64(0)
    np.testing.assert_allclose(process.Sigma(t).param[0], Sigma, rtol=1e-12)
    np.testing.assert_allclose(process.Phi(t, s).param[0], Phi, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("h", [1e-5, 1e-2, 1.0])
def test_a_chain_of_integrators_keeps_its_powers(h):
    """dx1 = x2 dt, dx2 = x3 dt, dx3 = dW: Sigma_ij = h^p / (p (3-i)! (3-j)!), p = 7 - i - j."""
    A = torch.diag(f64(1, 1), 1)
    process = ornstein_uhlenbeck(A, torch.diag(f64(0, 0, 1)), T=2.0, t_eps=0.1)
    wanted = [
        [
            h ** (5 - i - j) / ((5 - i - j) * math.factorial(2 - i) * math.factorial(2 - j))
            for j in range(3)
        ]
        for i in range(3)
    ]
    got = process.Q(f64(h), f64(0)).param[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6), st.floats(1e-4, 2.0))
def test_constant_matrices_agree_with_matrix_exponentials(d, seed, h):
    g = torch.Generator().manual_seed(seed)
    A, G = torch.randn(2, d, d, generator=g, dtype=F64)
    G = G + 3 * torch.eye(d)
    process = ornstein_uhlenbeck(A, G, T=2.0, t_eps=1e-4)
    block = torch.zeros(2 * d, 2 * d, dtype=F64)
    block[:d, :d], block[:d, d:], block[d:, d:] = -A, G @ G.T, A.T
    F = scipy.linalg.expm(block.numpy() * h)
    Phi = F[d:, d:].T
    t, s = f64(h), f64(0)
    np.testing.assert_allclose(process.Phi(t, s).param[0], Phi, rtol=1e-9, atol=1e-11)
    inverse = scipy.linalg.expm(-A.numpy() * h)
    np.testing.assert_allclose(process.Phi(s, t).param[0], inverse, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(process.Sigma(t).param[0], Phi @ F[:d, d:], rtol=1e-6, atol=1e-9)


def test_the_long_run_covariance_solves_the_lyapunov_equation():
    process = ENTRIES["ou"](d=4, T=60.0)
    A, G = process.A(f64(0)).param[0].numpy(), process.G(f64(0)).param[0].numpy()
    wanted = scipy.linalg.solve_continuous_lyapunov(A, -G @ G.T)
    np.testing.assert_allclose(process.prior().param[0], wanted, rtol=1e-11, atol=1e-12)


def test_langevin_settles_in_the_gibbs_law():
    process = ENTRIES["cld"](M=0.5, b0=20.0, b1=20.0)
    np.testing.assert_allclose(process.prior().param[0], [[1, 0], [0, 0.5]], atol=1e-9)


def test_a_gaussian_path_derives_its_rates():
    """The path of the linear-beta VP process gives back that process."""
    vp = ENTRIES["vp"]()

    def B(t: Tensor) -> Tensor:
        return 0.1 * t + 19.9 * t**2 / 2

    path = gaussian_path(
        lambda t: torch.exp(-B(t) / 2), lambda t: (-torch.expm1(-B(t))).sqrt(), T=1.0, t_eps=1e-3
    )
    t, s = random_times(vp, 50)
    for name in ("A", "G", "Sigma"):
        torch.testing.assert_close(
            getattr(path, name)(t).param, getattr(vp, name)(t).param, rtol=1e-11, atol=1e-13
        )
    torch.testing.assert_close(path.Phi(t, s).param, vp.Phi(t, s).param, rtol=1e-13, atol=0)
    torch.testing.assert_close(path.Q(t, s).param, vp.Q(t, s).param, rtol=1e-8, atol=0)


def test_a_path_that_starts_noisy_gives_the_process_from_clean_data():
    path = gaussian_path(torch.ones_like, lambda t: 0.1 + t, T=1.0, t_eps=1e-3)
    t = f64(0.0, 0.3, 1.0)
    torch.testing.assert_close(path.Sigma(t).param, (0.1 + t) ** 2 - 0.01)
    torch.testing.assert_close(path.A(t).param, torch.zeros(3, dtype=F64))


def test_any_rate_makes_a_variance_preserving_process():
    process = variance_preserving(
        lambda t: torch.exp(t), lambda t, s: torch.exp(s) * torch.expm1(t - s), T=2.0, t_eps=1e-2
    )
    t, s = random_times(process, 40)
    assert relative(integrated(process).Q(t, s).param, process.Q(t, s).dense((1,))) < 1e-9


def test_rates_are_derived_inside_inference_mode():
    with torch.inference_mode():
        A = ENTRIES["trigonometric"]().A(f64(0.25, 0.5)).param
    torch.testing.assert_close(A, -math.pi / 2 * torch.tan(math.pi / 2 * f64(0.25, 0.5)))


def test_numerical_tables_follow_a_kink_and_refuse_a_jump():
    eye = torch.eye(2, dtype=F64)

    def kink(t: Tensor) -> Tensor:
        return (1 + (t - 1 / 3).abs())[:, None, None] * eye

    process = numerical_process(lambda t: -kink(t), lambda t: 0 * kink(t) + eye, T=1.0, t_eps=0.1)
    area = (1 / 9 + 4 / 9) / 2
    got = process.Phi(f64(1), f64(0)).param[0]
    np.testing.assert_allclose(got, math.exp(-1 - area) * eye, atol=1e-11)

    def jump(t: Tensor) -> Tensor:
        return torch.where(t > 1 / 3, 2.0, 1.0)[:, None, None] * eye

    with pytest.raises(InvalidProcess, match=r"not smooth near t=0\.3333"):
        numerical_process(lambda t: -eye.expand(len(t), 2, 2), jump, T=1.0, t_eps=0.1)


@pytest.mark.parametrize(
    ("A", "G", "message"),
    [
        (lambda t: torch.eye(2, dtype=F64) / (1 - t)[:, None, None], None, "NaN or infinite"),
        (lambda t: torch.eye(2, dtype=F64), None, "one matrix a time"),
        (None, lambda t: torch.full((len(t), 2, 2), torch.nan, dtype=F64), "NaN or infinite"),
    ],
    ids=["singular A", "one matrix for all", "NaN G"],
)
def test_numerical_tables_refuse_what_they_cannot_resolve(A, G, message):
    def eye(t: Tensor) -> Tensor:
        return torch.eye(2, dtype=F64).expand(len(t), 2, 2)

    with pytest.raises(InvalidProcess, match=message):
        numerical_process(A or eye, G or eye, T=1.0, t_eps=0.1)


def test_numerical_tables_refuse_times_outside_them():
    process = ENTRIES["rotating"]()
    for t in (1.1, -0.1, float("nan")):
        with pytest.raises(InvalidProcess, match=r"cover \[0, T=1\]"):
            process.Sigma(f64(t))


@pytest.mark.parametrize(
    ("alpha", "sigma", "message"),
    [
        (lambda t: 1 - t, lambda t: t, "end at a smaller T"),
        (lambda t: 2 - t, lambda t: t, "alpha\\(0\\) is 2"),
        (torch.ones_like, lambda t: torch.sin(3 * t), "does not increase before t=0.5"),
        (torch.ones_like, lambda t: t / 0, "not negative"),
    ],
    ids=["alpha reaches 0", "alpha(0)", "noise falls", "NaN"],
)
def test_a_gaussian_path_that_is_none_is_refused(alpha, sigma, message):
    with pytest.raises(InvalidProcess, match=message):
        gaussian_path(alpha, sigma, T=1.0, t_eps=1e-3)


def test_noise_that_never_reaches_a_direction_is_refused():
    with pytest.raises(InvalidProcess, match="never reaches some direction"):
        ornstein_uhlenbeck(-torch.eye(2), torch.diag(f64(1, 0)), T=1.0, t_eps=0.1)

"""The exact score is the gradient of the exact log-density, for every process, time and shape."""

from collections.abc import Callable
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import labcore_linear
from labcore import (
    Diag,
    InvalidProcess,
    LabError,
    Mat,
    Mixture,
    Process,
    ScoreError,
    Target,
    from_mixture,
    state_law,
)
from labcore_scores import exact

F64 = torch.float64
SCALAR = ("vp", "vp_cosine", "sub_vp", "ve", "sigma_t", "edm", "rectified_flow", "trigonometric")
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}


def process_on(name: str, d: int) -> Process:
    sized = {"diag_vp": {"d": d}, "ou": {"d": d}, "rotating": {"d": d}}
    return ENTRIES[name](**sized.get(name, {}))


def a_mixture(d: int, K: int = 4, seed: int = 0, floor: float = 0.05) -> Mixture:
    draw = torch.Generator().manual_seed(seed)
    M = torch.randn(K, d, d, generator=draw, dtype=F64) / d**0.5
    w = 0.2 + torch.rand(K, generator=draw, dtype=F64)
    means = 2 * torch.randn(K, d, generator=draw, dtype=F64)
    return Mixture(w / w.sum(), means, M @ M.mT + floor * torch.eye(d, dtype=F64))


def batch(
    process: Process, target: Target, n: int = 24, seed: int = 1, times: int | None = None
) -> tuple[Tensor, Tensor]:
    """x_t (n, *state) and t (n,), which takes ``times`` values."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.rand(times or n, generator=draw, dtype=F64)
    t = (process.t_eps * (process.T / process.t_eps) ** u)[torch.arange(n) % (times or n)]
    x0 = target.sample(n, draw).double()
    z = torch.randn(n, *process.event(target.event), generator=draw, dtype=F64)
    return process.perturb(x0, t, z), t


def by_autograd(process: Process, target: Target, x: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(x) by differentiating the log-density of the law at each row's time."""
    assert target.mixture is not None
    rows = []
    for row, time in zip(x, t.expand(len(x)), strict=True):
        y = row.reshape(1, -1).clone().requires_grad_()
        law = state_law(process, target.mixture, time, target.event)
        rows.append(torch.autograd.grad(law.log_prob(y).sum(), y)[0].reshape(row.shape))
    return torch.stack(rows)


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest error of a row over the norm of the row."""
    error = (got - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    return float(error.max())


@pytest.mark.parametrize("d", [1, 2, 4, 7])
@pytest.mark.parametrize("name", [*SCALAR, "diag_vp", "ou", "rotating", "cld"])
def test_score_is_the_gradient_of_the_log_density(name: str, d: int) -> None:
    if name == "rotating" and d % 2:
        d += 1
    process, target = process_on(name, d), from_mixture(a_mixture(d))
    score = exact(process, target)
    for times in (None, 2):
        x, t = batch(process, target, times=times)
        assert relative(score(x, t), by_autograd(process, target, x, t)) < 1e-9
    x, t = batch(process, target, times=1)
    assert relative(score(x, t[0]), by_autograd(process, target, x, t)) < 1e-9


@pytest.mark.parametrize("name", ["vp", "cld"])
def test_events_of_any_shape_are_flattened(name: str) -> None:
    law, process = a_mixture(6), process_on(name, 6)
    flat, shaped = from_mixture(law), from_mixture(law, (3, 1, 2))
    x, t = batch(process, flat)
    wanted = exact(process, flat)(x, t)
    state = process.event((3, 1, 2))
    got = exact(process, shaped)(x.reshape(-1, *state), t)
    assert got.shape == (len(x), *state)
    assert torch.equal(got.reshape(wanted.shape), wanted)


def test_a_diagonal_process_on_images_scales_each_pixel() -> None:
    """Diag of shape (b, 2, 3), with factors that broadcast over one of the axes."""
    rate = torch.tensor([[0.5], [2.0]], dtype=F64)

    def op(f: Callable[[Tensor], Tensor], u: Tensor) -> Diag:
        return Diag(f(u.reshape(-1, 1, 1) * rate))

    process = Process(
        A=lambda t: op(lambda u: -u / 2, torch.ones_like(t)),
        G=lambda t: op(lambda u: u.sqrt(), torch.ones_like(t)),
        Phi=lambda t, s: op(lambda u: (-u / 2).exp(), t - s),
        Sigma=lambda t: op(lambda u: -torch.expm1(-u), t),
        T=3.0,
        t_eps=1e-3,
        structure="diag",
        event_shape=(2, 3),
    )
    full = Diag(torch.ones(1, 2, 3, dtype=F64))
    wide = Process(
        **{
            **vars(process),
            "Phi": lambda t, s: process.Phi(t, s) @ full,
            "Sigma": lambda t: process.Sigma(t) @ full,
        }
    )
    target = from_mixture(a_mixture(6), (2, 3))
    x, t = batch(wide, target)
    assert relative(exact(process, target)(x, t), by_autograd(wide, target, x, t)) < 1e-10


def test_channels_with_a_block_for_each_coordinate() -> None:
    """Every coordinate its own 2 x 2 block: the law is that of as many separate processes."""
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    cld = process_on("cld", 3)

    def each(f: Callable[[Tensor], Mat], t: Tensor) -> Mat:
        return Mat(torch.stack([f(t.reshape(-1) * r).param for r in rates], 1))

    process = Process(
        A=cld.A,
        G=cld.G,
        Phi=lambda t, s: each(lambda u: cld.Phi(u, torch.zeros_like(u)), t - s),
        Sigma=lambda t: each(cld.Sigma, t),
        T=0.5,
        t_eps=1e-2,
        structure="channel",
        channels=2,
    )
    variance, mean = (
        torch.tensor([0.3, 1.0, 2.0], dtype=F64),
        torch.tensor([1.0, -1.0, 0.5], dtype=F64),
    )
    target = from_mixture(Mixture(torch.ones(1, dtype=F64), mean[None], variance.diag()[None]))
    x, t = batch(process, target)
    got = exact(process, target)(x, t)
    for j, rate in enumerate(rates):
        one = Mixture(
            torch.ones(1, dtype=F64), mean[None, j : j + 1], variance[j].reshape(1, 1, 1)
        )
        wanted = exact(cld, from_mixture(one))(x[:, :, j : j + 1], rate * t)
        assert relative(got[:, :, j : j + 1], wanted) < 1e-8


def test_density_of_one_dimension_by_quadrature() -> None:
    """p_t(x) = int p_0(x0) N(x; a x0, s) dx0, without any formula for Gaussian marginals."""
    process, target = process_on("vp", 1), from_mixture(a_mixture(1, K=3))
    t = torch.tensor(0.2, dtype=F64)
    a = float(process.Phi(t, torch.zeros_like(t)).param)
    s = float(process.Sigma(t).param)
    x0 = np.linspace(-12, 12, 20001)
    assert target.log_prob is not None
    p0 = target.log_prob(torch.from_numpy(x0)[:, None]).exp().numpy()
    for x in (-2.0, 0.0, 0.7, 3.0):
        kernel = p0 * np.exp(-((x - a * x0) ** 2) / (2 * s))
        wanted = (kernel * (a * x0 - x) / s).sum() / kernel.sum()
        got = float(exact(process, target)(torch.tensor([[x]], dtype=F64), t))
        assert got == pytest.approx(wanted, rel=1e-9)


def test_at_time_zero_it_is_the_score_of_the_data() -> None:
    target = from_mixture(a_mixture(5))
    assert target.mixture is not None
    x = target.sample(10, torch.Generator().manual_seed(0)).double().requires_grad_()
    (wanted,) = torch.autograd.grad(target.mixture.log_prob(x).sum(), x)
    zero = torch.tensor(0.0, dtype=F64)
    for name in ("vp", "ou"):
        assert relative(exact(process_on(name, 5), target)(x.detach(), zero), wanted) < 1e-10


@pytest.mark.parametrize("name", ["vp", "diag_vp", "ou", "cld"])
@pytest.mark.parametrize("d", [2, 12])
def test_float32_keeps_its_digits_from_T_to_t_eps(name: str, d: int) -> None:
    process, target = process_on(name, d), from_mixture(a_mixture(d))
    x, t = batch(process, target, n=64)
    x = x.float().double()
    score, root = exact(process, target), process.Sigma(t).chol
    got = score(x.float(), t)
    assert got.dtype == torch.float32
    noise = root.T @ (got.double() - score(x, t))  # in units of the noise
    assert float(noise.abs().max()) < 2e-5
    for i in range(0, 64, 16):
        alone = score(x[i : i + 1].float(), t[i]).double()
        assert float((root[i].T @ (alone - score(x[i : i + 1], t[i]))).abs().max()) < 2e-5


def test_thin_components_far_apart_keep_their_digits() -> None:
    """Squares of 1e8 variances are not expanded: only what rounding x costs is lost, 1e-3 here."""
    near = torch.tensor([[100.0, 100.0], [100.01, 100.0]], dtype=F64)
    means = torch.cat([near, -near])
    law = Mixture(
        torch.full((4,), 0.25, dtype=F64), means, (1e-4 * torch.eye(2, dtype=F64)).repeat(4, 1, 1)
    )
    process, target = process_on("ve", 2), from_mixture(law)
    t = torch.tensor(1e-3, dtype=F64)
    x = torch.tensor([[100.005, 100.003], [100.0, 99.99], [-100.004, -100.01]], dtype=F64)
    wanted = by_autograd(process, target, x.float().double(), t)
    assert relative(exact(process, target)(x.float(), t).double(), wanted) < 5e-3


@pytest.mark.parametrize("name", ["vp", "cld", "diag_vp", "ou"])
@pytest.mark.parametrize("d", [2, 9])
def test_the_score_can_be_differentiated(name: str, d: int) -> None:
    """Its Jacobian is symmetric, and is what finite differences give, also after inference."""
    process, target = process_on(name, d), from_mixture(a_mixture(d))
    score = exact(process, target)
    x, t = batch(process, target, n=2)
    with torch.inference_mode():
        score(x.float(), t)
    single = x.float().requires_grad_()
    torch.autograd.grad(score(single, t).sum(), single)
    for time in (t[0], t):
        jacobian = torch.autograd.functional.jacobian(lambda y, s=time: score(y, s), x)
        first = jacobian[0].select(x.ndim - 1, 0).reshape(prod(x.shape[1:]), -1)
        assert torch.allclose(first, first.T, rtol=1e-8, atol=1e-8 * float(first.abs().max()))
        step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
        slope = (score(x + step, time) - score(x - step, time)) / 2
        along = (first @ step[0].flatten()).reshape(x.shape[1:])
        assert torch.allclose(slope[0], along, rtol=1e-4, atol=1e-4 * float(along.abs().max()))


@pytest.mark.parametrize("name", ["vp", "cld", "ou"])
def test_rows_do_not_act_on_each_other(name: str) -> None:
    process, target = process_on(name, 3), from_mixture(a_mixture(3))
    score = exact(process, target)
    x, t = batch(process, target, n=40)
    for time in (t, t[0], t[torch.arange(40) % 3]):
        whole = score(x, time)
        split = [
            score(x[i : i + 7], time if time.ndim == 0 else time[i : i + 7])
            for i in range(0, 40, 7)
        ]
        assert relative(torch.cat(split), whole) < 1e-12
    assert score(x[:0], t[:0]).shape == score(x[:0], t[0]).shape == x[:0].shape


def test_large_batches_go_in_blocks_of_rows() -> None:
    process, target = process_on("vp", 8), from_mixture(a_mixture(8, K=40))
    score = exact(process, target)
    x = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    t = torch.tensor(0.3, dtype=F64)
    parts = torch.cat([score(part, t) for part in x.split(17)])
    assert relative(score(x, t), parts) < 1e-11
    assert relative(score(x, t.expand(5000)), parts) < 1e-11


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 1.0), st.integers(0, 3))
def test_a_component_of_weight_zero_does_nothing(share: float, seed: int) -> None:
    law = a_mixture(3, K=3, seed=seed)
    weights = torch.tensor([share, 1 - share, 0.0], dtype=F64)
    two = Mixture(weights[:2], law.means[:2], law.covs[:2])
    process = process_on("vp", 3)
    with_zero = from_mixture(Mixture(weights, law.means, law.covs))
    x, t = batch(process, with_zero, n=8)
    assert (
        relative(exact(process, with_zero)(x, t), exact(process, from_mixture(two))(x, t)) < 1e-12
    )


def test_equal_components_are_one() -> None:
    law = a_mixture(4, K=1)
    split = Mixture(
        torch.tensor([0.25, 0.75], dtype=F64), law.means.repeat(2, 1), law.covs.repeat(2, 1, 1)
    )
    process = process_on("cld", 4)
    x, t = batch(process, from_mixture(law))
    one, two = exact(process, from_mixture(law))(x, t), exact(process, from_mixture(split))(x, t)
    assert relative(two, one) < 1e-12


def test_four_thousand_dimensions() -> None:
    """Of a diagonal covariance, whose axes need no decomposition."""
    d = 4096
    law = Mixture(
        torch.ones(1, dtype=F64), torch.ones(1, d, dtype=F64), 0.5 * torch.eye(d, dtype=F64)[None]
    )
    process = process_on("vp", d)
    t = torch.tensor(0.3, dtype=F64)
    x = torch.randn(2, d, generator=torch.Generator().manual_seed(0), dtype=F64)
    a, s = process.Phi(t, torch.zeros_like(t)).param, process.Sigma(t).param
    got = exact(process, from_mixture(law))(x, t)
    assert relative(got, -(x - a) / (0.5 * a**2 + s)) < 1e-10


def test_without_a_mixture_it_says_what_to_use() -> None:
    data = torch.zeros(3, 2)
    target = Target((2,), lambda n, g: data[:n], data=data)
    with pytest.raises(LabError, match=r"'exact'.*'empirical'"):
        exact(process_on("vp", 2), target)


def test_a_process_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidProcess, match=r"\(3,\).*\(2,\)"):
        exact(process_on("ou", 3), from_mixture(a_mixture(2)))


def test_a_covariance_that_is_not_positive_is_named_with_its_time() -> None:
    ou = process_on("ou", 2)
    broken = Process(**{**vars(ou), "Sigma": lambda t: (-5.0) * ou.Sigma(t)})
    score = exact(broken, from_mixture(a_mixture(2)))
    with pytest.raises(ScoreError, match=r"t=1.*positive definite"):
        score(torch.zeros(1, 2, dtype=F64), torch.tensor(1.0, dtype=F64))

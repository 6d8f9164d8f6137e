"""Perturbed scores have the error they state, kind by kind, and none when none is asked for."""

import pytest
import torch
from torch import Tensor

import labcore_linear
from labcore import InvalidOption, LabError, Mixture, Process, Target, from_mixture
from labcore_scores import empirical, exact, perturbed

F64 = torch.float64
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}
NAMES = ["vp", "edm", "diag_vp", "cld", "ou"]


def process_on(name: str, d: int) -> Process:
    sized = {"diag_vp": {"d": d}, "ou": {"d": d}}
    return ENTRIES[name](**sized.get(name, {}))


def a_target(d: int) -> Target:
    draw = torch.Generator().manual_seed(0)
    means = 1.5 * torch.randn(3, d, generator=draw, dtype=F64)
    M = torch.randn(3, d, d, generator=draw, dtype=F64) / d**0.5
    covs = M @ M.mT + 0.1 * torch.eye(d, dtype=F64)
    return from_mixture(Mixture(torch.full((3,), 1 / 3, dtype=F64), means, covs))


def batch(process: Process, target: Target, t: Tensor, n: int = 4000) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    x0 = target.sample(n, draw).double()
    z = torch.randn(n, *process.event(target.event), generator=draw, dtype=F64)
    return process.perturb(x0, t, z)


def between(process: Process, low: float) -> Tensor:
    """The time a share ``low`` of the way from t_eps to T, in log time."""
    return torch.tensor(process.t_eps * (process.T / process.t_eps) ** low, dtype=F64)


def error(process: Process, target: Target, t: Tensor, **options: float) -> Tensor:
    """L^T (s - exact s), in units of the noise."""
    x = batch(process, target, t)
    off = perturbed(process, target, **options)(x, t) - exact(process, target)(x, t)
    return process.Sigma(t).chol.T @ off


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_bias_and_noise_have_the_stated_root_mean_square(name: str, share: float) -> None:
    process, target = process_on(name, 3), a_target(3)
    t = between(process, share)
    bias = error(process, target, t, bias=0.2)
    assert torch.allclose(bias.abs(), torch.full_like(bias, 0.2))
    assert torch.allclose(bias, bias[:1].expand_as(bias))
    noise = error(process, target, t, noise=0.2)
    assert float(noise.square().mean().sqrt()) == pytest.approx(0.2, rel=0.1)
    assert float(noise.mean(0).abs().max()) < 0.1  # it is no bias


def test_for_a_scalar_process_that_is_relative_to_one_over_sigma() -> None:
    process, target = process_on("edm", 2), a_target(2)
    t = torch.tensor(0.5, dtype=F64)
    x = batch(process, target, t)
    off = perturbed(process, target, bias=0.1)(x, t) - exact(process, target)(x, t)
    assert torch.allclose(off.abs(), torch.full_like(off, 0.1 / 0.5))


def test_noise_is_a_smooth_function_of_place_and_time_fixed_by_its_seed() -> None:
    process, target = process_on("vp", 2), a_target(2)
    t = torch.tensor(0.3, dtype=F64)
    x = batch(process, target, t)
    first, again, other = (
        perturbed(process, target, noise=0.3, seed=seed)(x, t) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert float((first - other).square().mean()) > 0.05
    one = error(process, target, t, noise=1.0)
    near = perturbed(process, target, noise=1.0)(x + 1e-4, t)
    moved = process.Sigma(t).chol.T @ (near - exact(process, target)(x + 1e-4, t)) - one
    assert float(moved.abs().max()) < 2e-3
    later = error(process, target, t + 1e-5, noise=1.0)
    assert float((later - one).abs().max()) < 2e-3
    a, b = one[:2000], one[2000:]
    assert float((a * b).mean().abs()) < 0.1  # different places have unrelated errors


@pytest.mark.parametrize("name", NAMES)
def test_noise_moves_with_the_data(name: str) -> None:
    """Where the origin is does not matter, so that it stays smooth in t for data far from it."""
    process, target = process_on(name, 3), a_target(3)
    assert target.mixture is not None
    law, shift = target.mixture, torch.tensor([1e3, -2e3, 5e2], dtype=F64)
    moved = from_mixture(Mixture(law.weights, law.means + shift, law.covs))
    t = between(process, 0.5)
    x = batch(process, target, t, n=50)
    there = x + process.mean(shift[None], t)
    wanted = perturbed(process, target, noise=1.0)(x, t) - exact(process, target)(x, t)
    got = perturbed(process, moved, noise=1.0)(there, t) - exact(process, moved)(there, t)
    root = process.Sigma(t).chol.T
    assert torch.allclose(root @ got, root @ wanted, atol=1e-6)


def test_rows_with_their_own_times_agree_with_one_time() -> None:
    for name in NAMES:
        process, target = process_on(name, 3), a_target(3)
        t = torch.stack([between(process, 0.4), between(process, 0.7)])
        x = batch(process, target, t[0], n=2)
        options = {"bias": 0.1, "noise": 0.1, "scale": 0.1, "smoothing": 0.2, "time_shift": 0.1}
        score = perturbed(process, target, **options)
        for i in range(2):
            assert torch.allclose(score(x, t)[i], score(x, t[i])[i], rtol=1e-8)


def test_scale_multiplies() -> None:
    process, target = process_on("cld", 2), a_target(2)
    t = torch.tensor(0.4, dtype=F64)
    x = batch(process, target, t)
    got = perturbed(process, target, scale=-0.1)(x, t)
    assert torch.allclose(got, 0.9 * exact(process, target)(x, t))


def test_time_shift_looks_up_a_later_time_but_none_after_T() -> None:
    process, target = process_on("vp", 2), a_target(2)
    score, shifted = exact(process, target), perturbed(process, target, time_shift=0.25)
    t = torch.tensor([0.4, 0.9], dtype=F64)
    x = batch(process, target, t[0], n=2)
    assert torch.allclose(shifted(x, t), score(x, torch.tensor([0.5, 1.0], dtype=F64)))
    assert torch.allclose(shifted(x, t[0]), score(x, torch.tensor(0.5, dtype=F64)))


def test_smoothing_is_the_score_after_more_noise() -> None:
    """Blurring p_t by h^2 Sigma is, for the EDM process, the same law at t sqrt(1 + h^2)."""
    process, target = process_on("edm", 2), a_target(2)
    t = torch.tensor(0.4, dtype=F64)
    x = batch(process, target, t)
    blurred = perturbed(process, target, smoothing=0.75)(x, t)
    assert torch.allclose(blurred, exact(process, target)(x, 1.25 * t), rtol=1e-9)


def test_errors_add_up() -> None:
    process, target = process_on("vp", 2), a_target(2)
    t = torch.tensor(0.4, dtype=F64)
    both = error(process, target, t, bias=0.1, noise=0.2)
    parts = error(process, target, t, bias=0.1) + error(process, target, t, noise=0.2)
    assert torch.allclose(both, parts)


@pytest.mark.parametrize("name", NAMES)
def test_without_errors_it_is_the_exact_score(name: str) -> None:
    process, target = process_on(name, 2), a_target(2)
    t = between(process, 0.5)
    x = batch(process, target, t, n=50)
    assert torch.equal(perturbed(process, target)(x, t), exact(process, target)(x, t))
    data = Target((2,), lambda n, g: x[:n, :2], data=target.sample(30, torch.Generator()))
    assert torch.equal(perturbed(process, data)(x, t), empirical(process, data)(x, t))


def test_a_data_set_is_perturbed_like_a_mixture() -> None:
    process = process_on("vp", 2)
    rows = a_target(2).sample(500, torch.Generator().manual_seed(3))
    target = Target((2,), lambda n, g: rows[:n], data=rows)
    t = torch.tensor(0.3, dtype=F64)
    x = batch(process, target, t, n=400)
    off = perturbed(process, target, noise=0.2)(x, t) - empirical(process, target)(x, t)
    assert float((process.Sigma(t).chol.T @ off).square().mean().sqrt()) == pytest.approx(
        0.2, rel=0.1
    )


def test_float32_in_float32_out() -> None:
    process, target = process_on("cld", 3), a_target(3)
    t = torch.tensor(0.3, dtype=F64)
    x = batch(process, target, t, n=20)
    score = perturbed(process, target, bias=0.1, noise=0.1, scale=0.1)
    got = score(x.float(), t)
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), score(x, t), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"smoothing": -1.0}, "smoothing"),
        ({"time_shift": -1.0}, "time_shift"),
        ({"noise": "much"}, "noise"),
        ({"biass": 0.1}, "did you mean 'bias'"),
        ({"bias": float("nan")}, "bias"),
    ],
)
def test_options_are_refused_by_name(options: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidOption, match=word):
        perturbed.bind(options)


def test_a_target_without_an_exact_score_is_refused() -> None:
    sampler_only = Target((2,), lambda n, g: torch.zeros(n, 2))
    with pytest.raises(LabError, match="neither a mixture nor a data set"):
        perturbed(process_on("vp", 2), sampler_only, bias=0.1)

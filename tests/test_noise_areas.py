"""Space-time areas: their law, their definition as an integral, the identity on nested grids."""

from itertools import pairwise
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_noise_path import uneven
from torch import Tensor

from labcore.bridge import join, split
from labcore.noise import brownian


def drawn(ts: Tensor, n: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Increments W and integrals U = int (B - B_start) of every step, (N, n)."""
    noise = brownian(ts, (), (7,), n, dtype=dtype)
    pairs = [noise.levy(t, s) for t, s in pairwise(ts)]
    h = (ts[:-1] - ts[1:])[:, None]
    z, k = (torch.stack(part) for part in zip(*pairs, strict=True))
    return h.sqrt() * z, h**1.5 * (z / 2 + k / sqrt(12))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 90), seed=st.integers(0, 100))
def test_integrals_add_up_over_nested_grids(n: int, seed: int) -> None:
    """Over [a, b] split at m: W = W1 + W2 and int (B - B_a) = U1 + U2 + (b - m) W1."""
    ts = uneven(2 * n, seed)
    (W, U), (w, u) = drawn(ts[::2]), drawn(ts)
    h2 = (ts[1:-1:2] - ts[2::2])[:, None]
    h = (ts[:-2:2] - ts[2::2])[:, None]
    assert ((W - w[::2] - w[1::2]) / h.sqrt()).abs().max() < 5e-14
    assert ((U - u[::2] - u[1::2] - h2 * w[::2]) / h**1.5).abs().max() < 5e-14


def test_the_integral_is_that_of_the_path() -> None:
    """A Riemann sum over 256 finer steps; its own error has sd h^{3/2}/(sqrt(12) 256)."""
    ts = uneven(3 * 256)
    (_, U), (w, _) = drawn(ts[::256], n=2000), drawn(ts, n=2000)
    h = (ts[:-1] - ts[1:])[:, None]
    path = w.unflatten(0, (3, 256)).cumsum(1) - w.unflatten(0, (3, 256)) / 2
    riemann = (path * h.unflatten(0, (3, 256))).sum(1)
    span = (ts[:-1:256] - ts[256::256])[:, None]
    assert ((riemann - U) / span**1.5).std() < 0.01
    assert (U / span**1.5).std() > 0.5  # sqrt(1/3): an error of sign or weight shows


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_increments_and_areas_are_independent_standard_normals(n: int) -> None:
    """2e5 samples: sd 0.0022 for each covariance."""
    ts, rows = uneven(n), 200_000
    noise = brownian(ts, (), (11,), rows)
    z = torch.cat([torch.stack(noise.levy(t, s)) for t, s in pairwise(ts)]).double()
    assert (z @ z.T / rows - torch.eye(2 * n)).abs().max() < 0.015


@given(ratio=st.floats(1e-6, 1 - 1e-6), parts=st.sampled_from([1, 2]))
def test_a_split_is_an_orthogonal_map_that_join_undoes(ratio: float, parts: int) -> None:
    basis = torch.eye(2 * parts, dtype=torch.float64)
    node, fresh = tuple(basis[:parts].clone()), tuple(basis[parts:].clone())
    split(node, fresh, ratio)
    matrix = torch.stack([*node, *fresh])
    assert torch.allclose(matrix @ matrix.T, basis, atol=1e-14)
    h, whole = join((ratio, node), (1 - ratio, fresh))
    assert h == pytest.approx(1)
    assert torch.allclose(torch.stack(whole), basis[:parts], atol=1e-14)


def test_a_path_with_areas_agrees_with_one_without_over_the_whole_grid() -> None:
    ts = uneven(1)
    with_area = brownian(ts, (2,), (3,), 4).levy(ts[0], ts[1])[0]
    assert torch.equal(with_area, brownian(ts, (2,), (3,), 4)(ts[0], ts[1]))

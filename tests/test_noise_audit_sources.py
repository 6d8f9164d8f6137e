"""The sources of the exact audit read a linear sampler's map off in one batch."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from labcore import SamplerError
from labcore.noise import Noise, basis, counting, replay

TS = torch.linspace(1, 0.1, 4, dtype=torch.float64)
D = 2
M = torch.tensor([[1.0, 0.5], [-0.25, 0.75]], dtype=torch.float64)


def walk(x: Tensor, noise: Noise) -> Tensor:
    """x <- M x + 2 z + 3 k + 5 y + 1, with areas, a second stream and a draw used twice."""
    for t, s in pairwise(TS):
        z, k = noise.levy(t, s)
        z = (z + noise.levy(t, s)[0]) / 2
        x = x @ M.T + 2 * z + 3 * k + 5 * noise(t, s, stream="other") + 1
    return x


def test_draws_are_counted_once_each() -> None:
    noise = counting((D,))
    walk(torch.zeros(1, D, dtype=torch.float64), noise)
    assert len(noise.draws) == 3 * 3


def test_basis_vectors_read_off_the_whole_map() -> None:
    draws = 9
    x = torch.zeros(1 + D + draws * D, D, dtype=torch.float64)
    x[1 : 1 + D] = torch.eye(D)
    out = walk(x, basis((D,), draws))
    columns = (out[1:] - out[0]).unflatten(0, (-1, D)).mT
    wanted = [torch.linalg.matrix_power(M, 3)]
    for power in (2, 1, 0):
        wanted += [c * torch.linalg.matrix_power(M, power) for c in (2.0, 3.0, 5.0)]
    assert torch.allclose(columns, torch.stack(wanted), atol=1e-14)
    ones = torch.ones(D, dtype=torch.float64)
    assert torch.allclose(out[0], ones + M @ ones + M @ M @ ones)


def test_replayed_draws_agree_with_the_map() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(9, 4, D, generator=g, dtype=torch.float64)
    x = torch.randn(4, D, generator=g, dtype=torch.float64)
    got = walk(x, replay(z)) - walk(torch.zeros_like(x), counting((D,), rows=4))
    powers = [torch.linalg.matrix_power(M, p) for p in (3, 2, 2, 2, 1, 1, 1, 0, 0, 0)]
    scales = [1.0, *[2.0, 3.0, 5.0] * 3]
    wanted = sum(c * v @ P.T for c, P, v in zip(scales, powers, [x, *z], strict=True))
    assert torch.allclose(got, wanted, atol=1e-13)


def test_events_keep_their_shape() -> None:
    z = basis((2, 3), 2)(1.0, 0.5)
    assert z.shape == (1 + 6 + 12, 2, 3)
    assert torch.equal(z.flatten(1)[7:13], torch.eye(6, dtype=torch.float64))
    assert float(z.abs().sum()) == 6


def test_a_draw_beyond_those_counted_is_refused() -> None:
    noise = basis((D,), 1)
    noise(1.0, 0.5)
    noise(1.0, 0.5)
    with pytest.raises(SamplerError, match="draw 2 where 1 were counted"):
        noise(0.5, 0.1)

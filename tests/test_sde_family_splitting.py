"""Which part of SSCS for CLD is of which order, by the exact audit."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from labcore import InvalidProcess, Score
from labcore.testing import audit, default_data, gaussian, uneven, weak_order
from labcore_linear import cld, rotating
from labcore_samplers import euler_maruyama, sscs, sscs_midpoint
from labcore_samplers.splitting import euler, midpoint, split_steps

F64 = torch.float64
DATA = default_data(2)


def exactly(score: Score, m: Tensor, x: Tensor, pull: Any, drag: Any) -> Tensor:
    """The flow of the affine field of the score part over the whole step: x + phi_1(J) f(x)."""
    d = x[0].numel()
    zero = torch.zeros(1, *x.shape[1:], dtype=x.dtype)
    basis = torch.eye(d, dtype=x.dtype).reshape(d, *x.shape[1:])

    def f(y: Tensor) -> Tensor:
        return euler(score, m, y, pull, drag) - y

    J = (f(basis) - f(zero)).reshape(d, d).T
    both = torch.zeros(2 * d, 2 * d, dtype=x.dtype)
    both[:d, :d], both[:d, d:] = J, torch.eye(d, dtype=x.dtype)
    phi = torch.linalg.matrix_exp(both)[:d, d:]
    return x + (f(x).flatten(1) @ phi.T).reshape(x.shape)


@pytest.mark.parametrize("process", [cld(), cld(b0=0.5, b1=8.0)], ids=["constant beta", "beta(t)"])
@pytest.mark.parametrize(
    ("push", "order"), [(euler, 1), (midpoint, 2), (exactly, 2)], ids=["euler", "mid", "exact"]
)
def test_the_score_parts_own_step_decides_the_order(push: Any, order: int, process: Any) -> None:
    """With the score part solved exactly the splitting itself, and holding the time at the
    middle, are of order 2; Euler's step, the published one, is what leaves 1."""
    sampler = partial(split_steps, push)
    measured = weak_order(sampler, process, uneven, DATA, steps=(128, 256))
    assert measured.slope == pytest.approx(order, abs=0.1)


def test_two_evaluations_a_step_pay() -> None:
    """At 512 evaluations the midpoint rule is more than five times nearer in law."""
    once = audit(sscs, cld(), uneven(cld(), 512), DATA).w2
    twice = audit(sscs_midpoint, cld(), uneven(cld(), 256), DATA).w2
    assert 5 * twice < once < 0.01


@pytest.mark.parametrize("sampler", [sscs, sscs_midpoint])
def test_the_stationary_law_is_kept_exactly(sampler: Any) -> None:
    """Data at equilibrium: the score part vanishes and the linear part is exact at any step."""
    process = cld(gamma=1.0)  # v_0 ~ N(0, M), x_0 ~ N(0, 1): N(0, diag(1, M)) at all times
    ts = torch.tensor([1.0, 0.6, 0.001], dtype=F64)
    data = gaussian(torch.zeros(2), torch.eye(2))
    assert audit(sampler, process, ts, data).w2 < 1e-9
    assert audit(euler_maruyama, process, ts, data).w2 > 1e-2


@pytest.mark.parametrize("sampler", [sscs, sscs_midpoint])
def test_a_stationary_law_that_moves_is_refused(sampler: Any) -> None:
    process, x = rotating(), torch.zeros(1, 2, dtype=F64)
    with pytest.raises(InvalidProcess, match="stationary covariance changes with t"):
        next(iter(sampler(process, lambda x, t: -x, x, uneven(process, 4), None)))

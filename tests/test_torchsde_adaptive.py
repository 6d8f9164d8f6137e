"""torchsde's step control on the reverse SDE: the law, one path, bounded cost, clear errors."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from labcore import InvalidOption, SamplerError, Score
from labcore.noise import brownian, counting, initial
from labcore.scores import counted
from labcore.targets import state_law
from labcore.testing import default_data, gaussian_score, quadratic, vp
from labcore_torchsde import adaptive

VP, DATA = vp(), default_data(2)
SCORE = gaussian_score(VP, DATA, (2,))


def run(
    ts: Tensor, n: int = 64, seed: int = 0, score: Score = SCORE, **options: object
) -> tuple[list[Tensor], float]:
    law = state_law(VP, DATA, ts[0], (2,))
    x = law.means[0] + initial([seed], n, (2,), dtype=torch.float64) @ law._chol[0].T
    metered = counted(score, n)
    noise = brownian(ts, (2,), [seed], n, dtype=torch.float64)
    with torch.inference_mode():
        states = list(adaptive(VP, metered, x, ts, noise, **adaptive.bind(options)))
    return states, metered.nfe


@pytest.mark.parametrize("method", ["srk", "heun", "midpoint", "reversible_heun"])
def test_gaussian_data_come_out_with_their_law(method: str) -> None:
    """1e4 samples: a covariance of 0.5 has sd 0.007, a mean 0.007; the bounds are five of them."""
    x = run(quadratic(VP, 3), 10_000, method=method, rtol=0.01, atol=0.01)[0][-1]
    law = state_law(VP, DATA, VP.t_eps, (2,))
    assert (x.mean(0) - law.means[0]).abs().max() < 0.035
    assert (x.T.cov() - law.covs[0]).abs().max() < 0.035


def test_tighter_tolerances_converge_on_one_path() -> None:
    ends, costs = [], []
    for tol in (0.1, 0.01, 0.001, 0.0001):
        states, nfe = run(quadratic(VP, 2), 256, rtol=tol, atol=tol)
        ends.append(states[-1])
        costs.append(nfe)
    gaps = [float((a - b).square().mean().sqrt()) for a, b in pairwise(ends)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.005
    assert costs == sorted(costs)


def test_the_grid_says_where_and_not_how() -> None:
    (few, a), (many, b) = run(quadratic(VP, 1)), run(quadratic(VP, 50))
    assert a == b
    assert torch.equal(few[-1], many[-1])
    assert len(many) == 50


def test_one_seed_gives_one_result_and_another_another() -> None:
    ts = quadratic(VP, 4)
    assert torch.equal(run(ts, seed=1)[0][-1], run(ts, seed=1)[0][-1])
    assert not torch.equal(run(ts, seed=1)[0][-1], run(ts, seed=2)[0][-1])


def test_evaluations_stay_between_t_eps_and_T() -> None:
    seen = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return SCORE(x, t)

    for method in ("srk", "heun", "reversible_heun"):
        run(quadratic(VP, 7), score=watched, method=method)
    assert min(seen) >= VP.t_eps
    assert max(seen) <= VP.T


def test_the_cap_on_evaluations_is_an_error_that_says_so() -> None:
    for cap in (1, 7, 200):
        with pytest.raises(SamplerError, match=f"all {cap} score evaluations are used up at t="):
            run(quadratic(VP, 2), rtol=1e-6, atol=1e-6, max_nfe=cap)


def test_a_step_below_the_smallest_is_an_error_that_says_so() -> None:
    with pytest.raises(SamplerError, match="asks for a step below dt_min"):
        run(quadratic(VP, 2), rtol=1e-12, atol=1e-12, dt_min=1e-3)


def test_a_score_of_nan_is_an_error_that_says_where() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return SCORE(x, t) if t > 0.5 else torch.full_like(x, torch.nan)

    with pytest.raises(SamplerError, match=r"NaN in the step from t=0\.5"):
        run(quadratic(VP, 2), score=broken)


@pytest.mark.parametrize(
    "options",
    [{"rtol": 0}, {"atol": -1}, {"method": "srkk"}, {"dt_min": 2}, {"max_nfe": 0}, {"tol": 1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        adaptive.bind(options)


def test_it_cannot_be_audited_and_says_so() -> None:
    ts = quadratic(VP, 2)
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(SamplerError, match="fixed grid only"):
        next(adaptive(VP, SCORE, x, ts, counting((2,))))

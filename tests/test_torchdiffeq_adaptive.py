"""torchdiffeq's adaptive methods: the closed-form flow, times within the grid, bounded cost."""

import pytest
import torch
from torch import Tensor

from labcore import Entry, InvalidOption, Process, SamplerError, Scalar, Score
from labcore.noise import brownian, initial
from labcore.scores import counted
from labcore.testing import default_data, gaussian_score, quadratic, vp
from labcore_torchdiffeq import register_samplers

ADAPTIVE = {entry.name: entry for entry in register_samplers() if entry.traits.get("coupled")}
DATA = default_data(2)


@pytest.fixture(params=list(ADAPTIVE))
def entry(request: pytest.FixtureRequest) -> Entry:
    return ADAPTIVE[request.param]


def edm() -> Process:
    """dX = sqrt(2t) dW on [0, 80]: where torchdiffeq, left alone, steps below t = 0."""
    return Process(
        A=lambda t: Scalar(torch.zeros_like(t)),
        G=lambda t: Scalar((2 * t).sqrt()),
        Phi=lambda t, s: Scalar(torch.ones_like(t)),
        Sigma=lambda t: Scalar(t * t),
        T=80.0,
        t_eps=2e-3,
    )


def run(
    entry: Entry,
    process: Process,
    ts: Tensor,
    score: Score | None = None,
    dtype: torch.dtype = torch.float64,
    **options: object,
) -> tuple[Tensor, Tensor, float]:
    """x_T, the states and the NFE."""
    x = process.prior().chol @ initial([0], 16, (2,), dtype=dtype)
    metered = counted(score or gaussian_score(process, DATA, (2,)), 16)
    noise = brownian(ts, (2,), [0], 16, dtype=dtype)
    with torch.inference_mode():
        states = list(entry(process, metered, x, ts, noise, **entry.bind(options)))
    return x, torch.stack(states), metered.nfe


def flow(process: Process, x: Tensor, ts: Tensor) -> Tensor:
    """The exact PF-ODE from ts[0]: in the eigenbasis of S, with l an eigenvalue,

    x_s = a_s m + sqrt( (a_s^2 l + v_s) / (a_t^2 l + v_t) ) (x_t - a_t m).
    """
    w, V = torch.linalg.eigh(DATA.covs[0])
    a = process.Phi(ts, torch.zeros_like(ts)).param[:, None]
    spread = (a**2 * w + process.Sigma(ts).param[:, None]).sqrt()
    start = (x - a[0] * DATA.means[0]) @ V / spread[0]
    return a[1:, None] * DATA.means[0] + (start * spread[1:, None]) @ V.T


@pytest.mark.parametrize("process", [vp(), edm()], ids=["vp", "edm"])
@pytest.mark.parametrize("name", ["dopri5", "dopri8"])
def test_tight_tolerances_give_the_closed_form_flow(name: str, process: Process) -> None:
    ts = quadratic(process, 12)
    x, states, _ = run(ADAPTIVE[name], process, ts, rtol=1e-9, atol=1e-9)
    exact = flow(process, x, ts)
    assert (states[-1] - exact[-1]).abs().max() < 1e-6
    assert ((states - exact).abs() / (1 + exact.abs())).max() < 1e-4  # dense output, in between


def test_the_error_follows_the_tolerance(entry: Entry) -> None:
    ts = quadratic(vp(), 2)
    errors, costs = [], []
    for tol in (1e-3, 1e-4, 1e-5):
        x, states, nfe = run(entry, vp(), ts, rtol=tol, atol=tol)
        errors.append(float((states[-1] - flow(vp(), x, ts)[-1]).abs().max()))
        costs.append(nfe)
    assert errors[2] < errors[0] / 5
    assert errors[2] < 2e-3
    assert costs == sorted(costs)
    assert costs[0] < costs[2]


@pytest.mark.parametrize("process", [vp(), edm()], ids=["vp", "edm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_score_is_asked_within_the_grid_only(
    entry: Entry, process: Process, dtype: torch.dtype
) -> None:
    seen: list[float] = []
    exact = gaussian_score(process, DATA, (2,))

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return exact(x, t)

    for n in (1, 6):
        run(entry, process, quadratic(process, n), watched, dtype, rtol=1e-3, atol=1e-3)
    assert min(seen) >= process.t_eps
    assert max(seen) <= process.T
    assert min(seen) == pytest.approx(process.t_eps, rel=1e-7)


def test_the_first_probe_of_a_slow_field_stays_within_the_grid(entry: Entry) -> None:
    """The first step is guessed from |x| / |dx/dt|, here far beyond the whole interval."""
    seen: list[float] = []

    def slow(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return -1e-6 * x / t

    x, states, _ = run(entry, edm(), quadratic(edm(), 3), slow)
    assert torch.allclose(states[-1], (1 - 1e-6 * (80 - 2e-3)) * x, rtol=1e-6)
    assert min(seen) >= edm().t_eps


def test_single_precision_does_not_round_times_out_of_the_grid(entry: Entry) -> None:
    """0.0011 and 0.7 round downwards and upwards in float32."""
    ts = torch.tensor([0.7 - 2**-26, 0.0011], dtype=torch.float64)
    assert float(ts[1].float()) < 0.0011
    assert float(ts[0].float()) > float(ts[0])
    seen: list[float] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return -x

    run(entry, vp(), ts, watched, torch.float32, rtol=1e-3, atol=1e-3)
    assert float(ts[1]) <= min(seen)
    assert max(seen) <= float(ts[0])


def test_the_grid_says_where_and_not_how(entry: Entry) -> None:
    _, few, a = run(entry, vp(), quadratic(vp(), 1), rtol=1e-4, atol=1e-4)
    _, many, b = run(entry, vp(), quadratic(vp(), 200), rtol=1e-4, atol=1e-4)
    assert a == b
    assert torch.equal(few[-1], many[-1])


def test_a_stiff_field_ends_at_the_cap_with_an_error_that_says_so(entry: Entry) -> None:
    def stiff(x: Tensor, t: Tensor) -> Tensor:
        return -1e6 * (x - torch.sin(50 * t))

    with pytest.raises(SamplerError, match="all 300 score evaluations are used up at t="):
        run(entry, vp(), quadratic(vp(), 4), stiff, max_nfe=300)


def test_tolerances_that_rounding_forbids_end_in_an_error_that_says_so(entry: Entry) -> None:
    with pytest.raises(SamplerError, match=r"used up at t=|underflow in dt"):
        run(entry, vp(), quadratic(vp(), 4), rtol=1e-20, atol=1e-20, max_nfe=2000)


def test_a_score_of_nan_ends_in_an_error_that_names_the_method(entry: Entry) -> None:
    exact = gaussian_score(vp(), DATA, (2,))

    def broken(x: Tensor, t: Tensor) -> Tensor:
        return exact(x, t) if t > 0.5 else torch.full_like(x, torch.nan)

    with pytest.raises(SamplerError, match=f"{entry.name}: .* at t=0"):
        run(entry, vp(), quadratic(vp(), 4), broken)


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"atol": -1}, {"max_nfe": 0}, {"tol": 1e-3}])
def test_options_that_make_no_sense_are_refused(entry: Entry, options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        entry.bind(options)


def test_one_stiff_sample_sets_the_step_of_the_whole_batch() -> None:
    """Why these are declared coupled: the cost is one number for the batch."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        hard = torch.zeros(len(x), 1, dtype=x.dtype)
        hard[0] = 200.0
        return -x - hard * x

    ts = quadratic(vp(), 2)
    calm = run(ADAPTIVE["dopri5"], vp(), ts, lambda x, t: -x)[2]
    assert run(ADAPTIVE["dopri5"], vp(), ts, score)[2] > 5 * calm

"""Every grid runs from exactly T to exactly t_eps, on every process, and doubles by refinement."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import labcore
import labcore_linear
from labcore import InvalidGrid
from labcore_linear import gaussian_path, time_of_log_snr

PROCESSES = {entry.name: entry() for entry in labcore_linear.register_processes()}
GRIDS = {entry.name: entry for entry in labcore_linear.register_grids()}
PATHS = [name for name in GRIDS if name != "times"]
OPTIMISED = ["align_your_steps", "equal_error"]
BY_NOISE = ["log_snr", "karras"]


@pytest.mark.parametrize("grid", PATHS)
@pytest.mark.parametrize("name", PROCESSES)
def test_a_grid_fits_its_process(grid, name):
    process = PROCESSES[name]
    for n in (1, 2, 3, 50):
        ts = GRIDS[grid](process, n)
        assert labcore.check_grid(ts, process, n) is ts
        assert float(ts[0]) == process.T
        assert float(ts[-1]) == process.t_eps


@pytest.mark.parametrize("grid", [name for name in PATHS if name not in OPTIMISED])
@pytest.mark.parametrize("name", PROCESSES)
def test_twice_the_steps_refine_the_grid(grid, name):
    process = PROCESSES[name]
    coarse, fine = (GRIDS[grid](process, n) for n in (37, 74))
    torch.testing.assert_close(fine[::2], coarse, rtol=1e-14, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PATHS),
    st.sampled_from([name for name in PROCESSES if name != "rotating"]),
    st.integers(1, 400),
    st.floats(1e-6, 0.5),
)
def test_any_number_of_steps_and_any_end(grid, name, n, share):
    process = PROCESSES[name]
    ts = GRIDS[grid](process, n, t_eps=share * process.T)
    labcore.check_grid(ts, process, n)
    assert float(ts[-1]) == share * process.T


@pytest.mark.parametrize("name", PROCESSES)
def test_log_snr_steps_are_equal(name):
    steps = PROCESSES[name].log_snr(GRIDS["log_snr"](PROCESSES[name], 80)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(80), rtol=1e-9, atol=0)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("name", PROCESSES)
def test_karras_steps_are_equal_in_a_root_of_sigma(name, rho):
    process = PROCESSES[name]
    ts = GRIDS["karras"](process, 60, rho=rho)
    root = torch.exp(-process.log_snr(ts) / (2 * rho))
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(60), rtol=1e-8, atol=0)


def test_karras_on_edm_is_the_published_grid():
    i, rho = np.arange(19), 7
    wanted = (80 ** (1 / rho) + i / 18 * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(GRIDS["karras"](PROCESSES["edm"], 18), wanted, rtol=1e-13)


def test_log_snr_on_vp_is_the_closed_inverse():
    """lam = log(alpha^2/sigma^2): B = log1p(exp(-lam)), t solves 0.1 t + 19.9 t^2/2 = B."""
    process = PROCESSES["vp"]
    ts = GRIDS["log_snr"](process, 40)
    ends = process.log_snr(ts[[0, -1]])
    i = torch.arange(41, dtype=torch.float64) / 40
    B = torch.log1p(torch.exp(-(ends[0] + i * (ends[1] - ends[0]))))
    t = 2 * B / (0.1 + (0.01 + 2 * 19.9 * B).sqrt())
    torch.testing.assert_close(ts, t, rtol=1e-12, atol=0)


def test_grids_in_time_follow_their_formulas():
    process, i = PROCESSES["vp"], torch.arange(11, dtype=torch.float64) / 10
    T, end = process.T, process.t_eps
    wanted = {
        "uniform": T + i * (end - T),
        "quadratic": (T**0.5 + i * (end**0.5 - T**0.5)) ** 2,
        "cosine": end + (T - end) * (1 + torch.cos(math.pi * i)) / 2,
    }
    for name, ts in wanted.items():
        torch.testing.assert_close(GRIDS[name](process, 10), ts, rtol=1e-13, atol=1e-16)


def test_an_inverted_time_does_not_depend_on_its_company():
    process = PROCESSES["rectified_flow"]
    level = process.log_snr(torch.linspace(0.01, 0.99, 100, dtype=torch.float64))
    together = time_of_log_snr(process, level, process.t_eps)
    alone = [time_of_log_snr(process, v[None], process.t_eps) for v in level]
    assert torch.equal(together, torch.cat(alone))
    wanted = torch.linspace(0.01, 0.99, 100, dtype=torch.float64)
    torch.testing.assert_close(together, wanted, rtol=1e-13, atol=0)


def test_bisection_takes_over_where_newton_fails():
    """log-SNR with a plateau, a cliff at t=0.3 and a plateau again."""
    process = gaussian_path(
        torch.ones_like, lambda t: torch.exp(torch.atan(1e4 * (t - 0.3)) + t), T=1.0, t_eps=1e-3
    )
    wanted = torch.tensor([0.05, 0.29, 0.2999, 0.3, 0.30001, 0.7], dtype=torch.float64)
    got = time_of_log_snr(process, process.log_snr(wanted), 1e-3)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=0)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "ten", None, float("nan")])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_number_of_steps_that_is_none_is_refused(grid, n):
    options = {"times": [1.0, 0.5]} if grid == "times" else {}
    with pytest.raises(InvalidGrid, match=f"grid '{grid}': the number of steps is .*; give"):
        GRIDS[grid](PROCESSES["vp"], n, **options)


@pytest.mark.parametrize("t_eps", [0.0, -1e-3, 1.0, 2.0, float("nan")])
@pytest.mark.parametrize("grid", PATHS)
def test_an_end_outside_the_process_is_refused(grid, t_eps):
    with pytest.raises(InvalidGrid, match=rf"grid '{grid}': t_eps is .* default is 0\.001"):
        GRIDS[grid](PROCESSES["vp"], 10, t_eps=t_eps)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_karras_refuses_a_root_that_is_none(rho):
    with pytest.raises(InvalidGrid, match=r"rho is .*; try rho=7"):
        GRIDS["karras"](PROCESSES["vp"], 10, rho=rho)


def test_listed_times_are_taken_as_they_are():
    ts = GRIDS["times"](PROCESSES["vp"], 3, times=[1.0, 0.7, 0.1, 0.01])
    assert ts.tolist() == [1.0, 0.7, 0.1, 0.01]
    assert ts.dtype == torch.float64


@pytest.mark.parametrize(
    ("times", "n", "t_eps", "reason"),
    [
        ([1.0, 0.5, 0.1], 3, None, "lists 3 times, which make 2 steps, and 3 steps"),
        ([1.0, 0.5, 0.5], 2, None, "must strictly decrease"),
        ([0.1, 0.5, 1.0], 2, None, "must strictly decrease"),
        ([1.0, 0.5, 0.0], 2, None, "ends at t_eps=0"),
        ([2.0, 0.5, 0.1], 2, None, "beyond T=1"),
        ([0.9, 0.5, 0.1], 2, None, r"t\[0\] is 0.9 and T is 1"),
        ([1.0, 0.5, 0.1], 2, 0.2, r"t\[-1\] is 0.1 and t_eps is 0.2"),
        ([1.0, float("nan"), 0.1], 2, None, "NaN"),
        ([], 1, None, "lists 0 times"),
    ],
)
def test_listed_times_that_are_no_grid_are_refused(times, n, t_eps, reason):
    with pytest.raises(InvalidGrid, match=f"grid 'times': .*{reason}"):
        GRIDS["times"](PROCESSES["vp"], n, t_eps=t_eps, times=times)


def test_a_grid_too_fine_for_float64_is_refused():
    with pytest.raises(InvalidGrid, match="strictly decrease"):
        GRIDS["uniform"](PROCESSES["vp"], 10, t_eps=1 - 1e-16 * 4)


def test_a_grid_that_begins_below_T_is_refused_before_a_study_runs():
    """A run starts from the law at T, which is not that at a smaller time."""

    @labcore.grid
    def half(process, n, *, t_eps=None):
        return torch.linspace(process.T / 2, process.t_eps, n + 1, dtype=torch.float64)

    study = labcore.Study(
        name="half",
        question="?",
        target="gmm_ring",
        process="vp",
        grid="half",
        entries=[half],
        sampler="ddim",
        steps=[4],
        metrics=["energy"],
    )
    with pytest.raises(labcore.LabError, match=r"t\[0\] is 0\.5 and T is 1; begin at T"):
        study.cells(study.registry())

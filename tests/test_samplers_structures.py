"""No sampler sees how a process is written: the change of variables VP <-> EDM, structure, axes.

All fixed-grid samplers of the plugin, to 1e-12 of the state's size in float64, from 10 to 1000
steps (far, in identities.py). Two things keep some from that, and both are measured here:

- A rectified flow is started where alpha = 1e-3. Its first steps multiply x_t by up to 1/alpha and
  subtract nearly as much; two stages do so twice. Relative errors of 2^-52 come out up to 4e4
  times as large: no order of operations in float64 could hold 1e-12.
- hmc, and predictor_corrector by its snr rule, whose step has no bound where the score vanishes,
  are chaotic chains: what they amplify grows with the steps, 1e9 times at 1000.

Those are held to 16 K 2^-52 with K the amplification measured, and no others are.
"""

from typing import Any

import pytest
import torch
from identities import (
    EPS,
    FIXED,
    amplification,
    draws,
    far,
    lifted,
    mixture,
    rotation,
    run,
    start,
)
from torch import Tensor

from labcore import Entry, Process
from labcore.testing import uneven
from labcore_linear import edm, rectified_flow, vp, vp_cosine

CHAOTIC = {"hmc", "predictor_corrector"}
SCALARS = {
    "vp": vp(),
    "edm": edm(),
    "cosine": vp_cosine(),
    "flow": rectified_flow(),
}
# One of each kind of coefficients, for long runs.
LONG = (
    *("ddim", "ancestral", "dpm_solver_3", "dpmpp_2m", "unipc_3", "deis_rhoab3", "deis_tab3"),
    *("sde_dpmpp_2m", "sde_dpmpp_2s", "edm_heun", "edm_churn", "ipndm", "rk4", "lms4", "sra1"),
    *("oracle", "annealed_langevin"),
)
RATES = "it follows A and G in the process's own t and x, not alpha and sigma"
AT_TIMES = "it interpolates or halves t, and t differs between the two"
BY_RATES = (
    *("euler", "heun", "midpoint", "ralston", "ralston3", "rk4", "lms", "lms2", "lms3", "lms4"),
    *("euler_maruyama", "reverse_sde", "stochastic_heun", "sra1", "sra2", "sra3"),
)
BY_TIMES = ("deis_tab1", "deis_tab2", "deis_tab3", "pndm")
OTHERWISE = dict.fromkeys(BY_RATES, RATES) | dict.fromkeys(BY_TIMES, AT_TIMES)
"""Why a sampler's results do change under the change of variables VP <-> EDM."""
AT_THE_END = {"langevin", "mala", "metropolis", "hmc"}
"""Chains on the law at ts[-1], whose start too is a state at that time."""

each = pytest.mark.parametrize("name", FIXED)
each_process = pytest.mark.parametrize("at", SCALARS)


def allowed(name: str, at: str, process: Process, x: Tensor, ts: Tensor) -> float:
    """1e-12; where arithmetic cannot hold that, what its errors come to."""
    if name not in CHAOTIC and at != "flow":
        return 1e-12
    K = amplification(FIXED[name], process, mixture(process), x, ts)
    return max(1e-12, 16 * K * EPS)


def both(sampler: Entry, n: int) -> tuple[Tensor, Tensor]:
    """One run on VP and one on EDM, at matched alpha and sigma, in VP's variables."""
    one, other = vp(), edm(T=200.0)
    ts, x = uneven(one, n), start(one)
    alpha = one.Phi(ts, torch.zeros_like(ts)).param
    sigma = one.Sigma(ts).param.sqrt()
    scale = alpha[-1:].expand_as(alpha) if sampler.name in AT_THE_END else alpha
    here = run(sampler, one, mixture(one), x, ts, draws())
    there = run(sampler, other, mixture(other), x / scale[0], sigma / alpha, draws())
    return there * scale[1:, None, None], here


@each
@pytest.mark.parametrize("n", [10, 60])
def test_results_do_not_change_between_vp_and_edm(name: str, n: int) -> None:
    """x/alpha on VP is the state of EDM at sigma/alpha."""
    found = far(*both(FIXED[name], n))
    if name in OTHERWISE:
        assert found > 1e-8, f"it does not change, and need not be listed: {OTHERWISE[name]}"
    else:
        process = vp()
        assert found < allowed(name, "vp", process, start(process), uneven(process, n))


@pytest.mark.parametrize("name", [name for name in LONG if name not in OTHERWISE])
def test_nor_do_long_runs_change_between_vp_and_edm(name: str) -> None:
    assert far(*both(FIXED[name], 1000)) < 1e-12


def in_structures(name: str, process: Process, n: int) -> tuple[Tensor, ...]:
    ts, x, score = uneven(process, n), start(process), mixture(process)
    forms = (process, lifted(process, "diag"), lifted(process, "dense"))
    return tuple(run(FIXED[name], form, score, x, ts, draws()) for form in forms)


@each
@each_process
def test_scalar_diagonal_and_dense_forms_of_one_process_agree(name: str, at: str) -> None:
    process, n = SCALARS[at], 12
    scalar, diagonal, dense = in_structures(name, process, n)
    most = allowed(name, at, process, start(process), uneven(process, n))
    assert far(diagonal, scalar) < most
    assert far(dense, scalar) < most


@pytest.mark.parametrize("name", LONG)
def test_so_do_long_runs(name: str) -> None:
    scalar, diagonal, dense = in_structures(name, vp(), 500)
    assert far(diagonal, scalar) < 1e-12
    assert far(dense, scalar) < 1e-12


def turned(name: str, process: Process, n: int) -> tuple[Tensor, Tensor]:
    U, ts, x = rotation(1.1), uneven(process, n), start(process)
    straight = run(FIXED[name], process, mixture(process), x, ts, draws())
    other = run(FIXED[name], process, mixture(process, U), x @ U.T, ts, draws(U))
    return other, straight @ U.T


@each
@pytest.mark.parametrize("at", ["cosine", "flow"])
def test_turning_data_start_and_noise_turns_the_output(name: str, at: str) -> None:
    process, n = SCALARS[at], 12
    most = allowed(name, at, process, start(process), uneven(process, n))
    assert far(*turned(name, process, n)) < most


@pytest.mark.parametrize("name", LONG)
def test_turning_turns_the_output_of_long_runs(name: str) -> None:
    assert far(*turned(name, vp(), 300)) < 1e-12


@pytest.mark.parametrize("name", sorted(CHAOTIC))
def test_chaotic_chains_amplify_what_no_arithmetic_can_hold_down(name: str) -> None:
    """By far more than 1e-12/2^-52 within 1000 steps, and by less than that within 10."""
    process = vp()

    def K(n: int, **how: Any) -> float:
        ts = uneven(process, n)
        return amplification(FIXED[name], process, mixture(process), start(process), ts, **how)

    assert K(10) < 4000 < 1e6 < K(1000)


def test_with_steps_of_a_fixed_size_a_corrector_is_not_chaotic() -> None:
    process, sampler = vp(), FIXED["predictor_corrector"]
    U, ts, x = rotation(1.1), uneven(process, 1000), start(process)
    how = {"corrector": "fixed"}
    straight = run(sampler, process, mixture(process), x, ts, draws(), **how)
    other = run(sampler, process, mixture(process, U), x @ U.T, ts, draws(U), **how)
    assert far(other, straight @ U.T) < 1e-12


def test_a_flow_from_alpha_of_a_thousandth_cannot_be_held_to_rounding() -> None:
    """Its third-order steps amplify more than 1e-12/2^-52 does; those of VP by less than 100."""
    found = {}
    for at in ("flow", "vp"):
        process = SCALARS[at]
        where = process, mixture(process), start(process), uneven(process, 10)
        found[at] = amplification(FIXED["dpm_solver_3"], *where)
    assert found["vp"] < 100 < 1e-12 / EPS < found["flow"]


def test_every_exception_is_of_a_registered_sampler() -> None:
    assert {*OTHERWISE, *CHAOTIC, *AT_THE_END, *LONG} <= set(FIXED)

"""Samplers that are one formula under two names agree at every step to 1e-12 of the state's size.

On scalar, diagonal, dense and block processes, from 10 to 1000 steps, in float64. The data are
Gaussian, so that the score is exact on all of them.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from identities import FIXED, draws, far, run, start

from labcore import Process
from labcore.testing import default_data, gaussian_score, uneven
from labcore_linear import (
    cld,
    diag_vp,
    edm,
    ou,
    rectified_flow,
    rotating,
    sigma_t,
    sub_vp,
    trigonometric,
    ve,
    vp,
    vp_cosine,
)

Named = tuple[str, dict[str, Any]]

COMMUTING: dict[str, Process] = {
    "vp": vp(),
    "cosine": vp_cosine(),
    "sub_vp": sub_vp(),
    "edm": edm(),
    "ve": ve(),
    "sigma_t": sigma_t(),
    "flow": rectified_flow(),
    "trigonometric": trigonometric(),
    "diag": diag_vp(d=3),
}
EVERY = COMMUTING | {"ou": ou(d=3), "rotating": rotating(), "cld": cld()}
EDM = {"edm": edm()}

ONE: dict[str, tuple[dict[str, Process], Named, Named]] = {
    "DDIM(0) = exponential Euler = DPM-Solver-1": (EVERY, ("ddim", {}), ("dpm_solver_1", {})),
    "DDIM(0) = DPM-Solver++(1M)": (EVERY, ("ddim", {}), ("dpmpp_1m", {})),
    "DDIM(0) = iPNDM of one value": (EVERY, ("ddim", {}), ("ipndm", {"k": 1})),
    "DDIM(1) = ancestral": (COMMUTING, ("ddim", {"eta": 1.0}), ("ancestral", {})),
    "SDE-DPM-Solver++(1) = ancestral": (EVERY, ("sde_dpmpp_1", {}), ("ancestral", {})),
    "SDE-DPM-Solver++(1) at eta 0 = 1M": (
        EVERY,
        ("sde_dpmpp_1", {"eta": 0.0}),
        ("dpmpp_1m", {}),
    ),
    "2M-SDE at eta 0 = 2M": (EVERY, ("sde_dpmpp_2m", {"eta": 0.0}), ("dpmpp_2m", {})),
    "2M-SDE at eta 0 = 2M, exact": (
        EVERY,
        ("sde_dpmpp_2m", {"eta": 0.0, "solver": "exact"}),
        ("dpmpp_2m", {"solver": "exact"}),
    ),
    "LMS-1 = Euler": (EVERY, ("lms", {"k": 1}), ("euler", {})),
    "LMS of two, rising = LMS-2": (EVERY, ("lms", {"k": 2}), ("lms2", {})),
    "Euler-Maruyama at rate 0 = Euler": (EVERY, ("euler_maruyama", {"lam": 0.0}), ("euler", {})),
    "reverse SDE at rate 1 = Euler-Maruyama": (EVERY, ("reverse_sde", {}), ("euler_maruyama", {})),
    "stochastic Heun at rate 0 = Heun": (EVERY, ("stochastic_heun", {"lam": 0.0}), ("heun", {})),
    "SRA1 at rate 0 = SRA2 at rate 0": (EVERY, ("sra1", {"lam": 0.0}), ("sra2", {"lam": 0.0})),
    "EDM without churn = its Heun": (EVERY, ("edm_churn", {"S_churn": 0.0}), ("edm_heun", {})),
    "Restart without returns = EDM's Heun": (EVERY, ("restart", {"K": 0}), ("edm_heun", {})),
    "no corrector = the predictor": (
        EVERY,
        ("predictor_corrector", {"inner": 0}),
        ("ancestral", {}),
    ),
    "in sigma, Euler = DDIM": (EDM, ("euler", {}), ("ddim", {})),
    "in sigma, Heun = EDM's Heun": (EDM, ("heun", {}), ("edm_heun", {})),
    "in sigma, LMS-2 = rhoAB1-DEIS": (EDM, ("lms2", {}), ("deis_rhoab1", {})),
    **{
        f"in sigma, tAB{k} = rhoAB{k}": (EDM, (f"deis_tab{k}", {}), (f"deis_rhoab{k}", {}))
        for k in (1, 2, 3)
    },
}
CASES = [(claim, at) for claim, (processes, *_) in ONE.items() for at in processes]


def apart(pair: Sequence[Named], process: Process, n: int) -> float:
    """The largest relative difference of the two, at any step."""
    event = process.event_shape or (2,)
    state = tuple(process.event(event))
    score = gaussian_score(process, default_data(torch.Size(event).numel()), event)
    ts, x = uneven(process, n), start(process, state)
    one, other = (
        run(FIXED[name], process, score, x, ts, draws(event=state), **how) for name, how in pair
    )
    return far(one, other)


@pytest.mark.parametrize(("claim", "at"), CASES, ids=[f"{c}, {at}" for c, at in CASES])
def test_two_names_are_one_sampler(claim: str, at: str) -> None:
    processes, *pair = ONE[claim]
    assert apart(pair, processes[at], 10) < 1e-12


REQUIRED = (
    "DDIM(0) = exponential Euler = DPM-Solver-1",
    "DDIM(0) = DPM-Solver++(1M)",
    "DDIM(1) = ancestral",
    "SDE-DPM-Solver++(1) = ancestral",
    "2M-SDE at eta 0 = 2M",
    "LMS-1 = Euler",
)
LONG = [(of, at) for of, at in CASES if of in REQUIRED and at in ("vp", "flow", "ou", "cld")]


@pytest.mark.parametrize(("claim", "at"), LONG, ids=[f"{c}, {at}" for c, at in LONG])
def test_so_they_are_over_more_steps(claim: str, at: str) -> None:
    processes, *pair = ONE[claim]
    for n in (100, 1000) if at in ("vp", "cld") else (100, 400):
        assert apart(pair, processes[at], n) < 1e-12


def test_on_matrices_ddim_at_eta_1_is_ancestral_in_the_limit_only() -> None:
    """DDIM takes a symmetric root, ancestral the gain of Bayes: one drift, to first order."""
    _, *pair = ONE["DDIM(1) = ancestral"]
    few, many = (apart(pair, ou(d=3), n) for n in (50, 100))
    assert few > 1e-5
    assert many < few / 1.7

"""Flow and SDE samplers do not care in which structure, or in which axes, a process is written."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from curved import F64, mixture_score
from torch import Tensor

from labcore import Diag, Entry, LinOp, Mat, Process, Score
from labcore.noise import initial, replay
from labcore.testing import uneven
from labcore_linear import edm, vp
from labcore_samplers import (
    dpm_2,
    edm_churn,
    edm_heun,
    ipndm,
    lms,
    lms3,
    lms4,
    midpoint,
    plms,
    pndm,
    ralston3,
    restart,
    reverse_sde,
    rk4,
    sra1,
    sra2,
    stochastic_heun,
)

SAMPLERS: dict[str, tuple[Entry, dict[str, Any]]] = {
    entry.name: (entry, {})
    for entry in (
        *(midpoint, ralston3, rk4, lms, lms3, lms4, ipndm, plms, pndm, edm_heun, dpm_2),
        *(reverse_sde, stochastic_heun, sra1, sra2),
    )
} | {"edm_churn": (edm_churn, {"S_churn": 3.0}), "restart": (restart, {"S_min": 0.1, "S_max": 5})}
each = pytest.mark.parametrize(("sampler", "options"), SAMPLERS.values(), ids=SAMPLERS)
each_process = pytest.mark.parametrize("process", [vp(), edm()], ids=["vp", "edm"])
AS: dict[Any, LinOp] = {
    "diag": Diag(torch.ones(1, 2, dtype=F64)),
    "dense": Mat(torch.eye(2, dtype=F64)[None]),
}
N, ROWS = 12, 6


def lifted(process: Process, structure: Any) -> Process:
    """The same process with its operators in a richer structure."""

    def over(f: Callable[..., LinOp]) -> Callable[..., LinOp]:
        return lambda *times: f(*times).lift(AS[structure])

    return replace(
        process,
        A=over(process.A),
        G=over(process.G),
        Phi=over(process.Phi),
        Sigma=over(process.Sigma),
        closed_Q=over(process.Q),
        structure=structure,
        event_shape=(2,),
    )


def run(
    sampler: Entry, process: Process, score: Score, x: Tensor, z: Tensor, **options: Any
) -> Tensor:
    return torch.stack(list(sampler(process, score, x, uneven(process, N), replay(z), **options)))


def start() -> tuple[Tensor, Tensor]:
    z = initial([0], 3 * N * ROWS, (2,), name="draws", dtype=F64)
    return 2 * initial([0], ROWS, (2,), dtype=F64), z.reshape(3 * N, ROWS, 2)


@each_process
@each
def test_scalar_diagonal_and_dense_agree(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    score, (x, z) = mixture_score(process), start()
    plain = run(sampler, process, score, x, z, **options)
    for structure, close in (("diag", 1e-11), ("dense", 1e-7)):  # Psi of dense ones is integrated
        rich = run(sampler, lifted(process, structure), score, x, z, **options)
        torch.testing.assert_close(rich, plain, rtol=close, atol=close)


@each_process
@each
def test_turning_data_start_and_noise_turns_the_output(
    sampler: Entry, options: dict[str, Any], process: Process
) -> None:
    c, s = math.cos(1.1), math.sin(1.1)
    U = torch.tensor([[c, -s], [s, c]], dtype=F64)
    score, (x, z) = mixture_score(process), start()

    def turned(x: Tensor, t: Tensor) -> Tensor:
        return score(x @ U, t) @ U.T

    straight = run(sampler, process, score, x, z, **options)
    other = run(sampler, process, turned, x @ U.T, z @ U.T, **options)
    torch.testing.assert_close(other, straight @ U.T, rtol=1e-10, atol=1e-10)

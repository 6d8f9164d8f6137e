"""The metamorphic checks: each planted fault is caught by name, correct twins pass anywhere."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import labcore
from labcore import Process
from labcore.testing import check_process, check_sampler, vp
from labcore.testing.changes import (
    conjugated,
    growing,
    level_process,
    orthogonal,
    preserving,
    scaled,
)
from labcore.testing.models import cld
from labcore_linear import diag_vp, edm, ou, rotating, sigma_t, ve, vp_cosine
from labcore_samplers import (
    adaptive_rk23,
    ancestral,
    ddim,
    edm_churn,
    edm_heun,
    euler,
    euler_maruyama,
    gotta_go_fast,
    heun,
    langevin,
    lms3,
    mala,
    metropolis,
    restart,
    sra1,
)

MINE = ("variables", "rotation", "scaling", "permutation", "rows", "grid")


def found(sampler: Any, process: Process | None = None, **traits: Any) -> dict[str, Any]:
    entry = labcore.sampler(name="planted", **{"order": 1, "evals": 1, **traits})(sampler)
    certificate = check_sampler(entry, process, checks=MINE, on_fail="return")
    return {check.name: check for check in certificate.checks}


def changed(change: Any) -> Any:
    """Euler, with a change made to each state."""

    def sampler(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for t, s in pairwise(ts):
            x = change(x + float(s - t) * labcore.velocity(process, score)(t, x))
            yield x

    return sampler


def no_linear_part(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    for t, s in pairwise(ts):
        x = x - float(s - t) / 2 * (process.GG(t) @ score(x, t))
        yield x


def looks_at_the_whole_grid(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    share = float(ts.mean() / ts[0])
    for t, s in pairwise(ts):
        x = x + (1 + 0.3 * share) * float(s - t) * labcore.velocity(process, score)(t, x)
        yield x


def steps_of_one_length(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
    own = torch.linspace(float(ts[0]), float(ts[-1]), len(ts)).double().clamp(ts[-1], ts[0])
    for t, s in pairwise(own):
        x = x + float(s - t) * labcore.velocity(process, score)(t, x)
        yield x


def only_the_first(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1] * 1.001, x[:, 1:]], 1)


FAULTS = {
    "variables": [(no_linear_part, "it tends elsewhere")],
    "rotation": [
        (changed(only_the_first), "a coordinate"),
        (changed(lambda x: x + 1e-6), "a constant vector"),
        (changed(lambda x: x - 1e-4 * x.sign() * x.abs().sqrt()), "treated apart"),
    ],
    "scaling": [
        (changed(lambda x: x + 1e-6), "a constant that the size of the data"),
        (changed(lambda x: x / (1 + 1e-6 * x.norm(dim=1, keepdim=True))), "in other units"),
        (changed(lambda x: x.clamp(-1, 1)), "in other units"),
    ],
    "permutation": [
        (changed(lambda x: x * (1 + 1e-6 * torch.arange(len(x))[:, None])), "in another order"),
    ],
    "rows": [
        (changed(lambda x: x - 1e-6 * x.mean(0)), "how the batch is split"),
        (changed(lambda x: x * (1 + 1e-6 / len(x))), "how the batch is split"),
    ],
    "grid": [
        (looks_at_the_whole_grid, "with times of the grid that are far away"),
        (steps_of_one_length, "changes nothing"),
    ],
}


@pytest.mark.parametrize(
    ("name", "sampler", "says"), [(n, *fault) for n, of in FAULTS.items() for fault in of]
)
def test_a_planted_fault_is_caught_by_its_check(name: str, sampler: Any, says: str) -> None:
    check = found(sampler)[name]
    assert check.status == "failed"
    assert says in f"{check.found}; {check.remedy}"


def test_euler_itself_passes() -> None:
    assert {c.status for c in found(changed(lambda x: x)).values()} == {"passed"}


MODELS = {
    "vp": vp(),
    "ve": ve(),
    "edm": edm(),
    "vp_cosine": vp_cosine(),
    "one": replace(vp(), event_shape=(1,)),
    "five": replace(sigma_t(), event_shape=(5,)),
    "image": replace(vp(), event_shape=(1, 2, 2)),
    "diag": diag_vp(),
    "ou": ou(),
    "rotating": rotating(),
    "cld": cld(),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampler", [euler, ddim, euler_maruyama, ancestral, lms3])
def test_no_alarm_on_any_process(sampler: labcore.Entry, model: str) -> None:
    check_sampler(sampler, MODELS[model], checks=MINE, seed=7)


@pytest.mark.parametrize(
    "sampler",
    [heun, edm_heun, edm_churn, restart, sra1, langevin, mala, metropolis, adaptive_rk23],
)
@pytest.mark.parametrize("seed", range(2))
def test_no_alarm_on_other_kinds_of_sampler(sampler: labcore.Entry, seed: int) -> None:
    check_sampler(sampler, checks=MINE, seed=seed)


@pytest.mark.parametrize("entry", [ddim, ancestral, edm_heun, edm_churn])
def test_what_looks_at_signal_and_noise_alone_is_the_same_in_other_variables(
    entry: labcore.Entry,
) -> None:
    for process in (vp(), edm(), ve(), sigma_t()):
        check = check_sampler(entry, process, checks=["variables"])["variables"]
        assert check.found.startswith("the same in")


def test_options_in_the_unit_of_the_data_are_named() -> None:
    units = {
        e.name: check_sampler(e, checks=["scaling"])["scaling"].figures.get("units", [])
        for e in (langevin, restart, adaptive_rk23, ddim)
    }
    assert units == {
        "langevin": ["data_std"],
        "restart": ["S_min", "S_max"],
        "adaptive_rk23": ["atol"],
        "ddim": [],
    }


def test_adaptive_steps_on_a_stochastic_path_turn_with_the_problem() -> None:
    check_sampler(gotta_go_fast, checks=["rotation", "scaling", "permutation"])


@pytest.mark.parametrize(
    ("process", "event"),
    [
        (growing(diag_vp()), (2,)),
        (growing(ou()), (2,)),
        (growing(cld()), (2,)),
        (level_process(80.0, 0.002, None), (2,)),
        (preserving(edm()), (2,)),
        (scaled(vp(), 3.0), (2,)),
        (scaled(ou(), 3.0), (2,)),
        (conjugated(ou(), orthogonal(2, 0)), (2,)),
        (conjugated(diag_vp(), orthogonal(2, 0)), (2,)),
        (cld(), (2,)),
    ],
    ids=[
        "diag+",
        "ou+",
        "cld+",
        "levels",
        "vp-of-edm",
        "3vp",
        "3ou",
        "turned-ou",
        "turned-diag",
        "cld",
    ],
)
def test_the_processes_of_changed_problems_are_processes(
    process: Process, event: tuple[int, ...]
) -> None:
    check_process(process, event)

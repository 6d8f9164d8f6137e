"""Budgets for samplers whose cost is no multiple of the number of steps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import labcore
from labcore import Entry, InvalidStudy, counted
from labcore.expand import steps_within
from labcore.noise import brownian, initial
from labcore.parts import Parts
from labcore.run import run_cells
from labcore.testing import default_data, gaussian_score, quadratic
from labcore.testing.audit import final
from labcore.testing.case import Broken, Case
from labcore.testing.checks.cost import nfe
from labcore_linear import vp
from labcore_samplers import annealed_hmc, hmc, pndm, predictor_metropolis, restart

F64 = torch.float64


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 50])
def test_the_declared_cost_of_a_run_is_what_is_counted(steps: int) -> None:
    ts, x = quadratic(vp(), steps), initial([0], 2, (2,), dtype=F64)
    score = counted(gaussian_score(vp(), default_data(2), (2,)), 2)
    final(pndm(vp(), score, x, ts, brownian(ts, (2,), [0], 2, dtype=F64)), x)
    assert score.nfe == pndm.nfe(steps, {}) == 4 * min(steps, 3) + max(steps - 3, 0)


def test_the_contract_counts_every_run_against_it() -> None:
    wrong = replace(pndm, traits={**pndm.traits, "nfe_of": lambda steps: steps + 9})
    assert nfe(Case(pndm, vp(), {})).status == "passed"
    with pytest.raises(Broken, match=r"4 score evaluations in 1 steps.*declared 10; .* nfe_of="):
        nfe(Case(wrong, vp(), {}))


@given(
    start=st.integers(1, 6),
    each=st.integers(1, 4),
    first=st.integers(1, 5),
    budget=st.integers(1, 300),
    last=st.booleans(),
)
def test_the_most_steps_within_a_budget(
    start: int, each: int, first: int, budget: int, last: bool
) -> None:
    def nfe_of(steps: int) -> int:
        return each * steps + start * min(first, steps)

    entry = Entry("sampler", "s", lambda process, score, x, ts, noise: None, {"nfe_of": nfe_of})
    end = "denoise" if last else "stop"
    if nfe_of(1) + last > budget:
        with pytest.raises(InvalidStudy, match=f"at least {nfe_of(1) + last}$"):
            steps_within(entry, budget, end)
        return
    steps = steps_within(entry, budget, end)
    assert nfe_of(steps) + last <= budget < nfe_of(steps + 1) + last


def test_a_study_gives_pndm_the_steps_its_budget_pays_for() -> None:
    study = labcore.Study(
        name="budget",
        question="what does the start cost?",
        target="gaussian",
        process="vp",
        grid="log_snr",
        sampler="pndm",
        nfe=[4, 7, 12, 20],
        n=20,
        metrics=["energy"],
    )
    registry = labcore.load_registry()
    cells = study.cells(registry)
    results = [run_cells([c], study.metric_uses(registry), Parts(registry))[0] for c in cells]
    assert [(c.steps, r.nfe) for c, r in zip(cells, results, strict=True)] == [
        *((1, 4), (3, 12), (11, 20)),
    ]


def test_costs_by_options_are_those_of_whole_runs() -> None:
    assert hmc.nfe(10, hmc.bind({"leapfrog": 4})) == 52
    assert annealed_hmc.nfe(10, annealed_hmc.bind({"leapfrog": 4, "inner": 2})) == 120
    assert predictor_metropolis.nfe(10, predictor_metropolis.bind({"predictor": "heun"})) == 60


def test_a_cost_that_hangs_on_the_grid_has_no_budget() -> None:
    assert restart.nfe(10, restart.bind({})) is None
    with pytest.raises(InvalidStudy, match=r"not fixed.*steps="):
        steps_within(restart, 100, "stop")

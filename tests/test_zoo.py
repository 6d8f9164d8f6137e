"""Every planted fault is caught by the check that is there for it; its correct twin passes all."""

import os
from typing import Any

import numpy as np
import pytest
from zoo import FAINT, TWINS, ZOO
from zoo.worlds import PROCESSES, drawn

from labcore.testing import CHECKS, check_sampler


@pytest.mark.parametrize("name", ZOO)
def test_a_fault_is_caught_by_its_check(name: str, monkeypatch: Any) -> None:
    """On the first of its processes as it is, and on another with parameters at random."""
    monkeypatch.chdir(os.getcwd())
    specimen = ZOO[name]
    other = drawn(specimen.on[-1], np.random.default_rng(7), least=2)
    for seed, process in enumerate((PROCESSES[specimen.on[0]](), other)):
        made = check_sampler(
            specimen.fault, process, checks=[specimen.caught_by], on_fail="return", seed=seed
        )
        (check,) = made.checks
        assert check.status == "failed", check.found
        assert check.found
        assert check.remedy


@pytest.mark.parametrize("name", TWINS)
def test_a_correct_twin_passes_the_whole_battery(name: str) -> None:
    check_sampler(TWINS[name])


@pytest.mark.parametrize(("name", "on"), [("em", "diag"), ("heun", "cld")])
def test_a_twin_passes_on_other_structures(name: str, on: str) -> None:
    check_sampler(TWINS[name], drawn(on, np.random.default_rng(3)), seed=11)


def test_every_check_has_a_fault_that_it_is_there_for() -> None:
    assert {specimen.caught_by for specimen in ZOO.values()} == set(CHECKS)


def test_what_is_hard_to_see_is_told_apart() -> None:
    assert not FAINT.keys() & ZOO.keys()


def test_the_zoo_holds_every_structure_and_both_kinds_of_method() -> None:
    shown = {on for specimen in ZOO.values() for on in specimen.on}
    assert {"vp", "ve", "diag", "ou", "cld"} <= shown
    for kind in (True, False):
        assert sum(s.fault.traits["stochastic"] is kind for s in ZOO.values()) > 15

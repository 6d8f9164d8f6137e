"""torchdiffeq's fixed-step methods on the probability-flow ODE: contract, orders, odeint."""

from collections.abc import Callable
from math import inf

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

import labcore
from labcore import Entry, InvalidOption, Process, SamplerError
from labcore.noise import brownian, initial
from labcore.scores import counted
from labcore.testing import (
    default_data,
    gaussian_score,
    quadratic,
    vp,
    weak_order,
)
from labcore_torchdiffeq import register_samplers

FIXED = {entry.name: entry for entry in register_samplers() if not entry.traits.get("coupled")}
ADAMS: dict[str, tuple[Callable[[int], int], int]] = {
    "explicit_adams": (lambda n: n + 3 * min(n, 2), 3),
    "implicit_adams": (lambda n: 2 * n + 2 * min(n, 2), 4),
}
OPTIONS = {
    "explicit_adams": {"max_order": 4},
    "implicit_adams": {"max_order": 4, "rtol": 0.0, "atol": inf},
}


@pytest.fixture(params=list(FIXED))
def entry(request: pytest.FixtureRequest) -> Entry:
    return FIXED[request.param]


def bent(x: Tensor, t: Tensor) -> Tensor:
    return -x + 0.5 * torch.sin(2 * x) * t


def equal_steps(process: Process, n: int) -> Tensor:
    return torch.linspace(1.0, 0.1, n + 1, dtype=torch.float64)


def test_the_states_are_those_of_odeint_on_the_same_grid(entry: Entry) -> None:
    ts = quadratic(vp(), 9)
    x = initial([0], 3, (2, 3), dtype=torch.float64)
    ours = torch.stack(list(entry(vp(), bent, x, ts, brownian(ts, (2, 3), [0], 3))))
    field = labcore.velocity(vp(), bent)
    options = OPTIONS.get(entry.name, {})
    tolerances = {key: options[key] for key in ("rtol", "atol") if key in options}
    rest = {key: value for key, value in options.items() if key not in tolerances}
    theirs = odeint(field, x, ts, method=entry.name, options=rest, **tolerances)
    assert torch.allclose(ours, theirs[1:], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", list(ADAMS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adams_methods_cost_what_their_docstrings_say(name: str, dtype: torch.dtype) -> None:
    cost, _ = ADAMS[name]
    for n in (1, 2, 3, 5, 10, 100, 1000):
        ts = quadratic(vp(), n)
        metered = counted(bent, 2)
        x = initial([0], 2, (2,), dtype=dtype)
        for _ in FIXED[name](vp(), metered, x, ts, brownian(ts, (2,), [0], 2)):
            pass
        assert metered.nfe == cost(n)


@pytest.mark.parametrize("name", list(ADAMS))
def test_adams_methods_have_the_order_their_steps_allow(name: str) -> None:
    """Full on equal steps, 2 on a smooth spacing; on uneven steps 1, as declared."""
    for grid, order in ((equal_steps, ADAMS[name][1]), (quadratic, 2)):
        measured = weak_order(FIXED[name], vp(), grid, default_data(2), steps=(128, 256, 512))
        assert measured.slope == pytest.approx(order, abs=0.15)
    assert FIXED[name].traits["order"] == 1


@pytest.mark.parametrize("max_order", [3, 13, 4.5, "four"])
def test_an_adams_order_torchdiffeq_has_no_method_for_is_refused(max_order: object) -> None:
    for name in ADAMS:
        with pytest.raises(InvalidOption, match="max_order"):
            FIXED[name].bind({"max_order": max_order})


def test_a_blow_up_of_the_implicit_method_is_an_error_that_says_where() -> None:
    ts = equal_steps(vp(), 8)
    x = torch.ones(2, 2)
    with pytest.raises(SamplerError, match="no longer finite at t="):
        list(
            FIXED["implicit_adams"](
                vp(), lambda x, t: -1e20 * x, x, ts, brownian(ts, (2,), [0], 2)
            )
        )


def test_single_precision_states_see_times_in_double(entry: Entry) -> None:
    """odeint would round them to the state's precision, and so leave [t_eps, T]."""
    seen: list[Tensor] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return bent(x, t)

    ts = quadratic(vp(), 5)
    x = initial([0], 3, (2,))
    list(entry(vp(), watched, x, ts, brownian(ts, (2,), [0], 3)))
    assert {t.dtype for t in seen} == {torch.float64}
    assert min(map(float, seen)) >= float(ts[-1])
    assert any(float(t) == float(ts[1]) for t in seen)


def test_one_seed_gives_one_result_whatever_else_has_run(entry: Entry) -> None:
    ts = quadratic(vp(), 6)
    score = gaussian_score(vp(), default_data(2), (2,))
    x = initial([0], 4, (2,))
    runs = [list(entry(vp(), score, x, ts, brownian(ts, (2,), [0], 4)))[-1] for _ in range(2)]
    assert torch.equal(*runs)

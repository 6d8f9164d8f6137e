"""The noise rate as plain data: what a study may write, and what it means."""

import json
from typing import Any

import pytest
import torch

from labcore import InvalidOption, Study, load_registry, use
from labcore_samplers import reverse_sde, sra1, stochastic_heun
from labcore_samplers.rates import rate_of

F64 = torch.float64


def test_knots_are_joined_by_lines_and_kept_beyond_the_ends() -> None:
    rate = rate_of(((1.0, 2.0), (0.5, 0.0), (0.2, 1.0)))
    ts = torch.tensor([3.0, 1.0, 0.75, 0.5, 0.35, 0.2, 0.0], dtype=F64)
    wanted = torch.tensor([2.0, 2.0, 1.0, 0.0, 0.5, 1.0, 1.0], dtype=F64)
    torch.testing.assert_close(rate(ts), wanted)
    assert torch.equal(rate_of(0.3)(ts), torch.full_like(ts, 0.3))
    assert torch.equal(rate_of(((0.4, 0.3),))(ts), torch.full_like(ts, 0.3))


@pytest.mark.parametrize("sampler", [reverse_sde, stochastic_heun, sra1])
@pytest.mark.parametrize(
    "lam",
    [
        *(-1, float("nan"), float("inf"), "ten", None, True, {"t": 1.0}),
        *([], [[0.1]], [1.0, 2.0], [[0.1, -1.0]], [[0.1, float("nan")]]),
        [[0.1, 1.0], [0.1, 2.0]],
    ],
)
def test_what_is_no_rate_is_refused_with_what_is_one(sampler: Any, lam: Any) -> None:
    with pytest.raises(InvalidOption, match=r"lam=.*(at distinct times|boolean)"):
        sampler.bind({"lam": lam})


def test_knots_in_a_study_are_plain_data_in_one_form() -> None:
    """In any order, as lists or tuples, with whole numbers: one cell of one key."""
    ways: list[Any] = [[[0.0, 0], [1, 1.5]], ((1.0, 1.5), (0.0, 0.0))]
    keys = set()
    for lam in ways:
        study = Study(
            name="rate",
            question="how much noise, and when?",
            target="gaussian",
            process="vp",
            grid="log_snr",
            sampler=use("reverse_sde", lam=lam),
            steps=4,
            metrics=["energy"],
        )
        (cell,) = study.cells(load_registry())
        assert json.loads(json.dumps(cell.sampler.plain)) == {
            "name": "samplers:reverse_sde",
            "options": {"lam": [[1.0, 1.5], [0.0, 0.0]]},
        }
        keys.add(cell.key)
    assert len(keys) == 1

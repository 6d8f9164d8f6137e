"""Reversals: pairs of samplers that change places, and only those whose intervals say so."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import floor, frame, seeds

from labcore.errors import LabError
from labcore.stats import reversals

NOISE = np.array([-0.01, 0.005, 0.0, 0.01, -0.005])
ODE, SDE, THIRD = "samplers:heun", "samplers:ancestral", "samplers:ddim"


def rows(sampler: str, score: str, level: float, **given: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(sampler) + len(score))
    return seeds(level + rng.permutation(NOISE), sampler=sampler, score=score, **given)


def study() -> pd.DataFrame:
    """heun before ancestral on exact scores, after it on learned ones; ddim is always last."""
    return frame(
        rows(ODE, "scores:exact", 1.0),
        rows(SDE, "scores:exact", 2.0),
        rows(THIRD, "scores:exact", 3.0),
        rows(ODE, "scores:trained", 2.5),
        rows(SDE, "scores:trained", 1.5),
        rows(THIRD, "scores:trained", 3.0),
    )


def test_the_pair_that_changes_places_is_found_with_both_intervals() -> None:
    found = reversals(study())
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["a"], row["b"]) == (ODE, SDE)
    assert (row["score_base"], row["score_other"]) == ("scores:exact", "scores:trained")
    assert row["difference_base"] == pytest.approx(-1.0, abs=1e-9)
    assert row["difference_other"] == pytest.approx(1.0, abs=1e-9)
    assert row["lo_base"] < row["difference_base"] < row["hi_base"] < 0
    assert 0 < row["lo_other"] < row["difference_other"] < row["hi_other"]
    assert row["mean_a_base"] == pytest.approx(1.0)
    assert row["mean_b_other"] == pytest.approx(1.5)


def test_seen_from_the_other_score_the_winner_is_the_other() -> None:
    row = reversals(study(), base="trained").iloc[0]
    assert (row["a"], row["b"], row["score_base"]) == (SDE, ODE, "scores:trained")
    assert row["difference_base"] == pytest.approx(-1.0)
    assert row["mean_a_base"] == pytest.approx(1.5)


def test_for_metrics_where_more_is_better_the_winner_has_more() -> None:
    row = reversals(study(), better="higher").iloc[0]
    assert (row["a"], row["b"]) == (SDE, ODE)
    assert row["lo_base"] > 0 > row["hi_other"]


def test_a_difference_within_its_interval_is_no_reversal() -> None:
    table = study()
    learned = (table["score"] == "scores:trained") & (table["sampler"] == SDE)
    table.loc[learned, "value"] = 2.5 + np.array([-1.0, 1.0, -0.5, 0.5, -0.2])
    assert reversals(table).empty


def test_nothing_turns_round_below_the_noise_floor() -> None:
    below = frame(study().to_dict("records"), floor([2.8, 3.0, 3.2, 3.1, 2.9]))
    assert reversals(below).empty
    assert len(reversals(frame(study().to_dict("records"), floor([0.1, 0.11, 0.12, 0.1])))) == 1


def test_other_parts_of_the_setting_must_agree() -> None:
    table = study()
    moved = table["score"] == "scores:trained"
    table.loc[moved, "process"] = "linear:edm"
    assert reversals(table).empty


@pytest.mark.parametrize("between", ["grid", "sampler", "colour"])
def test_a_column_that_does_not_vary_is_refused(between: str) -> None:
    with pytest.raises(LabError, match=between):
        reversals(study(), between)

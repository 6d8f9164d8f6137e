"""Where the order of two samplers turns round when something else of the setting changes."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from labcore.errors import LabError
from labcore.stats.intervals import Better
from labcore.stats.pairs import compare
from labcore.stats.rows import SETTING, find

SIDE = ("mean_a", "mean_b", "difference", "lo", "hi", "pairs", "above_floor")


def reversals(
    frame: pd.DataFrame,
    between: str = "score",
    *,
    base: str | None = None,
    at: Literal["nfe", "steps"] = "nfe",
    level: float = 0.95,
    better: Better = "lower",
) -> pd.DataFrame:
    """Pairs of samplers of which one is better under ``base`` and the other under another value of
    the column ``between``, in settings that are else the same.

    Both differences a - b have Student intervals over common seeds (see `compare`) that leave zero
    out, on opposite sides, and stand above the noise floor where there is one; a is better under
    ``base`` (default: the first value in the frame). A sampler that truly ties under one of the
    values is listed wrongly in less than (1 - level)/2 of the pairs, 1 in 40 at 0.95.

    Columns: the setting but ``between``, a, b, ``between``_base, ``between``_other, and for each
    SIDE its value under base (``_base``) and other (``_other``); a row each, empty where nothing
    turns round. Raises LabError where the column has fewer than two values.
    """
    values = frame[between].dropna().unique().tolist() if between in frame else []
    values = [value for value in values if value != ""]
    if between not in SETTING or between == "sampler" or len(values) < 2:
        raise LabError(
            f"reversals: {between} has {len(values)} value(s) here; name a part of the setting, "
            f"such as score, that has two or more"
        )
    first = values[0] if base is None else find(map(str, values), base, between)
    tests = compare(frame, at=at, level=level, better=better)
    low, high = tests["lo"] > 0, tests["hi"] < 0
    a_wins = high.astype(int) - low if better == "lower" else low.astype(int) - high
    decided = tests.assign(wins=a_wins)[tests["above_floor"].fillna(True).astype(bool)]
    decided = decided[decided["wins"] != 0]
    told = ("p", "test", "p_holm", "failures", "certificate_a", "certificate_b", "wins", *SIDE)
    ends = ("t_eps",) if between in ("grid", "process", "against") else ()  # which decide it
    setting = [c for c in decided.columns if c not in (*told, *ends, between)]
    here = decided[decided[between] == first]
    there = decided[decided[between] != first]
    both = here.merge(there, on=setting, suffixes=("_base", "_other"))
    turned = both[both["wins_base"] == -both["wins_other"]]
    return _winner_first(turned)[
        [*setting, f"{between}_base", f"{between}_other"]
        + [f"{name}_{side}" for side in ("base", "other") for name in SIDE]
    ].reset_index(drop=True)


def _winner_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows turned so that a is better under base."""
    swap = rows["wins_base"] < 0
    out = rows.copy()
    out.loc[swap, ["a", "b"]] = rows.loc[swap, ["b", "a"]].to_numpy()
    for side in ("base", "other"):
        means = [f"mean_a_{side}", f"mean_b_{side}"]
        out.loc[swap, means] = rows.loc[swap, means[::-1]].to_numpy()
        out.loc[swap, f"difference_{side}"] = -rows.loc[swap, f"difference_{side}"]
        out.loc[swap, f"lo_{side}"] = -rows.loc[swap, f"hi_{side}"]
        out.loc[swap, f"hi_{side}"] = -rows.loc[swap, f"lo_{side}"]
    return out

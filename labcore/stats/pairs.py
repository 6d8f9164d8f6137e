"""Is one sampler better than another? Differences on common seeds, with honest p-values."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr

from labcore.errors import LabError
from labcore.stats.intervals import Better, floors, per_seed, t_quantile, with_floors
from labcore.stats.rows import SETTING, cells, find

MATCH = tuple(c for c in SETTING if c not in ("sampler", "steps"))
EXACT = 16  # pairs up to which all sign flips are enumerated


def sign_flip(differences: Any) -> float:
    """p = 2^-k #{signs : |sum +-d_j| >= |sum d_j|}, exact when each d_j is symmetric about 0.

    The smallest possible value is 2^(1-k): five pairs can never show p < 0.05. At most 16 pairs;
    NaN for none.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) > EXACT:
        raise LabError(f"sign_flip: {len(d)} pairs, at most {EXACT}; use the t test of paired()")
    if not len(d):
        return np.nan
    rounding = 1e-12 * np.abs(d).sum()
    return float(np.mean(np.abs(_signs(len(d)) @ d) >= abs(d.sum()) - rounding))


@lru_cache(maxsize=EXACT)
def _signs(k: int) -> np.ndarray:
    """All signs of k differences, the first one +: the others mirror them. (2^(k-1), k)"""
    bits = np.arange(2 ** (k - 1))[:, None] >> np.arange(k - 1) & 1
    return np.hstack([np.ones((len(bits), 1)), 1.0 - 2.0 * bits])


def holm(p: Any) -> np.ndarray:
    """p-values corrected for their number (Holm 1979), valid under any dependence.

    Of m in increasing order, the i-th becomes max_{j<=i} min(1, (m-j+1) p_j). NaN stays NaN and
    is not counted.
    """
    p = np.asarray(p, dtype=float)
    out = np.full_like(p, np.nan)
    rank = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    scaled = p[rank] * np.arange(len(rank), 0, -1)
    out[rank] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


def paired(
    frame: pd.DataFrame,
    a: str,
    b: str,
    *,
    at: Literal["nfe", "steps"] = "nfe",
    level: float = 0.95,
    better: Better = "lower",
) -> pd.DataFrame:
    """Sampler a minus sampler b in every setting both have, at equal `at`, on common seeds.

    Columns: the setting, a, b, mean_a, mean_b, difference, lo, hi (Student interval), pairs,
    certificate_a, certificate_b (where the frame has certificates: the worst said of each),
    failures (common seeds lost because either failed), p, test ("sign flip" up to 16 pairs, else
    "t"), p_holm (over the rows returned), above_floor (whether either mean is resolved: where
    neither is, the difference means nothing however small its p; missing without floor rows).
    """
    seeds, keys = _draws(frame, at)
    known = seeds["sampler"].unique()
    a, b = find(known, a, "sampler"), find(known, b, "sampler")
    tests = _tests(seeds, keys, [(a, b)], level)
    if not tests:
        raise LabError(f"paired: {a} and {b} share no seed at equal {at}; compare at other steps")
    return _table(tests, keys, floors(frame, level=level), better).assign(**_said(seeds, tests))


def compare(
    frame: pd.DataFrame,
    samplers: Sequence[str] | None = None,
    *,
    at: Literal["nfe", "steps"] = "nfe",
    level: float = 0.95,
    better: Better = "lower",
) -> pd.DataFrame:
    """`paired` for all pairs of samplers, p_holm over all rows.

    Two samplers with no seed in common at equal `at` have no row.
    """
    seeds, keys = _draws(frame, at)
    known = seeds["sampler"].unique().tolist()
    chosen = known if samplers is None else [find(known, name, "sampler") for name in samplers]
    tests = _tests(seeds, keys, list(combinations(chosen, 2)), level)
    if not tests:
        raise LabError(f"compare: no two samplers share a seed at equal {at}; align their budgets")
    return _table(tests, keys, floors(frame, level=level), better).assign(**_said(seeds, tests))


def _said(seeds: pd.DataFrame, tests: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What is said of the certificate of each side of each test, at its worst."""
    if "certificate" not in seeds:
        return {}
    worst = seeds.groupby("sampler")["certificate"].max().astype(str).to_dict()
    return {f"certificate_{side}": [worst[test[side]] for test in tests] for side in "ab"}


def _draws(frame: pd.DataFrame, at: str) -> tuple[pd.DataFrame, list[str]]:
    """One row per setting at equal `at`, sampler and seed, numbered by setting."""
    rows = cells(frame)
    by = [c for c in (*MATCH, at) if c in rows]
    seeds, keys = per_seed(rows, ["sampler", *by])
    keys.remove("sampler")
    setting = seeds.groupby(keys, dropna=False, sort=False, observed=True).ngroup()
    return seeds.assign(setting=setting), keys


def _tests(
    seeds: pd.DataFrame, keys: list[str], pairs: list[tuple[str, str]], level: float
) -> list[dict[str, Any]]:
    """One test per setting and pair with a seed in common, failed or not."""
    ran = seeds.assign(ran=1.0).pivot(index=["setting", "seed"], columns="sampler")
    settings = seeds.drop_duplicates("setting").sort_values("setting")[keys].to_dict("records")
    at = ran.index.get_level_values("setting").to_numpy()
    edges = np.flatnonzero(np.diff(at, prepend=-1, append=-1))
    tests: list[dict[str, Any]] = []
    for a, b in pairs:
        values = ran["value"][[a, b]].to_numpy()
        both = ran["ran"][a].notna().to_numpy() & ran["ran"][b].notna().to_numpy()
        for start, stop in pairwise(edges):
            rows = values[start:stop][both[start:stop]]
            if len(rows):
                tests.append({**settings[at[start]], "a": a, "b": b, **_test(rows, level)})
    return tests


def _test(values: np.ndarray, level: float) -> dict[str, Any]:
    """Statistics of (seeds, 2) values of which a failed one is NaN."""
    pairs = values[~np.isnan(values).any(axis=1)]
    d, k = pairs[:, 0] - pairs[:, 1], len(pairs)
    mean_a, mean_b, mean = (*pairs.mean(axis=0), d.mean()) if k else (np.nan, np.nan, np.nan)
    error = d.std(ddof=1) / np.sqrt(k) if k > 1 else np.nan
    half = float(t_quantile(level, k - 1)) * error
    p, test = (sign_flip(d), "sign flip") if k <= EXACT else (_t_test(mean, error, k), "t")
    return {
        **{"mean_a": mean_a, "mean_b": mean_b, "difference": mean},
        **{"lo": mean - half, "hi": mean + half, "pairs": k, "failures": len(values) - k},
        **{"p": p, "test": test},
    }


def _t_test(mean: float, error: float, k: int) -> float:
    if error == 0:
        return float(mean == 0)
    return float(2 * stdtr(k - 1, -abs(mean / error)))


def _table(
    tests: list[dict[str, Any]], keys: list[str], floor: pd.DataFrame, better: Better
) -> pd.DataFrame:
    table = pd.DataFrame(tests).drop(columns="_nfe", errors="ignore")
    sides = [
        with_floors(table.rename(columns={column: "mean"}), floor, better)["resolved"]
        for column in ("mean_a", "mean_b")
    ]
    return table.assign(p_holm=holm(table["p"]), above_floor=sides[0] | sides[1])

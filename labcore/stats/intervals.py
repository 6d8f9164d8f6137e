"""Means with Student intervals over seeds, and the noise floors to hold them against."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from labcore.errors import LabError
from labcore.stats.rows import FLOOR, SETTING, cells, tidy

Better = Literal["lower", "higher"]


def t_quantile(level: float, df: Any) -> np.ndarray:
    """t with P(|T_df| <= t) = level; NaN without degrees of freedom."""
    if not 0 < level < 1:
        raise LabError(f"level {level!r}: not a probability; give one between 0 and 1, as 0.95")
    df = np.asarray(df, dtype=float)
    return np.where(df > 0, stdtrit(np.maximum(df, 1.0), (1 + level) / 2), np.nan)


def summarise(
    frame: pd.DataFrame, by: Sequence[str] = SETTING, *, level: float = 0.95
) -> pd.DataFrame:
    """One row per setting: mean, lo, hi, sd, count (seeds), failures (cells), nfe, seconds.

    And ``certificate``, where the frame has it: the worst that is said of the setting's rows.
    lo, hi = mean +- t_{count-1} sd / sqrt(count): NaN for a single seed. `nfe` is the mean and
    `seconds` the median over seeds. Cells of one group that share a seed share their noise: they
    are averaged first and count as one.
    """
    return summary_of(*per_seed(cells(frame), by), level)


def per_seed(rows: pd.DataFrame, by: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row per group and seed, and the columns that make the group."""
    unknown = [c for c in by if c not in rows]
    if unknown and tuple(by) != SETTING:
        raise LabError(f"by: no column {', '.join(unknown)}; there are {', '.join(rows.columns)}")
    keys = [c for c in by if c in rows]
    if "steps" in keys and "nfe" not in keys:  # a budget in NFE has no steps to tell it by
        rows, keys = rows.assign(_nfe=rows["nfe"].where(rows["steps"].isna())), [*keys, "_nfe"]
    rows = rows.assign(failures=~rows["ok"], at_nfe=rows["nfe"])
    grouped = rows.groupby([*keys, "seed"], dropna=False, sort=False, observed=True)
    how = {"value": "mean", "failures": "sum", "at_nfe": "mean", "seconds": "mean"}
    how |= {"certificate": "max"} if "certificate" in rows else {}
    return grouped.agg(how).reset_index(), keys


def summary_of(seeds: pd.DataFrame, keys: list[str], level: float) -> pd.DataFrame:
    """The rows of `summarise` from those of `per_seed`, in order of first appearance."""
    worst = {"certificate": ("certificate", "max")} if "certificate" in seeds else {}
    out = (
        seeds.groupby(keys, dropna=False, sort=False, observed=True)
        .agg(
            mean=("value", "mean"),
            sd=("value", "std"),
            count=("value", "count"),
            failures=("failures", "sum"),
            at_nfe=("at_nfe", "mean"),
            seconds=("seconds", "median"),
            **worst,
        )
        .reset_index()
    )
    half = t_quantile(level, out["count"] - 1) * out["sd"] / np.sqrt(out["count"].clip(lower=1))
    out = out.assign(lo=out["mean"] - half, hi=out["mean"] + half, nfe=out["at_nfe"])
    return out.drop(columns=["at_nfe", *(c for c in keys if c == "_nfe")])


def floors(frame: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """One row per (target, n, against, t_eps, metric, process): mean, sd, lo, hi, count, failures.

    `process` is "" unless the floor is that of one process (against its law at t_eps). lo, hi
    are where one more repeat falls with probability `level`: sample quantiles at ranks p (k+1),
    or, of k repeats too few to have such ranks, mean +- t_{k-1} sd sqrt(1 + 1/k).
    """
    rows = tidy(frame, "floor")
    if "key" in rows:  # the floor of two studies
        rows = rows.drop_duplicates(["key", "metric", "seed"])
    if "process" not in rows:
        rows["process"] = ""
    rows["process"] = rows["process"].fillna("")
    keys = [c for c in FLOOR if c in rows] + ["process"]
    rows = _telling(rows, [c for c in keys if c != "t_eps"])
    bands = [
        {**dict(zip(keys, key, strict=True)), **_band(group["value"], level)}
        for key, group in rows.groupby(keys, dropna=False, sort=False)
    ]
    return pd.DataFrame(bands, columns=[*keys, "mean", "sd", "lo", "hi", "count", "failures"])


def _telling(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Without those of old that do not tell their t_eps, where others of their kind do."""
    if "t_eps" not in rows or rows.empty:
        return rows
    tells = rows["t_eps"].notna()
    others = tells.groupby([rows[c] for c in keys], dropna=False).transform("any")
    return rows[tells | ~others.astype(bool)]


def _band(repeats: pd.Series, level: float) -> dict[str, float]:
    values = repeats.dropna().to_numpy()
    k, tail = len(values), (1 - level) / 2
    mean = values.mean() if k else np.nan
    sd = values.std(ddof=1) if k > 1 else np.nan
    half = float(t_quantile(level, k - 1)) * sd * np.sqrt(1 + 1 / max(k, 1))
    lo, hi = mean - half, mean + half
    if tail * (k + 1) >= 1:
        lo, hi = np.quantile(values, [tail, 1 - tail], method="weibull")
    return {"mean": mean, "sd": sd, "lo": lo, "hi": hi, "count": k, "failures": len(repeats) - k}


def resolved(value: Any, floor: Mapping[str, Any] | pd.DataFrame, better: Better = "lower") -> Any:
    """Whether a value is worse than exact samples of the same size give by chance.

    `floor` has lo and hi (a row of `floors`, or columns aligned with `value`). What is not
    resolved is indistinguishable from exact, and so are any two such values. NaN is not resolved.
    """
    return value > floor["hi"] if better == "lower" else value < floor["lo"]


def with_floors(
    summary: pd.DataFrame, floor: pd.DataFrame, better: Better = "lower", level: float = 0.95
) -> pd.DataFrame:
    """The summary with floor_mean, floor_lo, floor_hi and `resolved` (missing without a floor).

    A mean over k = `count` seeds has the band of the mean of k repeats, of R that were measured:
    mean +- t_{R-1} sd sqrt(1/k + 1/R). One seed has the floor's own band.

    The floor of the setting's own process goes before the one that all processes share; where
    the summary's columns leave several floors possible, none is taken.
    """
    on = [c for c in FLOOR if c in floor and c in summary and summary[c].notna().any()]
    added = ["floor_mean", "floor_lo", "floor_hi", "floor_sd", "floor_count"]
    table = floor.rename(columns={c: f"floor_{c}" for c in ("mean", "lo", "hi", "sd", "count")})
    out = summary.assign(**dict.fromkeys(added, np.nan)).reset_index(drop=True)
    asked = summary
    if "t_eps" in on and "against" in on:  # p_0 is the same law wherever the grid ends
        asked = summary.assign(t_eps=summary["t_eps"].where(summary["against"] == "t_eps"))
    for owned in (False, True):
        keys = [*on, "process"] if owned else on
        rows = table[(table["process"] != "") == owned].drop_duplicates(keys or None, keep=False)
        if rows.empty or not keys or any(c not in summary for c in keys):
            continue
        found = asked[keys].merge(rows[[*keys, *added]], on=keys, how="left")
        out[added] = found[added].where(found[added].notna(), out[added])
    out = _of_means(out, level).drop(columns=["floor_sd", "floor_count"])
    band = {"lo": out["floor_lo"], "hi": out["floor_hi"]}
    known = out["mean"].notna() & out["floor_hi"].notna()
    out["resolved"] = resolved(out["mean"], band, better).astype("boolean").where(known)
    return out


def _of_means(out: pd.DataFrame, level: float) -> pd.DataFrame:
    """The bands narrowed to those of means over `count` seeds."""
    if "count" not in out:
        return out
    k, repeats = out["count"].astype(float), out["floor_count"].astype(float)
    df = repeats.sub(1).fillna(1).clip(lower=1)
    half = t_quantile(level, df) * out["floor_sd"] * np.sqrt(1 / k.clip(lower=1) + 1 / repeats)
    narrow = (k > 1) & half.notna()
    lo, hi = out["floor_mean"] - half, out["floor_mean"] + half
    return out.assign(
        floor_lo=lo.where(narrow, out["floor_lo"]), floor_hi=hi.where(narrow, out["floor_hi"])
    )

"""What a row of the frame stands for: one value of a cell, or the failure of one."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from labcore.certificates import severity
from labcore.errors import LabError

SETTING = (
    *("target", "process", "score", "grid", "sampler", "steps", "n", "start", "end"),
    *("against", "dtype", "t_eps", "metric"),
)
FLOOR = ("target", "n", "against", "t_eps", "metric")
"""Columns that tell settings and floors apart, as far as the frame has them."""

NUMBERS = ("steps", "nfe", "n", "value", "seconds")


def bare(label: str) -> str:
    """`name.sub` of a label `plugin:name(option=..).sub`."""
    plain = re.sub(r"\(.*\)", "", label, flags=re.DOTALL)
    return plain.partition(":")[2] or plain


def find(labels: Iterable[str], name: str, kind: str) -> str:
    """The label that `name` means: itself, or the only one with that short name."""
    known = sorted(set(labels))
    matches = [name] if name in known else [label for label in known if bare(label) == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LabError(f"{kind} {name!r}: may be {' or '.join(matches)}; give the whole label")
    some = ", ".join(known[:12]) or "none"
    raise LabError(f"{kind} {name!r}: not in these results; there are {some}")


def tidy(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind with numeric columns and a boolean column `ok`.

    A value counts when its status is "ok" and it is finite; any other is NaN.
    """
    missing = [c for c in ("metric", "value", "status", "seed") if c not in frame]
    if missing:
        raise LabError(f"frame: no column {', '.join(missing)}; pass the rows of a study")
    kinds = frame["kind"] if "kind" in frame else pd.Series("cell", index=frame.index)
    rows = frame[kinds == kind].reset_index(drop=True)
    for column in NUMBERS:
        given = rows[column] if column in rows else pd.Series(np.nan, index=rows.index)
        rows[column] = pd.to_numeric(given, errors="coerce").astype(float)
    rows["ok"] = (rows["status"] == "ok") & np.isfinite(rows["value"])
    rows["value"] = rows["value"].where(rows["ok"])
    rows["metric"] = rows["metric"].astype(object).where(rows["metric"].notna(), "").astype(str)
    return rows


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The tidy rows of sampled cells, each (cell, metric) once.

    A failed row without a metric, or with the label of a metric of several values, stands for
    each of these. The NFE of a failed cell is what its sampler takes for those steps.
    """
    rows = _spread(tidy(frame, "cell"))
    if "key" in rows and not rows.empty:  # a cell of two studies, or one that ran again
        last = rows.sort_values("ok", kind="stable").drop_duplicates(
            ["key", "metric"], keep="last"
        )
        rows = last.sort_index()
    rows = rows.reset_index(drop=True)
    rows["nfe"] = _planned_nfe(rows)
    if "certificate" in rows:
        rows["certificate"] = graded(rows["certificate"])
    return rows


def graded(certificates: pd.Series) -> pd.Series:
    """Texts of labcore.certificates.told as categories from the best to the worst; "" is worse."""
    texts = certificates.astype(object).where(certificates.notna(), "").replace("", "uncertified")
    grades = sorted(map(str, texts.unique()), key=severity)
    return texts.astype(pd.CategoricalDtype(grades, ordered=True))


def _spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Failed rows repeated for each metric they stand for within their study."""
    study = rows["study"].fillna("") if "study" in rows else pd.Series("", index=rows.index)
    known = rows["metric"][rows["ok"]].groupby(study[rows["ok"]]).unique().to_dict()

    def stands_for(study: str, metric: str) -> list[str]:
        names = known.get(study, [])
        subs = [m for m in names if not metric or m.startswith(metric + ".")]
        return [metric] if metric in names else subs or [metric]

    failed = rows[~rows["ok"]]
    metrics = [stands_for(*row) for row in zip(study[failed.index], failed["metric"], strict=True)]
    copies = failed.index.repeat([len(names) for names in metrics])
    spread = failed.loc[copies].assign(metric=[name for names in metrics for name in names])
    return pd.concat([rows[rows["ok"]], spread]).sort_index(kind="stable").reset_index(drop=True)


def _planned_nfe(rows: pd.DataFrame) -> pd.Series:
    """Counted NFE; for a failed cell, which may have stopped anywhere, that of its siblings."""
    if rows["ok"].all() or "sampler" not in rows:
        return rows["nfe"]
    counted = rows["nfe"].where(rows["ok"])
    sibling = counted.groupby([rows["sampler"], rows["steps"]]).transform("median")
    rate = (counted / rows["steps"]).groupby(rows["sampler"]).transform("median")
    planned = sibling.fillna((rate * rows["steps"]).round())
    return counted.fillna(planned).fillna(rows["nfe"]).fillna(rows["steps"])

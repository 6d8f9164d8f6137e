"""Trainings that differ in their seed alone: repeats of one score, as seeds of cells are."""

import re

import pandas as pd

AT = re.compile(r"^(?P<of>.*)\.(?P<part>(?:[a-z]+ )?t)=(?P<t>[-+.e\d]+)$")
"""A metric's value at one time: ``metrics:fisher.t=0.01``, or of a part, ``.ratio t=0.01``."""

_SEED = re.compile(r",\s*seed=\d+\b|\bseed=\d+\b,?\s*")


def over_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the seed of training in place of the cell's, where scores have several.

    Labels lose their ``seed=``, so that intervals are over trainings; a training with its default
    seed, 0, which labels leave out, is among them. Cells of one training then share a seed and
    are averaged. Scores of one training keep the cells' seeds.
    """
    if "score" not in frame or "seed" not in frame:
        return frame
    label = frame["score"].astype(str)
    bare = label.str.replace(_SEED, "", regex=True).str.replace("()", "", regex=False)
    own = label.str.extract(r"\bseed=(\d+)\b", expand=False).astype(float).fillna(0).astype(int)
    several = label.groupby(bare).transform("nunique") > 1
    return frame.assign(score=label.where(~several, bare), seed=frame["seed"].where(~several, own))


def at_times(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame's rows of values at one time, with columns ``of``, ``part`` and ``t``."""
    found = frame["metric"].astype(str).str.extract(AT)
    rows = frame.assign(of=found["of"], part=found["part"], t=found["t"].astype(float))
    return rows[rows["t"].notna()]

"""How a figure says whether its samplers are certified: a mark at the label, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from labcore.certificates import MARKS, severity, state_of
from labcore.plots.style import escape

States = Mapping[Any, str]
"""What the certificates say of each sampler, by its label (labcore.certificates.told)."""


def states_of(table: pd.DataFrame) -> States:
    """The worst that is said of each sampler in a table; empty where it says nothing."""
    if "certificate" not in table or "sampler" not in table:
        return {}
    said = table[["sampler", "certificate"]].drop_duplicates()
    of: dict[Any, list[str]] = {}
    for sampler, text in said.itertuples(index=False):
        of.setdefault(sampler, []).append(str(text))
    return {sampler: max(texts, key=severity) for sampler, texts in of.items()}


def marked(name: str, text: str | None) -> str:
    """A sampler's name with the mark of what is said of it, which no line break parts from it."""
    mark = "" if text is None else MARKS[state_of(text)]
    return f"{name}\N{NO-BREAK SPACE}{mark}" if mark else name


def caption(states: States, names: Mapping[Any, str], shown: bool = True) -> str:
    """What the marks mean, and that what has none is certified; "" where nothing is known.

    Samplers are named where one mark means several things, or where no label is ``shown``.
    """
    texts: dict[str, list[str]] = {}
    for sampler in sorted(states, key=lambda s: severity(states[s])):
        texts.setdefault(states[sampler], []).append(names[sampler])
    meanings = [MARKS[state_of(text)] for text in texts]
    lines = [
        _meaning(text, who, not shown or meanings.count(MARKS[state_of(text)]) > 1)
        for text, who in texts.items()
        if MARKS[state_of(text)]
    ]
    if not lines:
        return "all samplers certified" if states else ""
    return "; ".join([*lines, *["no mark: certified"] * ("" in meanings)])


def _meaning(text: str, samplers: Sequence[str], named: bool) -> str:
    who = f"{', '.join(samplers)}: " if named else ""
    return f"{MARKS[state_of(text)]}\N{NO-BREAK SPACE}{who}{escape(text)}"

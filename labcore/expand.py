"""From the axes of a study to its cells, with everything that is wrong said at once."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch

from labcore.entry import Entry
from labcore.errors import InvalidStudy, LabError
from labcore.parts import Parts
from labcore.registry import Registry
from labcore.study import CHOICES, PARTS, Cell, Study, Use, as_use
from labcore.text import one_line, reason_of

MOST_STEPS = 1_000_000
MOST_NAME = 60


def expand(study: Study, registry: Registry) -> list[Cell]:
    """The cells of ``study``; InvalidStudy names every wrong axis, option and combination."""
    _refuse_too_many(study)
    wrong = [*_wrong_names(study), *_wrong_axes(study)]
    uses, unresolved = _resolve(study, registry)
    wrong += unresolved
    if not wrong:
        cells, wrong = _product(study, uses, registry)
    if not wrong:
        wrong = [*_misfits(cells, Parts(registry)), *_metric_misfits(study, cells, registry)]
    if wrong:
        raise InvalidStudy(_report(study, wrong))
    return cells


def _refuse_too_many(study: Study) -> None:
    """Before anything walks along the axes, which could be too long for that."""
    if not _whole(study.limit, 1):
        raise InvalidStudy(f"{_called(study)}: limit={study.limit!r}: give a count, as 1000")
    count = math.prod(len(study.axis(name)) for name in (*PARTS, "seed", "n", *CHOICES))
    count *= len(study.axis("steps")) + len(study.axis("nfe"))
    if count > study.limit:
        raise InvalidStudy(
            f"{_called(study)}: it has {count:,} cells, the limit is {study.limit:,}; shorten "
            "an axis or set limit="
        )


def _called(study: Study) -> str:
    return f"study {one_line(repr(study.name), 80)}"


def _report(study: Study, wrong: list[str]) -> str:
    shown = list(dict.fromkeys(wrong))
    more = [f"... and {len(shown) - 20} more"] if len(shown) > 20 else []
    if len(shown) == 1:
        return f"{_called(study)}: {shown[0]}"
    lines = "\n".join(f"  - {line}" for line in [*shown[:20], *more])
    return f"{_called(study)}: {len(shown)} things to mend\n{lines}"


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _wrong_names(study: Study) -> Iterator[str]:
    name = study.name
    if not isinstance(name, str) or not name.strip():
        yield f"name={name!r}: give the study a name"
    elif not name.isprintable() or {*"/\\"} & {*name} or len(name) > MOST_NAME:
        yield (
            f"name={name[:40]!r}: it names a file; use at most {MOST_NAME} characters, none of "
            "them a slash or a control character"
        )
    if study.where is not None and not callable(study.where):
        yield f"where={study.where!r}: give a function of a cell that says whether to keep it"


def _wrong_axes(study: Study) -> Iterator[str]:
    for name in (*PARTS, "seed", "n", *CHOICES, "metrics"):
        if not study.axis(name):
            yield f"{name}: the axis is empty; give it at least one value"
    if not study.axis("steps") and not study.axis("nfe"):
        yield "steps, nfe: both are empty; give step counts or NFE budgets"
    for name, least in (("steps", 1), ("nfe", 1), ("n", 1), ("seed", 0)):
        values = study.axis(name)
        for value in values:
            if not _whole(value, least) or (name in ("steps", "nfe") and value > MOST_STEPS):
                most = f" and at most {MOST_STEPS:,}" if name in ("steps", "nfe") else ""
                yield f"{name}={value!r}: it must be a whole number of at least {least}{most}"
        repeated = [v for v, times in Counter(map(str, values)).items() if times > 1]
        if repeated:
            yield f"{name}: {', '.join(repeated)} stands there more than once; drop the repeats"
    for name, words in CHOICES.items():
        for value in study.axis(name):
            if value not in words:
                yield f"{name}={value!r}: it must be one of {', '.join(words)}"
    if not _whole(study.floor_repeats, 2):
        yield f"floor_repeats={study.floor_repeats!r}: it must be a whole number of at least 2"


def _resolve(study: Study, registry: Registry) -> tuple[dict[str, list[Use]], list[str]]:
    uses: dict[str, list[Use]] = {}
    wrong: list[str] = []
    for kind in (*PARTS, "metric"):
        axis = "metrics" if kind == "metric" else kind
        for value in study.axis(axis):
            try:
                resolved = as_use(value).resolve(kind, registry)
            except LabError as error:
                wrong.append(str(error))
                continue
            if resolved in uses.setdefault(kind, []):
                wrong.append(f"{axis}: {resolved} stands there more than once; drop the repeats")
            uses[kind].append(resolved)
    return uses, wrong


def _product(
    study: Study, uses: dict[str, list[Use]], registry: Registry
) -> tuple[list[Cell], list[str]]:
    cells: dict[str, Cell] = {}
    wrong: list[str] = []
    budgets = [("steps", b) for b in study.axis("steps")] + [("nfe", b) for b in study.axis("nfe")]
    plain = [study.axis(name) for name in ("n", "seed", *CHOICES)]
    for combination in product(*(uses[kind] for kind in PARTS), budgets, *plain):
        target, process, score, grid, sampler = combination[:5]
        (kind, budget), n, seed, start, end, against, dtype = combination[5:]
        entry, cost = registry.get("sampler", sampler.name), _cost(registry, score)
        options = dict(sampler.options)
        try:
            steps = budget if kind == "steps" else steps_within(entry, budget, end, cost, options)
        except InvalidStudy as error:
            wrong.append(str(error))
            continue
        parts = (target, process, score, grid, sampler)
        cell = Cell(*parts, steps, n, seed, start, end, against, dtype)
        if _wanted(study, cell):
            cells.setdefault(cell.key, cell)
    if not cells and not wrong:
        wrong.append("where= keeps no cell; loosen it")
    return list(cells.values()), wrong


def _wanted(study: Study, cell: Cell) -> bool:
    try:
        return study.where is None or bool(study.where(cell))
    except Exception as error:
        raise InvalidStudy(
            f"{_called(study)}: where= raised {reason_of(error)} on {cell}; mend it"
        ) from error


def _cost(registry: Registry, score: Use) -> int:
    return int(registry.get("score", score.name).traits.get("cost", 1))


def steps_within(
    sampler: Entry, nfe: int, end: str, cost: int = 1, options: Mapping[str, Any] | None = None
) -> int:
    """The most steps whose whole cost, that of the end rule included, is within ``nfe``.

    ``cost`` is what one call of the score counts for.
    """
    bound = options or sampler.bind({})
    least = sampler.nfe(1, bound)
    if least is None:
        raise InvalidStudy(
            f"sampler '{sampler.name}': its cost a step is not fixed, so it has no step count at "
            "a given NFE; give it steps= (output times) and sweep its tolerance"
        )
    last = end != "stop"
    spare = nfe // cost - last
    if spare < least:
        raise InvalidStudy(
            f"sampler '{sampler.name}': nfe={nfe} does not pay for one step ({least * cost} with "
            f"its start); raise the budget to at least {(least + last) * cost}"
        )
    return bisect_right(range(1, spare + 1), spare, key=lambda n: sampler.nfe(n, bound) or 0)


def _misfits(cells: list[Cell], parts: Parts) -> list[str]:
    """Combinations that cannot run: needs not met, events that differ, grids that fail."""
    wrong: dict[str, None] = {}
    seen: set[Any] = set()
    for cell in cells:
        for check in (_needs, _event, _size, _grid, _ends):
            combination = (check, *_relevant(check, cell))
            if combination in seen:
                continue
            seen.add(combination)
            try:
                problem = check(cell, parts)
            except LabError as error:
                problem = str(error)
            if problem:
                wrong[problem] = None
    return list(wrong)


def _relevant(check: Any, cell: Cell) -> tuple[Any, ...]:
    by_check: dict[Any, tuple[Any, ...]] = {
        _needs: (cell.target, cell.process, cell.score, cell.sampler),
        _event: (cell.target, cell.process),
        _size: (cell.target, cell.process, cell.n, cell.dtype),
        _grid: (cell.process, cell.grid, cell.steps),
        _ends: (cell.end, cell.against),
    }
    return by_check[check]


def _needs(cell: Cell, parts: Parts) -> str:
    entries = {k: parts.registry.get(k, getattr(cell, k).name) for k in PARTS if k != "grid"}
    gives = frozenset[str]().union(*(e.gives for e in entries.values()))
    for kind, entry in entries.items():
        missing = entry.needs - gives
        if missing:
            return (
                f"{kind} '{entry.name}': it needs {', '.join(sorted(missing))}, which none of "
                f"{cell.target}, {cell.process}, {cell.score} gives; leave the combination out "
                "with where="
            )
    return ""


def _event(cell: Cell, parts: Parts) -> str:
    parts.process(cell.process).event(parts.target(cell.target).event)
    return ""


def _size(cell: Cell, parts: Parts) -> str:
    event = parts.process(cell.process).event(parts.target(cell.target).event)
    states = 2 * cell.n * math.prod(event) * torch.finfo(getattr(torch, cell.dtype)).bits // 8
    if states <= _memory():
        return ""
    return (
        f"n={cell.n:,}: two states of {cell.n:,} x {tuple(event)} take {states / 1e9:,.0f} GB, "
        f"and this machine has {_memory() / 1e9:,.0f}; use fewer samples and more seeds"
    )


def _memory() -> float:
    """Bytes; infinite where the system does not say. A container may have less."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return float(pages * os.sysconf("SC_PAGE_SIZE")) if pages > 0 else math.inf
    except (AttributeError, ValueError, OSError):
        return math.inf


def _grid(cell: Cell, parts: Parts) -> str:
    parts.times(cell)
    return ""


def _ends(cell: Cell, parts: Parts) -> str:
    if cell.end == "stop" or cell.against == "data":
        return ""
    return (
        f"end='{cell.end}' with against='{cell.against}': its samples are at 0, not at t_eps; "
        "compare them with against='data', or leave the combination out with where="
    )


def _metric_misfits(study: Study, cells: list[Cell], registry: Registry) -> Iterator[str]:
    for metric in study.metric_uses(registry):
        entry = registry.get("metric", metric.name)
        for target in dict.fromkeys(cell.target for cell in cells):
            missing = entry.needs - registry.get("target", target.name).gives
            if missing:
                yield (
                    f"metric '{metric}': it needs {', '.join(sorted(missing))}, which target "
                    f"'{target}' does not give; run that target in a study of its own"
                )
        least = entry.traits.get("minimum", 1)
        for n in {cell.n for cell in cells if cell.n < least}:
            yield f"metric '{metric}': it needs n of at least {least}, the study has n={n}"

"""Interleaved timing and tables of ratios, for every script in this folder.

Seconds depend on the machine and on what else it is doing; the ratio of two callables timed in
turn, round after round, does not. So each round runs every callable in a turn of its own, in a
shuffled order, and a ratio is the median over rounds of the ratios within a round. The first half
of a turn is not timed: after others' work all that a call touches is out of the caches.
"""

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

Rounds = dict[str, list[float]]

_SHORTEST = 20e-3  # calls faster than this are repeated until they fill it


def rounds(
    work: Mapping[str, Callable[[], object]],
    repeats: int = 15,
    seconds: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Seconds per call of each callable in each round: {name: [round 1, round 2, ...]}.

    At most `repeats` rounds, and no new one after `seconds` have passed (three are always run,
    after a warm-up). Work of one thread may be timed with ``time.thread_time``, which does not
    count the time that other processes had the core.
    """
    loops = {name: _loops(fn, clock) for name, fn in work.items()}
    times: Rounds = {name: [] for name in work}
    shuffle, start = random.Random(0).shuffle, time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for done in range(repeats):
            if done >= 3 and time.perf_counter() - start > seconds:
                break
            order = list(work)
            shuffle(order)
            for name in order:
                _once(work[name], loops[name], clock)
                times[name].append(_once(work[name], loops[name], clock))
    finally:
        gc.enable()
    return times


def interleaved(
    work: Mapping[str, Callable[[], object]], repeats: int = 15, seconds: float = 20.0
) -> dict[str, float]:
    """Median seconds per call of each callable, timed in turn; see `rounds`."""
    return medians(rounds(work, repeats, seconds))


def medians(times: Rounds) -> dict[str, float]:
    """{name: median seconds per call}."""
    return {name: statistics.median(column) for name, column in times.items()}


def steadied(times: Rounds) -> Rounds:
    """Each round's times over how slow that round was: the median of its times over the usual."""
    middle, n = medians(times), len(next(iter(times.values())))
    slow = [statistics.median(c[i] / middle[name] for name, c in times.items()) for i in range(n)]
    return {
        name: [t / by for t, by in zip(column, slow, strict=True)]
        for name, column in times.items()
    }


Figure = Callable[[Mapping[str, float]], float]
"""Of the median times."""


def typical(figure: Figure, parts: Sequence[Rounds]) -> float:
    """The median over processes, each with rounds of its own, of a figure of their medians."""
    return statistics.median(figure(medians(part)) for part in parts)


def interval(figure: Figure, parts: Sequence[Rounds]) -> tuple[float, float]:
    """The middle 95 % of ``typical``, processes drawn with replacement; of one, its rounds."""
    draw = random.Random(0).choices
    if len(parts) > 1:
        each = [figure(medians(part)) for part in parts]
        drawn = [statistics.median(draw(each, k=len(each))) for _ in range(400)]
    else:
        (times,) = parts
        n = len(next(iter(times.values())))
        drawn = []
        for _ in range(400):
            at = draw(range(n), k=n)
            drawn.append(figure(medians({name: [c[i] for i in at] for name, c in times.items()})))
    return sorted(drawn)[10], sorted(drawn)[-11]


def ratios(times: Rounds, floor: str) -> dict[str, float]:
    """{name: median over rounds of its time over the floor's in the same round}."""
    return {
        name: statistics.median(a / b for a, b in zip(column, times[floor], strict=True))
        for name, column in times.items()
    }


def row(
    work: str, who: str, ratio: float, goal: float | None = None, *, least: bool = False
) -> dict[str, object]:
    """One line of a table; `goal` is the largest ratio allowed, or the smallest when `least`."""
    if goal is None:
        return {"work": work, "who": who, "ratio": ratio, "goal": "", "met": ""}
    met = ratio >= goal if least else ratio <= goal
    return {
        "work": work,
        "who": who,
        "ratio": ratio,
        "goal": f"{'>=' if least else '<='} {goal:g}",
        "met": "yes" if met else "NO",
    }


def table(rows: Iterable[Mapping[str, object]]) -> bool:
    """Print the rows in aligned columns; True when no row missed its goal (`met` is "NO")."""
    lines = list(rows)
    if not lines:
        return True
    columns = list(dict.fromkeys(key for line in lines for key in line))
    cells = [[_text(line.get(key, "")) for key in columns] for line in lines]
    widths = [max(len(name), *(len(c[i]) for c in cells)) for i, name in enumerate(columns)]
    for line in [columns, ["-" * w for w in widths], *cells]:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    sys.stdout.flush()
    return not any(line.get("met") == "NO" for line in lines)


def _text(value: object) -> str:
    return f"{value:.3g}" if type(value) is float else str(value)


def _loops(fn: Callable[[], object], clock: Callable[[], float]) -> int:
    """Calls per turn: 1, or as many as fill `_SHORTEST`; the first call only warms up."""
    first = _once(fn, 1, clock)
    if first > 10 * _SHORTEST:
        return 1
    return max(1, round(_SHORTEST / max(_once(fn, 1, clock), 1e-9)))


def _once(fn: Callable[[], object], loops: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(loops):
        fn()
    return (clock() - start) / loops

"""Which samplers are the same algorithm: their ends on fixed problems, compared to rounding.

A setting (a sampler with its options) runs every problem from one x_T with one noise, in float64.
Two settings differ by the largest |a - b| / max(|a|, |b|) (maximum norms over all rows) over the
problems on which both ran. Settings linked by differences within ``tolerance`` are one algorithm;
``spread`` is the largest difference within such a group, so that a chain of small differences
shows. Differences up to CLOSE are those of one formula with coefficients kept in float32.

    found = fingerprint(["ddim", "dpm_solver_1"])
    found.same          # (Group(("samplers:ddim", "samplers:dpm_solver_1"), spread=1e-15),)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from math import inf
from typing import Any

import numpy as np

from labcore.engine import Failure, execute
from labcore.errors import InvalidOption
from labcore.registry import Registry, load_registry
from labcore.study import Use
from labcore.testing.problems import PROBLEMS
from labcore.traces import Runner, Trace, settings

EQUAL, CLOSE = 1e-10, 1e-5
SECONDS = 120.0
"""The time a setting has on a worker."""


@dataclass(frozen=True)
class Group:
    """Settings linked by agreement, in alphabetical order, and the largest difference of two.

    ``apart`` is for a chain, whose links agree and whose ends do not: the problems on which
    members differ, each with the parts they fall into there.
    """

    members: tuple[str, ...]
    spread: float
    apart: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()


@dataclass(frozen=True)
class Namesakes:
    """Samplers of one short name that are several algorithms, and how far these differ."""

    name: str
    parts: tuple[tuple[str, ...], ...]
    least: float
    most: float


@dataclass(frozen=True)
class Partly:
    """Two samplers that agree on some problems and not on others."""

    a: str
    b: str
    agree: tuple[str, ...]
    differ: tuple[str, ...]
    difference: float


@dataclass(frozen=True)
class Fingerprints:
    """What was found about all settings that were run."""

    traces: tuple[Trace, ...]
    tolerance: float = EQUAL

    @cached_property
    def usable(self) -> dict[str, Trace]:
        """Those that ran somewhere and draw all their noise from the lab's, by name in order."""
        kept = [t for t in self.traces if t.ends and not t.own_noise]
        return {t.setting: t for t in sorted(kept, key=lambda t: t.setting)}

    @cached_property
    def _gaps(self) -> dict[tuple[str, str], dict[str, float]]:
        return {
            (a.setting, b.setting): gaps(a, b) for a, b in combinations(self.usable.values(), 2)
        }

    def gaps(self, a: str, b: str) -> dict[str, float]:
        """How far two settings differ on every problem that both ran."""
        return self._gaps[min(a, b), max(a, b)]

    def difference(self, a: str, b: str) -> float:
        """The largest of them; infinite without a common problem."""
        return max(self.gaps(a, b).values(), default=inf)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All settings, grouped at ``tolerance``; alone ones are groups of one."""
        parts = linked(list(self.usable), self.difference, self.tolerance)
        return tuple(self._group(part) for part in parts)

    @cached_property
    def same(self) -> tuple[Group, ...]:
        """The groups of more than one sampler, without settings that change nothing."""
        shorter = [self._group(self._telling(g.members)) for g in self.groups]
        return tuple(g for g in shorter if len(g.members) > 1)

    @cached_property
    def close(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Groups that are one up to CLOSE: some keep their coefficients in float32."""
        of = {m: g.members for g in self.groups for m in g.members}
        wider = linked(list(of), self.difference, CLOSE)
        joined = [tuple(dict.fromkeys(of[m] for m in part)) for part in wider]
        several = [parts for parts in joined if len(parts) > 1 and len(self._samplers(parts)) > 1]
        return tuple(tuple(self._telling(part) for part in parts) for parts in several)

    @cached_property
    def namesakes(self) -> tuple[Namesakes, ...]:
        """Names that several plugins have with other algorithms by default, beyond CLOSE."""
        named: dict[str, list[str]] = {}
        for t in self.usable.values():
            if t.default:
                named.setdefault(short(t.sampler), []).append(t.setting)
        found = []
        for name, alike in sorted(named.items()):
            parts = linked(alike, self.difference, CLOSE)
            if len(parts) > 1 and len({s.partition(":")[0] for s in alike}) > 1:
                sizes = [
                    self.difference(a, b) for p, q in combinations(parts, 2) for a in p for b in q
                ]
                found.append(Namesakes(name, tuple(parts), min(sizes), max(sizes)))
        return tuple(found)

    @cached_property
    def partly(self) -> tuple[Partly, ...]:
        """Defaults that agree up to CLOSE on two problems or more, and differ on another: as a
        method that switches at a number of steps. One of each group speaks for it."""
        defaults = [s for s, t in self.usable.items() if t.default and not t.adaptive]
        heads = [part[0] for part in linked(defaults, self.difference, CLOSE)]
        found = []
        for a, b in combinations(heads, 2):
            by_problem = self.gaps(a, b)
            agree = tuple(name for name, gap in by_problem.items() if gap <= CLOSE)
            apart = tuple(name for name in by_problem if name not in agree)
            if len(agree) > 1 and apart:
                found.append(Partly(a, b, agree, apart, self.difference(a, b)))
        return tuple(found)

    @property
    def failed(self) -> tuple[Trace, ...]:
        """Those that ran nowhere, with their options by default."""
        return tuple(t for t in self.traces if not t.ends and t.default)

    @property
    def own_noise(self) -> tuple[Trace, ...]:
        """Those whose result changes from run to run, which cannot be compared."""
        return tuple(t for t in self.traces if t.ends and t.own_noise)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; an infinite difference (no common problem) is None."""
        names = [asdict(n) for n in self.namesakes]
        for n in names:
            n.update({key: n[key] if n[key] < inf else None for key in ("least", "most")})
        return {
            "tolerance": self.tolerance,
            "problems": list(PROBLEMS),
            "settings": list(self.usable),
            "same": [asdict(g) for g in self.same],
            "close": self.close,
            "namesakes": names,
            "partly": [asdict(p) for p in self.partly],
            "failed": {t.setting: t.reason for t in self.failed},
            "own_noise": [t.setting for t in self.own_noise],
        }

    def _group(self, members: Sequence[str]) -> Group:
        spread = max((self.difference(a, b) for a, b in combinations(members, 2)), default=0.0)
        apart = []
        for problem in PROBLEMS if spread > self.tolerance else ():
            there = [m for m in members if problem in self.usable[m].ends]
            parts = linked(there, lambda a, b: self.gaps(a, b)[problem], self.tolerance)  # noqa: B023
            if len(parts) > 1:
                apart.append((problem, tuple(parts)))
        return Group(tuple(members), spread, tuple(apart))

    def _samplers(self, parts: Iterable[tuple[str, ...]]) -> set[str]:
        return {self.usable[m].sampler for part in parts for m in part}

    def _telling(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """Less those whose options change nothing about a sampler already there."""
        of = self.usable
        seen = {of[m].sampler for m in members if of[m].default}
        kept = []
        for m in members:
            if of[m].default or of[m].sampler not in seen:
                kept.append(m)
                seen.add(of[m].sampler)
        return tuple(kept)


def gaps(a: Trace, b: Trace) -> dict[str, float]:
    """max |x - y| / max(|x|, |y|) of two traces, problem by problem."""
    found = {}
    for problem in PROBLEMS:
        if problem in a.ends and problem in b.ends:
            x, y = np.asarray(a.ends[problem]), np.asarray(b.ends[problem])
            size = max(float(np.abs(x).max()), float(np.abs(y).max()), 1e-300)
            found[problem] = float(np.abs(x - y).max()) / size
    return found


def linked(
    names: Sequence[str], difference: Callable[[str, str], float], within: float
) -> list[tuple[str, ...]]:
    """Single linkage: the components of the graph of differences within ``within``, in order."""
    home = {name: name for name in names}

    def root(name: str) -> str:
        while home[name] != name:
            name = home[name]
        return name

    for a, b in combinations(names, 2):
        if difference(a, b) <= within:
            first, second = sorted((root(a), root(b)))
            home[second] = first
    parts: dict[str, list[str]] = {}
    for name in sorted(names):
        parts.setdefault(root(name), []).append(name)
    return [tuple(part) for part in parts.values()]


WORDS = re.compile(r"sample_|sampler|scheduler|discrete")


def short(qualified: str) -> str:
    """The name without the words that libraries add: EulerDiscreteScheduler is euler."""
    name = qualified.rpartition(":")[2].lower()
    return WORDS.sub("", name).replace("_", "") or name


def fingerprint(
    samplers: Iterable[str | Use] = (),
    *,
    registry: Registry | None = None,
    tolerance: float = EQUAL,
    workers: int = 0,
    follow: Callable[[Trace], None] = lambda trace: None,
) -> Fingerprints:
    """Compare the samplers named, or all registered ones.

    Raises UnknownName, and InvalidOption for a tolerance that is not within (0, CLOSE).
    """
    if not 0 < tolerance < CLOSE:
        raise InvalidOption(f"fingerprint: tolerance {tolerance:g}; choose one in (0, {CLOSE:g})")
    registry = registry or load_registry()
    chosen = settings(registry, samplers)
    timeout = SECONDS if workers else None
    found = []
    for (of, default), payload in execute(
        chosen, Runner(registry), workers=workers, timeout=timeout
    ):
        if isinstance(payload, Failure):
            made = Trace(str(of), of.name, default, failed={"": payload.reason})
        else:
            made = payload
        follow(made)
        found.append(made)
    return Fingerprints(tuple(sorted(found, key=lambda t: t.setting)), tolerance)

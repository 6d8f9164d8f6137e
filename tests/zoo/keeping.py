"""What a zoo is made of: a fault, its correct twin, the check that must catch it, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import labcore
from labcore import Entry


@dataclass(frozen=True)
class Specimen:
    """A faulty sampler beside its correct twin.

    ``caught_by`` is the check of the battery that must fail for the fault (others may), ``on`` the
    processes that show it (names of zoo.worlds), the first the one of the quick tests. The fault
    declares what its twin does, but for what it lies about.
    """

    fault: Entry
    twin: Entry
    caught_by: str
    on: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.fault.name


ZOO: dict[str, Specimen] = {}
FAINT: dict[str, Specimen] = {}
"""Faults that the check named for them sees at times, or not at all: what is left to do."""
TWINS: dict[str, Entry] = {}


def twin(**traits: Any) -> Callable[[Any], Entry]:
    """A correct sampler with what it declares."""

    def keep(fn: Any) -> Entry:
        made: Entry = labcore.sampler(**traits)(fn)
        TWINS[made.name] = made
        return made

    return keep


def fault(caught_by: str, of: Entry, *on: str, **lies: Any) -> Callable[[Any], Entry]:
    """A faulty form of ``of``, on the processes named (by default on VP alone)."""
    return _keeper(ZOO, caught_by, of, on, lies)


def faint(caught_by: str, of: Entry, *on: str, **lies: Any) -> Callable[[Any], Entry]:
    """The same for a fault whose traces may be too small to see."""
    return _keeper(FAINT, caught_by, of, on, lies)


def _keeper(
    where: dict[str, Specimen], caught_by: str, of: Entry, on: tuple[str, ...], lies: Any
) -> Callable[[Any], Entry]:
    def keep(fn: Any) -> Entry:
        made: Entry = labcore.sampler(**{**of.traits, **lies})(fn)
        if made.name in {*ZOO, *FAINT}:
            raise ValueError(f"two faults are named {made.name}")
        where[made.name] = Specimen(made, of, caught_by, on or ("vp",))
        return made

    return keep

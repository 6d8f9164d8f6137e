"""A certificate: what a battery of checks found about one sampler, as plain data.

``labcore.testing.check_sampler`` makes it, the store keeps it, pages and plots show it. It speaks
for one sampler with its options, in one version of its plugin, on one process. ``told`` says what
the certificates of a sampler mean for a row of results, MARKS how a label shows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal

from labcore.errors import SamplerError, StoreError

Status = Literal["passed", "failed", "skipped"]
FORMAT = 1

BATTERY = "battery"
"""The check of a certificate without a verdict: the whole battery, and why it did not end."""

MARKS = {"certified": "", "uncertified": "†", "failed": "‡"}
"""What a sampler's label is marked with, by its state; from the best to the worst."""


@dataclass(frozen=True)
class Check:
    """One check of the battery: its name, how it ended, and what was found, in a line.

    ``remedy`` is for a failed one. ``figures`` are the numbers behind the line. ``plots`` is what
    a page draws, each a mapping with ``kind`` and ``title``, ``xlabel``, ``ylabel``, and

        lines    xscale, yscale ("log" or "linear"), series: [{label, x, y, dashed (optional)}]
        region   x, y, z (rows by y), level, zlabel: where z is beyond the level, and by how much
        table    columns, rows

    All of it is JSON: numbers (or None for what is not finite), strings, lists, mappings.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    plots: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Certificate:
    """The checks of one sampler, and what they were made with.

    ``sampler`` is the qualified name where a registry gave it; ``options`` are bound, with their
    defaults; ``distribution`` is the plugin's, with its version ("acme 1.2"); ``versions`` are
    those of labcore and torch; ``made`` is an ISO date; ``seed`` chose data and starts.
    ``complete`` says that the whole battery was run: a part of it certifies nothing.
    """

    sampler: str
    options: Mapping[str, Any]
    process: str
    checks: tuple[Check, ...]
    distribution: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    made: str = ""
    seconds: float = 0.0
    seed: int = 0
    complete: bool = True

    @property
    def key(self) -> str:
        """Hash of what it speaks for: sampler, options, version of its plugin, process."""
        of = [self.sampler, dict(self.options), self.distribution, self.process]
        return sha256(canonical(of).encode()).hexdigest()[:32]

    @property
    def version(self) -> str:
        """The version of its plugin, the last word of ``distribution``."""
        return self.distribution.rpartition(" ")[2]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in the battery's order."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def judged(self) -> bool:
        """Whether the battery came to a verdict: it was not stopped and did not break off."""
        return all(check.name != BATTERY for check in self.checks)

    @property
    def state(self) -> str:
        """ "failed" where a check failed, else "certified", or "uncertified" if not complete."""
        if self.failed:
            return "failed"
        return "certified" if self.complete else "uncertified"

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def require(self) -> Certificate:
        """Itself; SamplerError that tells every failed check where one failed."""
        if self.failed:
            told = " | ".join(f"{c.name}: {c.found}; {c.remedy}" for c in self.failed)
            raise SamplerError(f"sampler '{self.sampler}': {told}")
        return self

    def to_json(self) -> str:
        """One line of JSON that ``from_json`` reads; what is not finite becomes null."""
        held = _finite({"format": FORMAT, **asdict(self)})
        return json.dumps(held, allow_nan=False, default=str)


def from_json(text: str) -> Certificate:
    """The certificate that ``to_json`` wrote; StoreError for anything else."""
    try:
        held = json.loads(text)
        if held.pop("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        checks = tuple(Check(**{**c, "plots": tuple(c["plots"])}) for c in held.pop("checks"))
        return Certificate(checks=checks, **held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"certificate: it cannot be read ({error}); make it again") from error


def canonical(data: Any) -> str:
    """Plain data as the one JSON text that equal data have; what JSON does not know, as text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)


def _finite(data: Any) -> Any:
    match data:
        case float():
            return data if math.isfinite(data) else None
        case Mapping():
            return {str(key): _finite(value) for key, value in data.items()}
        case list() | tuple():
            return [_finite(value) for value in data]
    return data


def told(failed: Mapping[str, Sequence[str]], process: str) -> str:
    """What the certificates of a sampler (its options, its plugin's version) say on ``process``.

    ``failed`` holds, for each process that has a certificate, the checks that failed on it. The
    certificate on that very process decides. Without one a failure anywhere counts, and passing
    elsewhere does not: the answer is then "uncertified" and names where it passed.
    """
    if process in failed:
        names = ", ".join(failed[process])
        return f"failed: {names}" if names else "certified"
    broken = [f"{', '.join(names)} on {where}" for where, names in failed.items() if names]
    if broken:
        return f"failed: {_some(broken)}"
    if failed:
        return f"uncertified on {process}, certified on {_some(list(failed))}"
    return "uncertified"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def state_of(text: str) -> str:
    """ "certified", "uncertified" or "failed": the state that a text of ``told`` begins with."""
    return next((state for state in MARKS if text.startswith(state)), "uncertified")


def severity(text: str) -> tuple[int, str]:
    """Sorts texts of ``told`` from the best to the worst."""
    return list(MARKS).index(state_of(text)), text

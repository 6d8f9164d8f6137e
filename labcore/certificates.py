"""A certificate: what a battery of checks found about one sampler, as plain data.

``labcore.testing.check_sampler`` makes it, the store keeps it, pages and plots show it. It speaks
for one sampler with its options, in one version of its plugin, on one process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal

from labcore.errors import SamplerError, StoreError

Status = Literal["passed", "failed", "skipped"]
FORMAT = 1


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

    @property
    def key(self) -> str:
        """Hash of what it speaks for: sampler, options, version of its plugin, process."""
        of = [self.sampler, dict(self.options), self.distribution, self.process]
        return sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in the battery's order."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def state(self) -> str:
        """ "certified" where no check failed, else "failed"."""
        return "failed" if self.failed else "certified"

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def require(self) -> Certificate:
        """Itself; SamplerError that tells every failed check where one failed."""
        if self.failed:
            told = " | ".join(f"{c.name}: {c.found}; {c.remedy}" for c in self.failed)
            raise SamplerError(f"sampler '{self.sampler}': {told}")
        return self

    def to_json(self) -> str:
        """One line of JSON that ``from_json`` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, allow_nan=False)


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

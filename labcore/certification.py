"""Certifying registered samplers: which on which process, on worker processes, into a store.

labcore.certify("ddim")                               # on the process of certificates
labcore.certify(use("ddim", eta=1.0), ["vp", "edm"], store="out/eta.sqlite", workers=2)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labcore.certificates import BATTERY, Certificate, Check
from labcore.engine import Failure, execute
from labcore.errors import InvalidOption, LabError
from labcore.parts import Parts
from labcore.plugins import LOCAL
from labcore.registry import Registry, load_registry
from labcore.store import open_store
from labcore.study import Cell, Use, as_use
from labcore.testing import CHECKS, check_sampler

DEFAULT = "linear:vp"
"""The process of certificates that name none; the first that fits where this one does not."""

GIVEN = frozenset({"log_p_t", "reverse"})
"""What the battery's own exact score gives to the samplers that need it."""

SECONDS = 600.0
"""The time a sampler has for its verdict on a worker."""

Uses = str | Use | Iterable[str | Use]


@dataclass(frozen=True)
class Subject:
    """A sampler on a process, both resolved, and how it is to be checked; no checks means all."""

    sampler: Use
    process: Use
    distribution: str = ""
    checks: tuple[str, ...] = ()
    seed: int = 0

    @property
    def blank(self) -> Certificate:
        """The certificate as it is before any check."""
        return Certificate(
            self.sampler.name,
            dict(self.sampler.options),
            str(self.process),
            (),
            self.distribution,
            {"labcore": version("labcore"), "torch": version("torch")},
            datetime.now(UTC).isoformat(timespec="seconds"),
            seed=self.seed,
            complete=not self.checks,
        )


@dataclass(frozen=True, eq=False)
class Inspection:
    """Certifies a Subject in whatever process it is sent to."""

    registry: Registry

    def __call__(self, subject: Subject) -> Certificate:
        return check_sampler(
            self.registry.get("sampler", subject.sampler.name),
            Parts(self.registry).process(subject.process),
            options=dict(subject.sampler.options),
            checks=subject.checks or None,
            on_fail="return",
            seed=subject.seed,
            name=subject.sampler.name,
            process_name=str(subject.process),
            distribution=subject.distribution,
        )


def certify(
    samplers: Uses,
    processes: Uses = (),
    *,
    registry: Registry | None = None,
    store: str | Path | None = None,
    checks: Iterable[str] = (),
    seed: int = 0,
    workers: int = 0,
    timeout: float | None = None,
    follow: Callable[[Certificate], None] = lambda certificate: None,
) -> list[Certificate]:
    """Certificates of registered samplers, each on every process, as they are made.

    Names or uses; without processes each sampler is certified on "linear:vp", or on the first
    registered process that gives what it needs. With ``store`` each is kept as it comes. A sampler
    that raises has failed, and the others go on; so they do where one runs beyond ``timeout`` or
    takes its worker down, but that is no verdict and is not kept.
    Raises UnknownName and InvalidOption before any is checked, also where a process cannot be
    built or does not give what a sampler needs.
    """
    registry, named = registry or load_registry(), tuple(checks)
    _check_names(named, store)
    chosen = [as_use(sampler).resolve("sampler", registry) for sampler in _several(samplers)]
    given = built(registry, map(as_use, _several(processes)))
    wanted = [
        subject(registry, sampler, process, named, seed)
        for sampler in dict.fromkeys(chosen)
        for process in given or [default_process(registry, sampler)]
    ]
    return list(inspect_all(wanted, registry, store, workers, timeout, follow))


def _check_names(checks: tuple[str, ...], store: str | Path | None) -> None:
    if unknown := [name for name in checks if name not in CHECKS]:
        raise InvalidOption(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    if checks and store is not None:
        raise InvalidOption("checks with store: a part of the battery certifies nothing; run all")


def _several(uses: Uses) -> Sequence[str | Use]:
    return (uses,) if isinstance(uses, str | Use) else tuple(uses)


def built(registry: Registry, processes: Iterable[Use]) -> list[Use]:
    """The processes, resolved and each once; what building one raises is raised here.

    Otherwise a process of wrong options would be held against every sampler checked on it.
    """
    parts = Parts(registry)
    found = list(dict.fromkeys(use.resolve("process", registry) for use in processes))
    for process in found:
        parts.process(process)
    return found


def subject(
    registry: Registry, sampler: Use, process: Use, checks: tuple[str, ...] = (), seed: int = 0
) -> Subject:
    """A sampler on a process; InvalidOption where that does not give what the sampler needs."""
    if missing := lacking(registry, sampler, process):
        raise InvalidOption(
            f"sampler '{sampler}': it needs {missing}, which process '{process}' does not give; "
            "name another process, or none"
        )
    return Subject(sampler, process, distribution_of(registry, sampler.name), checks, seed)


def lacking(registry: Registry, sampler: Use, process: Use) -> str:
    """What the sampler needs and neither the process nor the battery gives; "" for nothing."""
    needs = registry.get("sampler", sampler.name).needs
    return ", ".join(sorted(needs - GIVEN - registry.get("process", process.name).gives))


def default_process(registry: Registry, sampler: Use) -> Use:
    """DEFAULT, else the first registered process that can be built and gives what is needed."""
    names = [name for name, _ in registry.all("process")]
    for name in sorted(names, key=lambda name: name != DEFAULT):
        with suppress(LabError):  # one whose options have no defaults
            process = Use(name).resolve("process", registry)
            Parts(registry).process(process)
            if not lacking(registry, sampler, process):
                return process
    needs = ", ".join(sorted(registry.get("sampler", sampler.name).needs - GIVEN)) or "a process"
    raise InvalidOption(
        f"sampler '{sampler}': it needs {needs}, which no registered process gives by default; "
        "name one with its options"
    )


def distribution_of(registry: Registry, sampler: str) -> str:
    """The distribution that has a (qualified) sampler, or the script, and its version."""
    plugin = sampler.partition(":")[0]
    record = registry.plugin(plugin)
    name = record.distribution
    if plugin == LOCAL:
        file = inspect.getsourcefile(registry.get("sampler", sampler).fn)
        name = Path(file or LOCAL).name
    return f"{name} {record.version}" if record.version else name


def inspect_all(
    subjects: Sequence[Subject],
    registry: Registry,
    where: str | Path | None = None,
    workers: int = 0,
    timeout: float | None = None,
    follow: Callable[[Certificate], None] = lambda certificate: None,
) -> Iterator[Certificate]:
    """The certificate of each subject as it ends; kept in the store before it is told.

    One without a verdict is told and not kept: it says nothing of the sampler, and what the store
    has of it stays.
    """
    if timeout is None and workers:
        timeout = SECONDS
    found = execute(subjects, Inspection(registry), workers=workers, timeout=timeout)
    if where is None:
        for of, payload in found:
            made = verdict(of, payload)
            follow(made)
            yield made
        return
    with open_store(where, write=True) as store:
        for of, payload in found:
            made = verdict(of, payload)
            if made.judged:
                store.keep([made])
            follow(made)
            yield made


def verdict(of: Subject, payload: Any) -> Certificate:
    """The certificate that came back, or one that says why none did."""
    if not isinstance(payload, Failure):
        made: Certificate = payload
        return made
    remedy = "run labcore check --workers 0 --debug on it to see where"
    check = Check(BATTERY, "failed", f"no verdict ({payload.status}): {payload.reason}", remedy)
    return replace(of.blank, checks=(check,))


def of_cells(
    cells: Iterable[Cell], registry: Registry, held: Iterable[Certificate] = ()
) -> list[Subject]:
    """The samplers of a study on its processes, where these fit and ``held`` has none of them.

    One that lacks a check which the battery has by now is made again.
    """
    known = {made.key for made in held if {*CHECKS} <= {check.name for check in made.checks}}
    pairs = dict.fromkeys((cell.sampler, cell.process) for cell in cells)
    wanted = [subject(registry, *pair) for pair in pairs if not lacking(registry, *pair)]
    return [one for one in wanted if one.blank.key not in known]

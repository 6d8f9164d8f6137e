"""The certificate of a sampler: a battery of checks, run on anyone's entry.

    labcore.testing.check_sampler(my_entry)

returns a Certificate or raises SamplerError that names what failed; a plugin's tests need no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal, get_args

from labcore.certificates import Certificate, Check
from labcore.entry import Entry
from labcore.errors import InvalidOption, InvalidProcess
from labcore.guards import undisturbed
from labcore.processes import Process, Structure
from labcore.testing.case import Broken, Case, default_process
from labcore.testing.checks import CHECKS
from labcore.text import reason_of


def check_sampler(
    entry: Entry,
    process: Process | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    checks: Iterable[str] | None = None,
    on_fail: Literal["raise", "return"] = "raise",
    seed: int = 0,
    name: str = "",
    process_name: str = "",
    distribution: str = "",
) -> Certificate:
    """Run the battery on a sampler entry and return its certificate.

    ``process`` defaults to VP, or CLD where channels are needed, with 2-D data; ``checks`` to all
    (see labcore.testing.CHECKS); ``seed`` chooses the data and the starts. The names go onto the
    certificate.
    Raises SamplerError with every failed check unless ``on_fail="return"``, InvalidOption for
    wrong options or an unknown check, and InvalidProcess where the sampler needs another
    structure.
    """
    names = tuple(CHECKS) if checks is None else tuple(checks)
    unknown = [check for check in names if check not in CHECKS]
    if unknown:
        raise InvalidOption(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    begun = time.perf_counter()
    bound = entry.bind(options or {})
    model, default = default_process(entry)
    _insist_on_structure(entry, process or default)
    case = Case(entry, process or default, bound, seed)
    found = tuple(one_check(check, CHECKS[check], case) for check in names)
    certificate = Certificate(
        name or entry.name,
        bound,
        process_name or ("given" if process else model),
        found,
        distribution,
        {"labcore": version("labcore"), "torch": version("torch")},
        datetime.now(UTC).isoformat(timespec="seconds"),
        round(time.perf_counter() - begun, 3),
        seed,
        set(names) >= set(CHECKS),
    )
    return certificate if on_fail == "return" else certificate.require()


def _insist_on_structure(entry: Entry, process: Process) -> None:
    needed = entry.needs.intersection(get_args(Structure)) - {process.structure}
    if needed:
        raise InvalidProcess(
            f"sampler '{entry.name}': it needs a process of structure {', '.join(needed)}, and "
            f"this one is {process.structure}; check it on another"
        )


def one_check(name: str, check: Callable[[Case], Check], case: Case) -> Check:
    """The check's verdict; what a sampler raises is a failure, not the end of the battery."""
    try:
        with undisturbed():  # what a faulty sampler changes is felt by no other check
            return replace(check(case), name=name)
    except Broken as broken:
        return Check(name, "failed", broken.found, broken.remedy)
    except SystemExit as error:
        return Check(name, "failed", f"it {reason_of(error)}", "raise an error instead")
    except Exception as error:
        return Check(name, "failed", f"it raised {reason_of(error)}", "mend what raised")

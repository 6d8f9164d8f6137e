"""What a page says, before it is HTML or Markdown: plain texts, numbers made readable."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labcore.certificates import Certificate, Check
from labcore.text import one_line

STATUS = {"passed": "✓", "failed": "✗", "skipped": "–"}

MOST = 8
"""More numbers than this in one figure are cut, but for the last."""

Plot = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """One check as a page tells it."""

    name: str
    status: str
    found: str
    remedy: str
    meaning: str
    figures: tuple[tuple[str, str], ...]
    plots: tuple[Plot, ...]


def sections(certificate: Certificate) -> list[Section]:
    """The checks of a certificate, in its order."""
    return [_section(check) for check in certificate.checks]


def _section(check: Check) -> Section:
    figures = tuple((_words(k), number(v)) for k, v in dict(check.figures).items())
    plots = tuple(check.plots)
    return Section(
        check.name, check.status, check.found, check.remedy, meaning(check.name), figures, plots
    )


def meaning(check: str) -> str:
    """What a check means: its docstring; "" for one that this labcore does not have."""
    from labcore.testing import CHECKS

    function = CHECKS.get(check)
    return " ".join((function.__doc__ or "").replace("``", "").split()) if function else ""


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def number(value: Any) -> str:
    """A figure as a reader wants it: 4 digits, lists cut, None where there is no number."""
    match value:
        case None:
            return "–"
        case bool() | str():
            return one_line(str(value))
        case float():
            return f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{_words(k)} {number(v)}" for k, v in list(value.items())[:MOST])
        case [list() | tuple() as row, *_]:
            return f"{len(value)} × {len(row)} numbers"
        case list() | tuple():
            shown = [number(v) for v in value]
            return ", ".join(shown if len(value) <= MOST else [*shown[:4], "...", shown[-1]])
    return one_line(str(value))


def facts(certificate: Certificate) -> Iterator[tuple[str, str]]:
    """What the certificate speaks for and was made with, a line each."""
    options = ", ".join(f"{k} = {v}" for k, v in certificate.options.items())
    versions = ", ".join(f"{name} {v}" for name, v in certificate.versions.items())
    yield "sampler", certificate.sampler
    yield "options", options or "none"
    yield "process", certificate.process
    yield "plugin", certificate.distribution or "none: not installed, no file"
    yield "made with", versions
    yield "made", f"{certificate.made}, in {certificate.seconds:.3g} s, seed {certificate.seed}"
    yield "key", certificate.key


def verdict(certificate: Certificate) -> str:
    """The verdict in a sentence."""
    ran = [c for c in certificate.checks if c.status != "skipped"]
    skipped = len(certificate.checks) - len(ran)
    beside = f"; {skipped} had nothing to say of it" if skipped else ""
    if certificate.failed:
        names = ", ".join(check.name for check in certificate.failed)
        return f"{len(certificate.failed)} of {len(ran)} checks failed: {names}{beside}."
    whole = f"All {len(ran)} checks passed{beside}."
    return whole if certificate.complete else f"{whole} The rest of the battery was not run."


def command(certificate: Certificate) -> str:
    """The command that makes the certificate again."""
    plugin, _, name = certificate.sampler.rpartition(":")
    script = certificate.distribution.rpartition(" ")[0]
    called = f"{script}:{name}" if plugin == "local" and script else certificate.sampler
    parts = ["labcore", "check", called]
    for key, value in certificate.options.items():
        parts += ["--option", f"{key}={_option(value)}"]
    parts += ["--process", certificate.process, "--seed", str(certificate.seed)]
    if certificate.judged and not certificate.complete:
        parts += ["--checks", ",".join(check.name for check in certificate.checks)]
    return one_line(" ".join(map(shlex.quote, parts)), 4000)


def _option(value: Any) -> str:
    """A value as ``labcore check --option`` reads it: text as it is, unless it reads as more."""
    if not isinstance(value, str):
        return repr(value)
    with suppress(SyntaxError, ValueError):
        ast.literal_eval(value)
        return repr(value)
    return value


def stem(certificate: Certificate) -> str:
    """A file name: letters, digits, dots and hyphens, unlike that of any other key."""
    short = certificate.sampler.replace(":", "-") + "-on-" + certificate.process.rpartition(":")[2]
    words = re.sub(r"[^A-Za-z0-9.]+", "-", short).strip("-.")[:60]
    return f"{words}-{certificate.key[:8]}"

"""A certificate as Markdown, its plots beside it; and many as a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labcore.certificates import MARKS, Certificate
from labcore.pages import document
from labcore.text import one_line

_SPECIAL = re.compile(r"([\\`*_\[\]|#~$])")


def safe(text: Any) -> str:
    """Text as it is written: no markup, no HTML, one line."""
    line = one_line(str(text), 4000)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def table(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of texts that are made safe."""
    lines = [columns, ["---"] * len(columns), *rows]
    texts = [[*map(safe, columns)], lines[1], *([*map(safe, row)] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in texts)


def listing(certificates: Sequence[Certificate]) -> str:
    """Many certificates as a Markdown table."""
    columns = ("certificate", "sampler", "options", "process", "plugin", "made", "failed checks")
    rows = [
        (
            f"{MARKS[c.state]} {c.state}".strip(),
            c.sampler,
            dict(document.facts(c))["options"] if c.options else "",
            c.process,
            c.distribution,
            c.made[:10],
            ", ".join(check.name for check in c.failed),
        )
        for c in certificates
    ]
    return table(columns, rows) + "\n"


def markdown(certificate: Certificate, plots: Mapping[tuple[str, int], str] | None = None) -> str:
    """The page of one certificate; ``plots`` are the files of (check, number), where drawn."""
    return "\n".join(_lines(certificate, plots or {})) + "\n"


def _lines(certificate: Certificate, plots: Mapping[tuple[str, int], str]) -> Iterator[str]:
    yield f"# Certificate of {safe(certificate.sampler)} on {safe(certificate.process)}\n"
    yield f"**{certificate.state}**: {safe(document.verdict(certificate))}\n"
    yield from (f"- {name}: {safe(value)}" for name, value in document.facts(certificate))
    yield "\n## Checks\n"
    sections = document.sections(certificate)
    rows = [(document.STATUS[s.status], s.name, s.found) for s in sections]
    yield table(("", "check", "what was found"), rows)
    yield "\n## Reproduce\n"
    yield f"    {document.command(certificate)}"
    yield "\n## What was measured"
    for section in sections:
        yield f"\n### {safe(section.name)}: {section.status}\n"
        yield from (f"*{safe(text)}*\n" for text in [section.meaning] if text)
        yield safe(section.found)
        if section.remedy and section.status == "failed":
            yield f"\nRemedy: {safe(section.remedy)}"
        if section.figures:
            yield "\n" + table(("figure", "value"), section.figures)
        for i, plot in enumerate(section.plots):
            yield "\n" + _plot(plot, plots.get((section.name, i)))


def _plot(plot: document.Plot, file: str | None) -> str:
    title = safe(plot.get("title", ""))
    if plot.get("kind") == "table":
        rows = [[document.number(cell) for cell in row] for row in plot["rows"]]
        return f"{title}\n\n{table(plot['columns'], rows)}"
    return f"![{title}]({file})" if file else f"({title}: not drawn here)"

"""A certificate as one HTML file that needs no other: styles and plots are in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labcore.certificates import Certificate
from labcore.pages import document

if TYPE_CHECKING:
    from jinja2 import Environment

Plot = document.Plot


def html(certificate: Certificate) -> str:
    """The page of one certificate."""
    sections = document.sections(certificate)
    return (
        _environment()
        .get_template("certificate.html")
        .render(
            certificate=certificate,
            verdict=document.verdict(certificate),
            facts=list(document.facts(certificate)),
            sections=sections,
            plots={s.name: [_shown(plot) for plot in s.plots] for s in sections},
            command=document.command(certificate),
            status=document.STATUS,
        )
    )


def index(certificates: Sequence[Certificate]) -> str:
    """The page that lists many, with links to theirs beside it."""
    return (
        _environment()
        .get_template("index.html")
        .render(
            certificates=[(c, document.stem(c), dict(document.facts(c))) for c in certificates],
            failed=sum(c.state == "failed" for c in certificates),
        )
    )


def _shown(plot: Plot) -> dict[str, Any]:
    """A table's texts, or a drawn plot as a data URI; a note for what cannot be shown."""
    from labcore.pages.figures import svg

    title = str(plot.get("title", ""))
    if plot.get("kind") == "table":
        rows = [[document.number(cell) for cell in row] for row in plot["rows"]]
        return {"title": title, "columns": plot["columns"], "rows": rows}
    drawn = svg(plot)
    if isinstance(drawn, str):
        return {"title": title, "note": drawn}
    return {"title": title, "uri": f"data:image/svg+xml;base64,{b64encode(drawn).decode()}"}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

"""The pages of certificates as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from labcore.certificates import Certificate
from labcore.errors import LabError
from labcore.pages import document
from labcore.pages.figures import svg
from labcore.pages.hypertext import html, index
from labcore.pages.marked import listing, markdown
from labcore.plots.files import replace

FORMATS = ("html", "md")


def write(
    certificates: Sequence[Certificate], folder: str | Path, formats: Sequence[str] = FORMATS
) -> Iterator[Path]:
    """Write a page for each certificate and an index of all; the paths of the pages.

    Of two of one key the last is written. Plots of Markdown pages are SVG files beside them.
    Raises LabError for an unknown format, or a file that cannot be written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise LabError(f"page format {unknown[0]!r}: not known; there are {', '.join(FORMATS)}")
    folder = Path(folder)
    newest = list({certificate.key: certificate for certificate in certificates}.values())
    for certificate in newest:
        if "html" in formats:
            yield _put(folder / f"{document.stem(certificate)}.html", html(certificate))
        if "md" in formats:
            yield _marked(certificate, folder)
    if "html" in formats:
        yield _put(folder / "index.html", index(newest))
    if "md" in formats:
        yield _put(folder / "index.md", f"# Sampler certificates\n\n{listing(newest)}")


def _marked(certificate: Certificate, folder: Path) -> Path:
    stem = document.stem(certificate)
    files = {}
    for section in document.sections(certificate):
        for i, plot in enumerate(section.plots):
            drawn = b"" if plot.get("kind") == "table" else svg(plot)
            if drawn and isinstance(drawn, bytes):
                name = f"{stem}-{section.name}-{i + 1}.svg"
                replace(folder / name, drawn)
                files[section.name, i] = name
    return _put(folder / f"{stem}.md", markdown(certificate, files))


def _put(path: Path, text: str) -> Path:
    replace(path, text.encode())
    return path

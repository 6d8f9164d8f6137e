"""Writing figures: the same figure gives the same bytes, and a file is whole or not there."""

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from labcore.errors import LabError
from labcore.plots.style import paper

METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save(
    figure: Figure, stem: str | Path, formats: Sequence[str] = ("png", "svg", "pdf")
) -> tuple[Path, ...]:
    """Write `stem.png`, `stem.svg`, ... and return their paths; folders are made as needed.

    Raises LabError for an unknown format, before anything is written, and for a file that
    cannot be written.
    """
    unknown = [f for f in formats if f not in METADATA]
    if unknown:
        raise LabError(f"figure format {unknown[0]!r}: not known; there are {', '.join(METADATA)}")
    drawn = [(Path(f"{stem}.{f}"), rendered(figure, f)) for f in formats]
    for path, content in drawn:
        replace(path, content)
    return tuple(path for path, _ in drawn)


def rendered(figure: Figure, format: str) -> bytes:
    """The file of a figure; the same figure gives the same bytes."""
    out = BytesIO()
    with paper():
        figure.savefig(out, format=format, metadata=METADATA[format])
    return out.getvalue()


def replace(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        reason = error.strerror or type(error).__name__
        raise LabError(f"figure {path}: {reason}; choose another place or name") from error

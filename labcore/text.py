"""Text that came from elsewhere, made safe to show: one line, no control characters."""

from __future__ import annotations

import re

from labcore.errors import LabError

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")


def one_line(text: str, width: int = 400) -> str:
    """``text`` on one line of printable characters, cut to ``width``."""
    line = " ".join(_ESCAPE.sub("", text).split())
    line = "".join(c for c in line if c.isprintable())
    return line if len(line) <= width else line[: width - 1] + "…"


def reason_of(error: BaseException) -> str:
    """What an error says of itself, in one line: ``ValueError: beta must be positive``.

    A LabError names its thing in its message, so its type is left out.
    """
    if isinstance(error, LabError):
        return one_line(str(error))
    if isinstance(error, SystemExit):
        return f"called sys.exit({one_line(repr(error.code), 80)})"
    said = one_line(str(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

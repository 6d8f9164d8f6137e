"""Refusals shared by the readers of files."""

from __future__ import annotations

from pathlib import Path

from labcore import InvalidOption

MB = 2**20


def refuse(path: Path, reason: str, remedy: str) -> InvalidOption:
    """The error to raise for a file that cannot be a target."""
    return InvalidOption(f"target 'file': {path.name}: {reason}; {remedy}")


def within(path: Path, numbers: int, limit: int) -> None:
    """Refuse more ``numbers`` than fit into ``limit`` bytes as float32."""
    if 4 * numbers > limit:
        raise refuse(
            path,
            f"it holds {numbers:,} numbers, {4 * numbers / MB:,.0f} MB as float32, above "
            f"limit_mb={limit // MB}",
            "raise limit_mb, or take fewer samples",
        )

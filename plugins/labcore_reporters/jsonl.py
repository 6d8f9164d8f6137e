"""One JSON line for every event, for other programs to follow."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import labcore
from labcore import Event, LabError


@labcore.reporter
def jsonl(*, path: str = "events.jsonl") -> Callable[[Event], None]:
    """Append each event to ``path`` as one line of JSON, flushed as it happens.

    NaN and infinities, which JSON does not have, become null.
    """

    cut_short = _cut_short(Path(path))

    def follow(event: Event) -> None:
        nonlocal cut_short
        rows = [dict(row) for row in event.rows]
        line = json.dumps(_finite({**asdict(event), "rows": rows}), allow_nan=False, default=str)
        try:
            with Path(path).open("ab") as out:
                out.write(b"\n" * cut_short + line.encode() + b"\n")
        except OSError as error:
            raise LabError(
                f"reporter 'jsonl': '{path}': {error.strerror}; give a path= that can be written"
            ) from error
        cut_short = False

    return follow


def _cut_short(path: Path) -> bool:
    """Whether the file ends in the middle of a line, as a crash leaves it."""
    try:
        with path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() != b"\n"
    except OSError:  # there is none, or it is empty
        return False


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value

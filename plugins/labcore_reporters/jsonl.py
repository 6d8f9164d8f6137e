"""One JSON line for every event, for other programs to follow."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import labcore
from labcore import Event, LabError


@labcore.reporter
def jsonl(*, path: str = "events.jsonl") -> Callable[[Event], None]:
    """Append each event to ``path`` as one line of JSON, flushed as it happens."""

    def follow(event: Event) -> None:
        line = json.dumps({**asdict(event), "rows": list(event.rows)}, default=str)
        try:
            with Path(path).open("a", encoding="utf-8") as out:
                out.write(line + "\n")
        except OSError as error:
            raise LabError(
                f"reporter 'jsonl': '{path}': {error.strerror}; give a path= that can be written"
            ) from error

    return follow

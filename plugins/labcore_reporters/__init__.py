"""Reporters: what follows a study while it runs. Each is handed every Event in turn."""

import labcore
from labcore_reporters.jsonl import jsonl
from labcore_reporters.progress import progress, quiet


@labcore.hookimpl
def register_reporters() -> list[labcore.Entry]:
    return [progress, jsonl, quiet]

"""azula's samplers on the lab's score and grid, their code unmodified."""

import labcore


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    return []

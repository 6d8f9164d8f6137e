"""azula's samplers on the lab's score, grid and noise, their code unmodified."""

import labcore

INSTALL = "pip install 'labcore[azula]' and then pip install --no-deps azula"


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    labcore.require("azula", INSTALL)
    from labcore_azula.samplers import ENTRIES

    return ENTRIES

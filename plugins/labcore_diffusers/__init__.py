"""diffusers' schedulers on the lab's score, grid and noise, their code unmodified."""

import labcore

INSTALL = "pip install 'labcore[diffusers]'"


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    labcore.require("diffusers", INSTALL)
    from labcore_diffusers.samplers import ENTRIES

    return ENTRIES

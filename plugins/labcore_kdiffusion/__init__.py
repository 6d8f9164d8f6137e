"""k-diffusion's samplers on the lab's score, grid and noise, their code unmodified."""

import labcore
from labcore_kdiffusion.library import INSTALL


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    labcore.require("k_diffusion", INSTALL)
    from labcore_kdiffusion.samplers import ENTRIES

    return ENTRIES

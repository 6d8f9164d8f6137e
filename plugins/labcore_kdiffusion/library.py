"""k_diffusion.sampling alone, as it was published.

The package imports torchvision, clip and wandb at its top, none of which its samplers use: its
__init__ is stepped past, and torchvision's transforms are empty modules meanwhile.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

INSTALL = "pip install 'labcore[kdiffusion]' and then pip install --no-deps k-diffusion"
VISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
MODULE = "k_diffusion.sampling"


def sampling() -> Any:
    """The module, loaded once a process; ModuleNotFoundError where it is not installed."""
    if MODULE in sys.modules:
        return sys.modules[MODULE]
    spec = find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"k-diffusion is not installed; {INSTALL}")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec  # others ask whether the package is there
    stubs = {name: ModuleType(name) for name in VISION}
    stubs[VISION[1]].functional = stubs[VISION[2]]  # type: ignore[attr-defined]
    absent = {name: stub for name, stub in stubs.items() if name not in sys.modules}
    sys.modules.update({"k_diffusion": package, **absent})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(MODULE)
    finally:
        for name in absent:
            del sys.modules[name]

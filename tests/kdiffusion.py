"""k_diffusion.sampling alone, an independent implementation to compare with.

The package imports torchvision, clip and wandb at its top, none of which sampling needs: its
__init__ is stepped past, and torchvision's transforms are empty modules meanwhile.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

VISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def sampling() -> Any:
    """The module; skips the caller's tests where the package is not installed."""
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    spec = find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("k-diffusion is not installed", allow_module_level=True)
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
            return import_module("k_diffusion.sampling")
    finally:
        for name in absent:
            del sys.modules[name]

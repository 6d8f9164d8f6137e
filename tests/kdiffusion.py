"""k_diffusion.sampling, an independent implementation to compare with."""

from importlib.util import find_spec
from typing import Any

import pytest


def sampling() -> Any:
    """The module; skips the caller's tests where the package is not installed."""
    if find_spec("k_diffusion") is None:
        pytest.skip("k-diffusion is not installed", allow_module_level=True)
    from labcore_kdiffusion import library

    return library.sampling()

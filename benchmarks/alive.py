"""Memory in use by tensors, counted rather than sampled."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Alive(TorchDispatchMode):
    """The most bytes alive at once in what the operations within have returned."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._owners: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in out if isinstance(out, tuple | list) else [out]:
            if isinstance(leaf, Tensor):
                self._hold(leaf)
        return out

    def _hold(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not self._owners.get(key):
            self.now += size
        self._owners[key] = self._owners.get(key, 0) + 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(x, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._owners[key] -= 1
        if not self._owners[key]:
            self.now -= size

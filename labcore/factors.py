"""An operator of one grid point, in the forms that a loop over the grid is fastest with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class Factor:
    """A Scalar or Diag of one grid point within a loop, where casts and checks would add up."""

    a: Tensor

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.a * x

    def accumulate(self, base: Tensor, x: Tensor) -> Tensor:
        return base.addcmul_(self.a, x)

    def added(self, base: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(base, self.a, x)


@dataclass(slots=True)
class Number:
    """A Scalar of one grid point within sums: quicker made than a tensor, slower in products."""

    a: float

    def accumulate(self, base: Tensor, x: Tensor) -> Tensor:
        return base.add_(x, alpha=self.a)

    def added(self, base: Tensor, x: Tensor) -> Tensor:
        return torch.add(base, x, alpha=self.a)

"""A network made a score: its parameterisation, the process it is for, and its inputs' scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from labcore.errors import InvalidOption
from labcore.kernels import Kernel, exact_kernel
from labcore.parameterisations import PARAMETERISATIONS, At, data_covariance
from labcore.processes import Process, as_time

Time = Literal["log_snr", "t"]
Reading = Literal["eps", "score", "x0", "v", "edm", "energy"]


@dataclass(frozen=True, eq=False)
class Model:
    """``net(R^-1 x, c)`` read as a score of ``process``: (x, t) -> grad log p_t(x).

    x is (B, *event) in any float dtype, t 0-d or (B,); the network sees its own dtype, its input
    at unit variance (see labcore.parameterisations), and the noise level c = -log_snr(t)/8
    (EDM's ln(sigma)/4; Karras et al. 2022) or, with time="t", t itself, of the shape of t.
    For the reading "energy" the network returns one number a sample, (B,), and
    E(x,t) = net / sigma_max with sigma_max^2 = max_i Sigma_ii: s = -grad_x E has a score's size.
    ``kernel`` gives Phi, L and log SNR for times that differ by sample; ``data_std`` is the
    data's. Gradients flow to the weights, and to ``x`` where it asks for them.
    """

    net: Callable[[Tensor, Tensor], Tensor]
    process: Process
    reading: Reading = "eps"
    data_std: float = 1.0
    time: Time = "log_snr"
    kernel: Kernel | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.reading not in (*PARAMETERISATIONS, "energy"):
            known = ", ".join((*PARAMETERISATIONS, "energy"))
            raise InvalidOption(f"model: no parameterisation '{self.reading}'; there are {known}")
        if not self.data_std > 0:
            raise InvalidOption(f"model: data_std={self.data_std} must be positive")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x), in the shape and dtype of x."""
        at, level = self.at(t)
        if self.reading == "energy":
            create_graph = x.requires_grad and torch.is_grad_enabled()
            return -self._gradient(x, at, level, create_graph).to(x)
        return -(at.L_inv.T @ self.eps_at(x, at, level)).to(x)

    def eps(self, x: Tensor, t: Tensor, *, create_graph: bool = True) -> Tensor:
        """eps = -L^T s in the network's dtype: what denoising objectives compare with z."""
        return self.eps_at(x, *self.at(t), create_graph=create_graph)

    def eps_at(self, x: Tensor, at: At, level: Tensor, *, create_graph: bool = True) -> Tensor:
        """The same at operators that are known already: those of ``at(t)``."""
        y = x.to(self.dtype)
        if self.reading == "energy":
            return at.L.T @ self._gradient(y, at, level, create_graph)
        F = self.net(at.whiten @ y, level.to(y))
        return PARAMETERISATIONS[self.reading].eps(F, y, at)

    def energy(self, x: Tensor, t: Tensor) -> Tensor:
        """E(x, t) = -log p_t(x) + a constant of t, (B,); for the reading "energy" alone."""
        if self.reading != "energy":
            raise InvalidOption(
                f"model: reading '{self.reading}' has no energy; train a network with "
                "reading='energy'"
            )
        return self.energy_at(x, *self.at(t))

    def energy_at(self, x: Tensor, at: At, level: Tensor) -> Tensor:
        """The same at operators that are known already: those of ``at(t)``."""
        E = self.net(at.whiten @ x.to(self.dtype), level.to(x.device))
        return E / at.size.to(E)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """-E(x, t): log p_t(x) up to a constant of t, (B,)."""
        return -self.energy(x, t)

    def at(self, t: Tensor) -> tuple[At, Tensor]:
        """The operators at t in the network's dtype, and the level c(t) in the shape of t."""
        if t.ndim == 0:
            return self._shared(float(t))
        return self._made(t)

    def _made(self, t: Tensor) -> tuple[At, Tensor]:
        with torch.inference_mode(False):  # what is kept here serves under any mode
            t = as_time(t).clone()
            kernel = self.kernel if self.kernel and t.ndim else exact_kernel(self.process)
            Phi, L, log_snr = kernel(t)
            at = At(Phi, L, self._data.to(L.param), log_snr, self.dtype)
            level = t if self.time == "t" else -log_snr / 8
            return at, level.to(self.dtype)

    @cached_property
    def _data(self) -> Any:
        return data_covariance(self.process, self.data_std)

    @cached_property
    def _shared(self) -> Callable[[float], tuple[At, Tensor]]:
        """Operators of one time for the whole batch, kept for the grid that is being walked."""
        return lru_cache(maxsize=4096)(lambda t: self._made(torch.tensor(t, dtype=torch.float64)))

    def _gradient(self, x: Tensor, at: At, level: Tensor, create_graph: bool) -> Tensor:
        """grad_x E; a graph goes back to ``x`` where that asks for one."""
        with torch.inference_mode(False), torch.enable_grad():
            y = x
            if not x.requires_grad:
                y = x.detach().to(self.dtype).clone().requires_grad_(True)
            E = self.energy_at(y, at, level).sum()
            (gradient,) = torch.autograd.grad(E, y, create_graph=create_graph)
        return gradient

"""What an adapter of another library's samplers stands on.

To most libraries a process is x_t = alpha x_0 + sigma eps, which a scalar one is in law, and their
own time is the level r = sigma/alpha or the index of a table. In y = x/alpha,

    E[x_0 | x_t] = y + (sigma^2/alpha) s(alpha y, t),     eps = -sigma s(alpha y, t)

``Levels`` is a grid in these terms, and knows the time of any other level a library asks for.
``serving`` answers a library that draws with torch.randn_like from the noise of the run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from math import exp, log
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from labcore.errors import SamplerError, Unavailable
from labcore.noise import Noise
from labcore.processes import Process, as_time
from labcore.scores import Score

CLOSE = 1e-12
"""Two levels that differ by less, relatively, are one."""
ABOVE, BELOW = 1e-5, 1e-2
"""What rounding in float32 may put beyond the ends of the grid, relatively: below the last level
libraries cancel digits, in sigma_down = (sigma_to^2 - sigma_up^2)^(1/2)."""

At = tuple[Tensor, float, float]  # t, alpha, sigma


@dataclass(frozen=True, eq=False)
class Levels:
    """A grid of n + 1 times as signal ``alpha`` and noise ``sigma``, (n+1,) in float64."""

    process: Process
    ts: Tensor
    alpha: Tensor
    sigma: Tensor
    _known: dict[float, At] = field(default_factory=dict)

    @cached_property
    def ratio(self) -> Tensor:
        """r = sigma/alpha, (n+1,), strictly decreasing along the grid."""
        return self.sigma / self.alpha

    @cached_property
    def _levels(self) -> list[float]:
        made: list[float] = self.ratio.tolist()
        return made

    def at(self, r: float) -> At:
        """t, alpha and sigma at the level r; those of the grid for a level of the grid.

        Raises SamplerError for a level beyond the grid's, where the lab has no score.
        """
        if r not in self._known:
            t = self._time(r)
            alpha, sigma = _coefficients(self.process, t)
            self._known[r] = (t, float(alpha), float(sigma))
        return self._known[r]

    def _time(self, r: float) -> Tensor:
        from scipy.optimize import brentq

        levels = self._levels
        if not levels[-1] * (1 - BELOW) <= r <= levels[0] * (1 + ABOVE):
            raise SamplerError(
                f"adapted sampler: it asks for the score at the noise level {r:.6g}, outside the "
                f"grid's {levels[-1]:.6g} to {levels[0]:.6g}; choose options that stay within"
            )
        i = bisect_left(levels, -r, 1, len(levels) - 1, key=lambda level: -level)
        for j in (i - 1, i):
            if abs(levels[j] / r - 1) < CLOSE or j == 0 < r - levels[0]:
                return self.ts[j]
        if r < levels[-1]:
            return self.ts[-1]
        # log-SNR is nearly straight in log t.
        wanted, snr = -2 * log(r), self.process.log_snr
        low, high = float(self.ts[i].log()), float(self.ts[i - 1].log())
        u = brentq(lambda u: float(snr(exp(u))) - wanted, low, high, xtol=1e-15, rtol=1e-15)
        return as_time(exp(u))

    def increment(self, noise: Noise, begin: float, end: float) -> Tensor:
        """The normalised increment of a Brownian motion in r from ``begin`` down to ``end``.

        ``begin`` is a level of the grid. Over a whole step it is the lab's draw w; over the first
        part of one, a share a of it, sqrt(a) w + sqrt(1-a) z: what is expected of it, given w, and
        a bridge of its own. That is the law of the Brownian trees in sigma that libraries use.
        """
        levels = self.ratio
        i = int((levels.log() - log(begin)).abs().argmin())
        t, s = self.ts[i], self.ts[i + 1]
        share = (begin - end) / float(levels[i] - levels[i + 1])
        w = noise(t, s)
        return w if share > 0.999 else share**0.5 * w + (1 - share) ** 0.5 * noise(t, s, "bridge")

    def denoise(self, score: Score, y: Tensor, r: float) -> Tensor:
        """E[x_0 | x_t = alpha y] at the level r."""
        t, alpha, sigma = self.at(r)
        return y + (sigma**2 / alpha) * score(alpha * y, t)

    def eps(self, score: Score, y: Tensor, r: float) -> Tensor:
        """E[eps | x_t = alpha y] at the level r."""
        t, alpha, sigma = self.at(r)
        return -sigma * score(alpha * y, t)


def levels(process: Process, ts: Tensor) -> Levels:
    """The grid ``ts`` of a scalar process; SamplerError for any other process."""
    if process.structure != "scalar":
        raise SamplerError(
            f"adapted sampler: its library knows scalar processes only, this one is "
            f"{process.structure}; choose another process"
        )
    alpha, sigma = _coefficients(process, ts)
    made = Levels(process, ts, alpha, sigma)
    rows = list(zip(ts.unbind(), alpha.tolist(), sigma.tolist(), strict=True))
    made._known.update(zip(made.ratio.float().tolist(), rows, strict=True))
    made._known.update(zip(made.ratio.tolist(), rows, strict=True))
    return made


def _coefficients(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha = process.Phi(t, torch.zeros_like(t)).param.expand(t.shape)
    return alpha, process.Sigma(t).param.sqrt().expand(t.shape)


class serving(TorchFunctionMode):
    """A context in which torch.randn and torch.randn_like return ``give()``.

    For libraries that draw from the global generator and take no noise as an argument: their code
    stays as it is, and torch, as it allows, is answered by the lab. Calls that name a generator
    are let through, and so is every other random function.
    """

    def __init__(self, give: Callable[[], Tensor]) -> None:
        super().__init__()
        self._give = give

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.randn, torch.randn_like) or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        z, like = self._give(), args[0]
        if func is torch.randn_like:
            shape, dtype = like.shape, kwargs.get("dtype") or like.dtype
        else:
            shape = torch.Size(like if len(args) == 1 and not isinstance(like, int) else args)
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
        if z.shape != shape:
            raise SamplerError(
                f"adapted sampler: it draws noise of shape {tuple(shape)}, the run's is "
                f"{tuple(z.shape)}; it cannot be given the lab's noise"
            )
        return z.to(dtype)


def require(module: str, install: str) -> None:
    """Unavailable, with what to ``install``, where ``module`` is not there; imports nothing."""
    try:
        there = find_spec(module) is not None
    except ValueError:  # it is loaded, and without a spec
        there = True
    if not there:
        raise Unavailable(f"needs the library '{module}', which is not installed; {install}")

"""The reverse SDE as torchsde's solvers call it: time u = -t, additive noise, any operators.

    dX = [ -A X + (1 + lam^2)/2 G G^T s(X, -u) ] du + lam G dB,   u from -T to -t_eps

with A and G at t = -u. torchsde would hold G as a (B, d, m) tensor; its solvers only ever ask for
products and sums, so the operator itself is handed to them.
"""

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchsde import BaseBrownian

from labcore import LinOp, Noise, Process, Score

Coefficients = tuple[Tensor, Any, Any, LinOp]  # t, -A, (1 + lam^2)/2 G G^T, lam G


class Reverse:
    """Drift and diffusion in torchsde's terms; the last ``keep`` drifts are not evaluated again.

    Solvers ask for the drift at one point more than once; a point is known by its time and by
    being the same tensor.
    """

    noise_type = "additive"

    def __init__(
        self, score: Score, at: Callable[[float], Coefficients], sde_type: str, keep: int = 1
    ) -> None:
        self.sde_type = sde_type
        self._score, self._at = score, at
        self._known: deque[tuple[float, Tensor, Tensor]] = deque(maxlen=keep)

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        now = float(u)
        for i, (time, point, drift) in enumerate(self._known):
            if time == now and point is x:
                self._known.rotate(-i)
                return drift
        t, linear, pull, _ = self._at(now)
        drift = pull.accumulate(linear @ x, self._score(x, t))
        self._known.appendleft((now, x, drift))
        return drift

    def g(self, u: Tensor, x: Tensor) -> LinOp:
        return self._at(float(u))[3]

    def prod(self, g: LinOp, v: Tensor) -> Tensor:
        return g @ v

    def g_prod(self, u: Tensor, x: Tensor, v: Tensor) -> Tensor:
        return self.g(u, x) @ v

    def f_and_g(self, u: Tensor, x: Tensor) -> tuple[Tensor, LinOp]:
        return self.f(u, x), self.g(u, x)

    def f_and_g_prod(self, u: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(u, x), self.g_prod(u, x, v)

    def g_prod_and_gdg_prod(
        self, u: Tensor, x: Tensor, v: Tensor, _: Tensor
    ) -> tuple[Tensor, float]:
        return self.g_prod(u, x, v), 0.0

    def dg_ga_jvp_column_sum(self, u: Tensor, x: Tensor, area: None) -> float:
        return 0.0


class Motion(BaseBrownian):
    """The run's noise as torchsde's Brownian motion: increments W and areas U over (u0, u1)."""

    dtype = device = shape = None
    # A solver is refused unless the motion knows Levy areas of its kind. Those between coordinates
    # (A) only ever multiply derivatives of G, which are zero.
    levy_area_approximation = "foster"

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def __call__(  # type: ignore[no-untyped-def]
        self, u0: Tensor, u1: Tensor, return_U: bool = False, return_A: bool = False
    ):
        h = u1 - u0
        if return_U:
            z, k = self._noise.levy(-u0, -u1)
            return h.sqrt() * z, h**1.5 * (0.5 * z + 12**-0.5 * k)
        W = h.sqrt() * self._noise(-u0, -u1)
        return (W, None) if return_A else W

    def __repr__(self) -> str:
        return f"Motion({self._noise!r})"


def anywhere(process: Process, lam: float, x: Tensor) -> Callable[[float], Coefficients]:
    """The coefficients at any u, in float64 and cast to x; the last few are kept."""

    @lru_cache(maxsize=8)
    def at(u: float) -> Coefficients:
        t = torch.tensor(-u, dtype=torch.float64)
        return next(iter(_coefficients(process, lam, x, t.reshape(1)).values()))

    return at


def along(
    process: Process, lam: float, x: Tensor, us: Tensor, stages: tuple[float, ...]
) -> Callable[[float], Coefficients]:
    """The coefficients at the stages u + c h of every step of a grid, computed at once."""
    h = us[1:] - us[:-1]
    times = torch.cat([us, *(us[:-1] + c * h for c in stages)])
    table = _coefficients(process, lam, x, -times)
    compute = anywhere(process, lam, x)
    return lambda u: table.get(u) or compute(u)


def _coefficients(process: Process, lam: float, x: Tensor, t: Tensor) -> dict[float, Coefficients]:
    linear = (-process.A(t)).per_step(x)
    pull = ((1 + lam**2) / 2 * process.GG(t)).per_step(x)
    kick = (lam * process.G(t)).to(x).unbatch()  # reversible_heun adds them, per_step's cannot
    rows = zip(t.unbind(), linear, pull, kick, strict=True)
    return {-float(row[0]): row for row in rows}

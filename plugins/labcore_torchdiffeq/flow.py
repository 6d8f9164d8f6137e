"""The probability-flow ODE as torchdiffeq's solvers call it, in time u = -t, which increases."""

import math
from typing import Any

import torch
from torch import Tensor

from labcore import Process, SamplerError, Score

Coefficients = tuple[Tensor, Any, Any]  # t, -A, G G^T/2


class Flow:
    """dx/du = -A x + G G^T s(x, -u)/2, asked within the grid only.

    A solver probes a first step and rounds its stage times: a time outside [t_eps, T], where there
    is no score, is moved to the nearer end. The coefficients at the ``stages`` u + c h of every
    step of the grid are computed at once, others when they are asked for.
    ``asked`` is the time last asked for. Raises SamplerError after ``max_nfe`` evaluations.
    """

    def __init__(
        self,
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        stages: tuple[float, ...] | None = None,
        max_nfe: int | None = None,
    ) -> None:
        self._process, self._score, self._like = process, score, x
        self._range = ts[-1], ts[0]
        self._most, self.nfe, self.asked = max_nfe, 0, math.nan
        us, h = -ts, ts[:-1] - ts[1:]
        within = [us[:-1] + c * h for c in stages or () if 0 < c < 1]
        ends = us if 1 in (stages or ()) else us[:-1]
        self._table = self._at(torch.cat([ends, *within])) if stages else {}

    def _at(self, us: Tensor) -> dict[float, Coefficients]:
        t = torch.clamp(-us.double(), *self._range)
        linear = (-self._process.A(t)).per_step(self._like)
        pull = (0.5 * self._process.GG(t)).terms(self._like)
        return dict(zip(us.tolist(), zip(t.unbind(), linear, pull, strict=True), strict=True))

    def __call__(self, u: Tensor, x: Tensor, *, perturb: object = None) -> Tensor:
        now = float(u)
        if self.nfe == self._most:
            raise SamplerError(
                f"torchdiffeq: all {self.nfe} score evaluations are used up at t={-now:.4g}; "
                "loosen rtol and atol, raise max_nfe, or use fixed steps"
            )
        if math.isnan(now):
            raise SamplerError(
                "torchdiffeq: its step has become NaN, x or its error estimate overflows; loosen "
                "rtol and atol, or use fixed steps"
            )
        self.nfe += 1
        self.asked = -now
        t, linear, pull = self._table.get(now) or self._at(u.reshape(1))[now]
        g = self._score(x, t)
        field: Tensor = pull.accumulate(linear @ x, g)
        return field

    def callback_step(self, u: Tensor, x: Tensor, h: Tensor) -> None:
        """Solvers report every step; nobody listens."""

    callback_accept_step = callback_reject_step = callback_step

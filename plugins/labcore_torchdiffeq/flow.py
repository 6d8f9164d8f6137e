"""The probability-flow ODE as torchdiffeq's solvers call it, in time u = -t, which increases."""

import math
from collections.abc import Iterator
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
        self._range = float(ts[-1]), float(ts[0])
        self._most, self.nfe, self.asked = max_nfe, 0, math.nan
        us, h = -ts, ts[:-1] - ts[1:]
        within = [us[:-1] + c * h for c in stages or () if 0 < c < 1]
        ends = us if 1 in (stages or ()) else us[:-1]
        self._table = dict[float, Coefficients]()
        if stages:
            times = torch.cat([ends, *within])
            at = self._at(torch.clamp(-times.double(), *self._range))
            self._table = dict(zip(times.tolist(), at, strict=True))

    def _at(self, t: Tensor) -> Iterator[Coefficients]:
        linear = (-self._process.A(t)).per_step(self._like)
        pull = (0.5 * self._process.GG(t)).terms(self._like)
        return zip(t.unbind(), linear, pull, strict=True)

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
        known = self._table.get(now)
        if known is None:
            return self._between(-now, x)
        t, linear, pull = known
        g = self._score(x, t)
        field: Tensor = pull.accumulate(linear @ x, g)
        return field

    def _between(self, time: float, x: Tensor) -> Tensor:
        """The field at a time of a step control's."""
        t = torch.tensor([min(max(time, self._range[0]), self._range[1])], dtype=torch.float64)
        A, GG, g = self._process.A(t), self._process.GG(t), self._score(x, t[0])
        a, pull = A.factors, GG.factors
        if a is not None and pull is not None:
            return (-a[0] * x).add_(g, alpha=pull[0] / 2)
        return (0.5 * GG).accumulate((-A) @ x, g)

    def callback_step(self, u: Tensor, x: Tensor, h: Tensor) -> None:
        """Solvers report every step; nobody listens."""

    callback_accept_step = callback_reject_step = callback_step

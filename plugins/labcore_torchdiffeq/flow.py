"""The probability-flow ODE as torchdiffeq's solvers call it, in time u = -t, which increases."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from labcore import Process, SamplerError, Score
from labcore.factors import Number

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
        us = torch.cat([ends, *within])
        at = self._at(torch.clamp(-us.double(), *self._range)) if stages else ()
        self._table = dict(zip(us.tolist(), at, strict=False))

    def _at(self, t: Tensor) -> Iterator[Coefficients]:
        linear = (-self._process.A(t)).per_step(self._like)
        pull = (0.5 * self._process.GG(t)).terms(self._like)
        return zip(t.unbind(), linear, pull, strict=True)

    def _once(self, t: float) -> Coefficients:
        """Where a step control asks."""
        within = min(max(t, self._range[0]), self._range[1])
        at = torch.tensor([within], dtype=torch.float64)
        A, GG = self._process.A(at), self._process.GG(at)
        if A.factors is not None and GG.factors is not None:
            return at[0], Number(-A.factors[0]), Number(GG.factors[0] / 2)
        return at[0], (-A).per_step(self._like)[0], (0.5 * GG).terms(self._like)[0]

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
        t, linear, pull = self._table.get(now) or self._once(-now)
        g = self._score(x, t)
        field: Tensor = pull.accumulate(linear @ x, g)
        return field

    def callback_step(self, u: Tensor, x: Tensor, h: Tensor) -> None:
        """Solvers report every step; nobody listens."""

    callback_accept_step = callback_reject_step = callback_step

"""The probability-flow ODE as torchdiffeq's solvers call it, in time u = -t, which increases."""

import torch
from torch import Tensor

import labcore
from labcore import Process, SamplerError, Score


class Flow:
    """dx/du = -v(-u, x), v = A x - G G^T s/2, asked within the grid only.

    A solver probes a first step and rounds its stage times: a time outside [t_eps, T], where there
    is no score, is moved to the nearer end. Raises SamplerError after ``max_nfe`` evaluations.
    """

    def __init__(
        self, process: Process, score: Score, ts: Tensor, max_nfe: int | None = None
    ) -> None:
        self._velocity = labcore.velocity(process, score)
        self._range = ts[-1], ts[0]
        self._most, self.nfe = max_nfe, 0

    def __call__(self, u: Tensor, x: Tensor, *, perturb: object = None) -> Tensor:
        t = torch.clamp(-u.double(), *self._range)
        if self.nfe == self._most:
            raise SamplerError(
                f"torchdiffeq: all {self.nfe} score evaluations are used up at t={float(t):.4g}; "
                "loosen rtol and atol, raise max_nfe, or use fixed steps"
            )
        self.nfe += 1
        return self._velocity(t, x).neg_()

    def callback_step(self, u: Tensor, x: Tensor, h: Tensor) -> None:
        """Solvers report every step; nobody listens."""

    callback_accept_step = callback_reject_step = callback_step

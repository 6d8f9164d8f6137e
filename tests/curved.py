"""A score that is not affine, and the errors of a sampler against a fine reference on it."""

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from labcore import Entry, Process, Score
from labcore.noise import brownian, initial
from labcore.testing.audit import final

F64 = torch.float64
MODES = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)


def mixture_score(process: Process, spread: float = 0.3) -> Score:
    """Exact for three isotropic Gaussians of variance ``spread``, scalar processes."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha = float(process.Phi(t, torch.zeros((), dtype=F64)).param)
        v = alpha**2 * spread + float(process.Sigma(t).param)
        delta = (alpha * MODES).to(x) - x[:, None]
        logits = WEIGHTS.log().to(x) - delta.square().sum(-1) / (2 * v)
        return (logits.softmax(1)[..., None] * delta).sum(1) / v

    return score


def ends(
    sampler: Entry,
    process: Process,
    grid: Callable[[Process, int], Tensor],
    n: int,
    *,
    rows: int = 64,
    **options: Any,
) -> Tensor:
    """x at t_eps in n steps, on one path for all n."""
    x = process.prior().chol @ initial([0], rows, (2,), dtype=F64)
    ts = grid(process, n)
    noise = brownian(ts, (2,), [0], rows, dtype=F64)
    with torch.inference_mode():
        return final(sampler(process, mixture_score(process), x, ts, noise, **options), x)


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The order between the first and the last number of steps."""
    return log(errors[0] / errors[-1]) / log(steps[-1] / steps[0])

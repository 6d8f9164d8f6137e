"""From the density of a state to the probability of what was measured: data, grey levels.

    data       log p(x) = log E_v p(x, v) / q(v),  v ~ q = N(0, Sigma_vv(t))    added channels
    grey levels  P(k) = E_u p(k + d u) d^D,  u uniform on (-1/2, 1/2)^D         D levels, spacing d

Both by the logarithm of a mean over draws, which is below the truth on average and nears it as
they grow in number (Burda, Grosse & Salakhutdinov 2016); with one draw it is the usual bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

import labcore
from labcore import Process

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number a sample, (B,) float64, and its standard error over the draws (inf for one)."""

    value: Tensor
    error: Tensor


def bits_per_dim(
    log_prob: LogProb, x: Tensor, *, spacing: float, generator: Generator, draws: int = 1
) -> Estimate:
    """-log2 P(x) / D of levels x (B, *event), ``spacing`` apart, under a density ``log_prob``.

    Uniform dequantisation: -( log p(x + d u) + D log d ) / (D log 2), on average an upper bound.
    Levels k = 0, 1, .. scaled to x = d k + c need no other constant: the digits, 17 levels in
    [-1, 1], have d = 1/8 and gain 3 bits. (Theis, van den Oord & Bethge 2016, arXiv:1511.01844)
    Raises InvalidOption for a spacing or a number of draws that is not positive.
    """
    if not (spacing > 0 and draws >= 1):
        raise labcore.InvalidOption(
            f"bits_per_dim: spacing={spacing} and draws={draws} must be positive"
        )
    D = x[0].numel()
    logs = []
    for _ in range(draws):
        u = torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5
        logs.append(log_prob((x.double() + spacing * u).to(x)).double())
    mean = _mean(torch.stack(logs))
    bits = -(mean.value + D * math.log(spacing)) / (D * math.log(2))
    return Estimate(bits, mean.error / (D * math.log(2)))


def of_data(
    process: Process,
    log_prob: LogProb,
    x: Tensor,
    *,
    t: float,
    generator: Generator,
    draws: int = 16,
) -> Estimate:
    """log p_t of data x (B, *data event) from ``log_prob`` of states at t.

    Added channels are drawn from the noise of the process and weighed by it; without any it is
    log_prob(x) itself. (Dockhorn et al. 2022, arXiv:2112.07068, appendix B.3)
    """
    if process.structure != "channel":
        value = log_prob(x).double()
        return Estimate(value, torch.zeros_like(value))
    Sigma = process.Sigma(torch.tensor(t, dtype=torch.float64)).dense(process.event(x.shape[1:]))[
        0
    ]
    d = x[0].numel()
    noise = torch.distributions.MultivariateNormal(Sigma.new_zeros(len(Sigma) - d), Sigma[d:, d:])
    logs = []
    for _ in range(draws):
        z = torch.randn(len(x), len(Sigma) - d, generator=generator, dtype=torch.float64)
        v = z @ noise.scale_tril.T
        state = torch.cat([x.double()[:, None], v.reshape(len(x), -1, *x.shape[1:])], 1)
        logs.append(log_prob(state.to(x)).double() - noise.log_prob(v))
    return _mean(torch.stack(logs))


def _mean(logs: Tensor) -> Estimate:
    """log of the mean of exp over the first axis, and its standard error."""
    n = len(logs)
    value = logs.logsumexp(0) - math.log(n)
    if n == 1:
        return Estimate(value, torch.full_like(value, math.inf))
    return Estimate(value, (logs - value).exp().std(0) / math.sqrt(n))

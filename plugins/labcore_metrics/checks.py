"""What every metric asks of an outcome before it computes anything."""

import math

import torch
from torch import Tensor

import labcore

LARGEST = 1e30
"""Samples beyond this have diverged: no distance to them means anything."""


def pair(metric: labcore.Entry, outcome: labcore.Outcome) -> tuple[Tensor, Tensor]:
    """Samples and reference flattened to (n, d), on the CPU, both in float32 or in float64.

    Raises MetricError when their shapes differ, there are fewer than the metric's ``minimum``,
    or samples are NaN, infinite or beyond LARGEST.
    """
    x, y = (_matrix(z) for z in (outcome.samples, outcome.reference))
    if x.shape != y.shape or x.shape[1] == 0:
        raise fail(
            metric,
            f"samples are {tuple(outcome.samples.shape)} and the reference "
            f"{tuple(outcome.reference.shape)}; give as many of the same non-empty event",
        )
    least = metric.traits["minimum"]
    if len(x) < least:
        raise fail(metric, f"{len(x)} samples, it needs {least}; raise n")
    for name, z in (("samples", x), ("reference points", y)):
        if not max(abs(end.item()) for end in torch.aminmax(z)) <= LARGEST:
            bad = int((~(z.abs() <= LARGEST)).any(1).sum())
            raise fail(
                metric,
                f"{bad} of {len(z)} {name} are NaN, infinite or beyond {LARGEST:g}; "
                "take smaller steps or a larger t_eps",
            )
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def fail(metric: labcore.Entry, text: str) -> labcore.MetricError:
    """The error ``metric 'name': text``."""
    return labcore.MetricError(f"metric '{metric.name}': {text}")


def _matrix(z: Tensor) -> Tensor:
    z = z.detach().cpu()
    z = z if z.dtype in (torch.float32, torch.float64) else z.float()
    return z.reshape(len(z), math.prod(z.shape[1:]))

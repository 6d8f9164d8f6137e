"""The loop of every sampler that adds noise once a step: x_s = P x_t + Q s(x_t,t) + R z."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from labcore import LinOp, Noise, Score

Factors = tuple[LinOp, LinOp, LinOp | None]
"""P, Q and R of every step of a grid; no R where no noise is added."""


def kicked_steps(
    score: Score, x: Tensor, ts: Tensor, noise: Noise, P: LinOp, Q: LinOp, R: LinOp
) -> Iterator[Tensor]:
    """x (B, *event) at ts[1:]; P, Q and R carry one operator a step.

    Every state yielded is a new tensor, which the caller may keep: it is the step's own noise,
    to which x_t is added while both are in the cache, before the score is asked.
    """
    times, kick = ts.unbind()[:-1], kicks(noise, ts, R, x)
    for t, z, p, q in zip(times, kick, P.terms(x), Q.terms(x), strict=True):
        x = q.accumulate(p.accumulate(z, x), score(x, t))
        yield x


def kicks(noise: Noise, ts: Tensor, R: LinOp, x: Tensor) -> Iterator[Tensor]:
    """R z for every step, as new tensors, to be written to; numbers are drawn with the noise."""
    factors = R.factors
    if factors is not None:
        return noise.scaled(ts, factors)
    steps = zip(pairwise(ts.tolist()), R.per_step(x), strict=True)
    return (r @ noise(t, s) for (t, s), r in steps)

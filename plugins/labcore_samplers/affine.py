"""The loop of every sampler that calls the score once a step and adds no noise."""

from collections.abc import Iterator

from torch import Tensor

from labcore import LinOp, Score


def affine_steps(score: Score, x: Tensor, ts: Tensor, P: LinOp, Q: LinOp) -> Iterator[Tensor]:
    """x_s = P x_t + Q s(x_t,t) at ts[1:], (B, *event); P and Q carry one operator a step.

    Every state yielded is a new tensor, which the caller may keep. The score comes first in a
    step: a tensor made before it would be out of the cache when it is needed.
    """
    for t, p, q in zip(ts.unbind()[:-1], P.per_step(x), Q.terms(x), strict=True):
        g = score(x, t)
        x = q.accumulate(p @ x, g)
        yield x

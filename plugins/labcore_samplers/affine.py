"""The loop of every sampler that calls the score once a step: x_s = P x_t + Q s(x_t,t) + R z."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from labcore import LinOp, Noise, Score


def affine_steps(
    score: Score, x: Tensor, ts: Tensor, noise: Noise, P: LinOp, Q: LinOp, R: LinOp | None = None
) -> Iterator[Tensor]:
    """x (B, *event) at ts[1:]; P, Q and R carry one operator a step. No noise is drawn without R.

    Every state yielded is a new tensor, which the caller may keep. The score comes first in a
    step: a tensor made before it would be out of the cache when it is needed.
    """
    times, keep, pull = ts.unbind(), P.per_step(x), Q.terms(x)
    if R is None:
        for t, p, q in zip(times[:-1], keep, pull, strict=True):
            g = score(x, t)
            x = q.accumulate(p @ x, g)
            yield x
        return
    for (t, s), p, q, r in zip(pairwise(times), keep, pull, R.terms(x), strict=True):
        g = score(x, t)
        x = q.accumulate(p @ x, g)
        x = r.accumulate(x, noise(t, s))
        yield x

"""The oracle: the exact law of X_s | X_t, drawn step by step, for targets that know it.

For a mixture target X_s | X_t = x is a mixture, whose component is drawn by a uniform number and
whose Gaussian by z. The samples have the exact law at every time of every grid, one step included:
the zero line that other samplers are seen against.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor
from torch.special import ndtr

import labcore
from labcore import CountedScore, Noise, Process


@labcore.sampler(
    order=None,
    evals=1,
    stochastic=True,
    needs=("reverse",),
    cite="closed form: Bayes' rule, component by component",
)
def oracle(
    process: Process, score: CountedScore, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Exact reverse transitions X_s | X_t of a mixture: no error at any number of steps.

    What is left is the start: choose start="exact" for samples of exactly p_{t_eps}.
    """
    for t, s in pairwise(ts):
        u = ndtr(noise(t, s, stream="component").flatten(1)[:, 0].double())
        x = score.reverse(x, t, s, noise(t, s), u)
        yield x

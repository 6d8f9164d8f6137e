"""Predictor-corrector: any one-step sampler, then moves of a chain on the law it has arrived at.

A one-step sampler on the two times (t, s) is a predictor. A corrector is a kernel on p_s with
Sigma(s) = L L^T as preconditioner: a Langevin step x <- x + e Sigma g + sqrt(2e) L z of size

    snr      e = 2 (r |z| / |L^T g|)^2, for each row on its own (Song et al. 2021, Algorithms 4, 5;
             the paper's code takes the mean of the norms over the batch, which couples its rows)
    fixed    e = 2 r^2, what that is on average where noise dominates

or, with a density, the same step accepted or refused (MALA), or leapfrog steps of length 2r (HMC).
The snr rule makes e depend on z and has no bound where g vanishes, as at a mode: the law it leaves
alone is near p_s in many dimensions, where norms hardly vary, and far from it in the plane.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from operator import add
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

import labcore
from labcore import CountedScore, Entry, Noise, Process
from labcore_samplers.ancestral import ancestral
from labcore_samplers.ancestral import factors as of_ancestral
from labcore_samplers.chains import Arrive, Chain, Count, Draws, Kernel, Size, Tell, descend
from labcore_samplers.ddim import ddim
from labcore_samplers.ddim import factors as of_ddim
from labcore_samplers.euler import euler, euler_maruyama
from labcore_samplers.heun import heun
from labcore_samplers.hmc import shots
from labcore_samplers.kicked import Factors, kicks
from labcore_samplers.metropolis import drifts, metropolised, with_score
from labcore_samplers.rates import constant
from labcore_samplers.sde import euler_factors

Step = Callable[[Tensor, Tensor, float], Tensor]
"""(sqrt(2) z, L^T g, r) -> sqrt(e), () or (B, *event)."""

FEW = 8
Name = Literal["ancestral", "ddim", "euler", "euler_maruyama", "heun"]


def snr(w: Tensor, pull: Tensor, r: float) -> Tensor:
    """e = 2 (r |z| / |L^T g|)^2 of each row; no step where that vanishes."""
    w2, g2 = row_sums(w.square()), row_sums(pull.square())
    root = w2.div_(g2).sqrt_().mul_(r).nan_to_num_(0.0, 0.0, 0.0)
    return root.reshape(-1, *[1] * (w.ndim - 1)).expand_as(w).contiguous()


def fixed(w: Tensor, pull: Tensor, r: float) -> Tensor:
    """e = 2 r^2."""
    return w.new_tensor(2**0.5 * r)


def row_sums(v: Tensor) -> Tensor:
    """Sums over the event, (B,): a reduction over a few numbers costs several additions."""
    flat = v.flatten(1)
    return reduce(add, flat.unbind(1)) if flat.shape[1] <= FEW else flat.sum(1)


PREDICTORS: Mapping[str, Entry] = {
    e.name: e for e in (ancestral, ddim, euler, euler_maruyama, heun)
}
AFFINE: Mapping[str, Callable[[Process, Tensor], Factors]] = {
    "ancestral": of_ancestral,
    "ddim": of_ddim,
    "euler": partial(euler_factors, rate=constant(0.0)),
    "euler_maruyama": partial(euler_factors, rate=constant(1.0)),
}
"""Those that are one affine step, whose factors for the whole grid are worked out at once."""
STEPS: Mapping[str, Step] = {"snr": snr, "fixed": fixed}


def predicted(
    name: str, process: Process, score: CountedScore, x: Tensor, ts: Tensor, noise: Noise
) -> list[Arrive]:
    """x by a step of the predictor over each step of the grid."""
    if name in AFFINE:
        P, Q, R = AFFINE[name](process, ts)
        kick = None if R is None else kicks(noise, ts, R, x)
        keep = P.terms(x) if kick else P.per_step(x)
        steps = zip(ts.unbind()[:-1], keep, Q.terms(x), strict=True)
        return [partial(_affine, score, kick, *step) for step in steps]
    predict = PREDICTORS[name]

    def step(two: Tensor, x: Tensor) -> Tensor:
        (out,) = predict(process, score, x, two, noise)
        return out

    return [partial(step, two) for two in ts.unfold(0, 2, 1)]


def _affine(
    score: CountedScore, kick: Iterator[Tensor] | None, t: Tensor, keep: Any, pull: Any, x: Tensor
) -> Tensor:
    g = score(x, t)
    y = keep.accumulate(next(kick), x) if kick else keep @ x
    out: Tensor = pull.accumulate(y, g)
    return out


def sized(size: Step, r: float, process: Process, us: Tensor, x: Tensor) -> list[Kernel]:
    """Langevin steps whose size is worked out at each, at each of the times us."""
    L = process.Sigma(us).chol
    parts = zip(us.unbind(), L.terms(x), L.T.per_step(x), strict=True)
    return [partial(_sized, size, r, *each) for each in parts]


def _sized(
    size: Step,
    r: float,
    u: Tensor,
    lower: Any,
    upper: Any,
    score: CountedScore,
    x: Tensor,
    draws: Draws,
    tell: Tell,
) -> Iterator[Tensor]:
    draw = draws("corrector")
    while True:
        w, pull = draw(2**0.5), upper @ score(x, u)
        root = size(w, pull, r)
        x = lower.added(x, w.addcmul_(pull, root).mul_(root))
        yield x


def _evals(predictor: str) -> int:
    return int(PREDICTORS[predictor].traits["evals"])


@labcore.sampler(
    order=None,
    evals=2,
    evals_of=lambda predictor, inner, **_: _evals(predictor) + inner,
    stochastic=True,
    cite="Song et al. (2021) arXiv:2011.13456, Algorithms 1, 4 and 5",
)
def predictor_corrector(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    predictor: Name = "ancestral",
    corrector: Literal["snr", "fixed"] = "snr",
    r: Size = 0.16,
    inner: Annotated[int, Field(ge=0)] = 1,
) -> Chain:
    """A predictor step from t to s, then ``inner`` Langevin steps on p_s of signal-to-noise ``r``.

    With inner=0 it is the predictor. The corrector's own error, O(r^2), stays at any number of
    steps, so there is no order; ancestral and ddim are those of this plugin with their defaults.
    """
    kernels = sized(STEPS[corrector], r, process, ts[1:], x)
    arrivals = predicted(predictor, process, score, x, ts, noise)
    return descend(arrivals, kernels, score, x, ts, noise, inner)


def _adjusted_evals(predictor: str, corrector: str, leapfrog: int, inner: int, **_: Any) -> int:
    """A score and a density come before the first proposal."""
    return _evals(predictor) + 2 + inner * (2 if corrector == "mala" else leapfrog + 1)


@labcore.sampler(
    order=None,
    evals=5,
    evals_of=_adjusted_evals,
    stochastic=True,
    needs=("log_p_t",),
    cite="Song et al. (2021) arXiv:2011.13456, Algorithm 1; Besag (1994); Neal (2011)",
)
def predictor_metropolis(
    process: Process,
    score: CountedScore,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    predictor: Name = "ancestral",
    corrector: Literal["mala", "hmc"] = "mala",
    r: Size = 0.3,
    leapfrog: Count = 3,
    inner: Count = 1,
) -> Chain:
    """A predictor step from t to s, then ``inner`` proposals on p_s, accepted or refused.

    ``mala`` proposes the step of predictor_corrector's ``fixed`` rule, e = 2 r^2; ``hmc`` goes
    ``leapfrog`` steps of length 2r. The corrector has no error of its own: what is left is the
    predictor's, at the rate at which the chain removes it. The acceptance comes back as a row.
    """
    us = ts[1:]
    if corrector == "mala":
        proposals = drifts(process, us, x, 2 * r**2, 0.0)
    else:
        proposals = shots(process, us, x, 2 * r, leapfrog, 0.0)
    kernels = metropolised(us, with_score, proposals)
    arrivals = predicted(predictor, process, score, x, ts, noise)
    return descend(arrivals, kernels, score, x, ts, noise, inner)

"""Methods on the reverse SDE with any rate lam(t) >= 0, whose noise is additive.

    dX = [ A X - (1 + lam^2)/2 G G^T s(X,t) ] dt + lam G dWbar

lam = 1 is Anderson's reverse SDE, lam = 0 the probability flow. As an option the rate is a line in
t, from ``lam`` at the grid's first time to ``lam_end`` at its last; ``with_rate`` makes a sampler
of any function of t. In u = -t, with h = t - s > 0, b = lam G and a the negative of the drift
above, every method is a row of stages

    H_i = x_t + h sum_j A_ij a(t - c_i h, H_j) + noise,    x_s = x_t + h sum_i alpha_i a_i + noise

whose noise is made of b at two times, the increment and the space-time area of one path.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Scalar, Score
from labcore_samplers.affine import affine_steps
from labcore_samplers.slopes import slopes

Rate = Callable[[Tensor], Tensor]
NonNegative = Annotated[float, Ge(0)]
Method = Callable[[Process, Score, Tensor, Tensor, Noise, Rate], Iterator[Tensor]]


def line(ts: Tensor, lam: float, lam_end: float | None) -> Rate:
    """The rate lam at ts[0], lam_end (by default lam) at ts[-1], linear in between."""
    end = lam if lam_end is None else lam_end
    return lambda t: end + (lam - end) * (t - ts[-1]) / (ts[0] - ts[-1])


def euler_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: Rate
) -> Iterator[Tensor]:
    """Euler-Maruyama."""
    t, h, lam = ts[:-1], ts.diff(), rate(ts[:-1])
    P = Scalar(torch.ones_like(h)) + process.A(t) * h
    Q = process.GG(t) * (-(1 + lam**2) / 2 * h)
    R = process.G(t) * (lam * (-h).sqrt()) if bool(lam.any()) else None
    return affine_steps(score, x, ts, noise, P, Q, R)


def heun_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: Rate
) -> Iterator[Tensor]:
    """x' = x + h a(t, x) + sqrt(h) b_t z, x_s = x + h/2 [a(t, x) + a(s, x')] + sqrt(h) b z.

    b is the mean of b_t and b_s.
    """
    h, lam = -ts.diff(), rate(ts)
    fields = slopes(process, ts, x, (1 + lam**2) / 2)
    B = process.G(ts) * lam
    kick = (B.map(lambda p: p[:-1]) * h.sqrt()).per_step(x)
    push = ((B.map(lambda p: p[:-1]) + B.map(lambda p: p[1:])) * (h.sqrt() / 2)).per_step(x)
    for i, (t, s) in enumerate(pairwise(ts)):
        z, step = noise(t, s), float(h[i])
        a = fields[i](score, x)
        ahead = kick[i].accumulate(torch.sub(x, a, alpha=step), z)
        a = a + fields[i + 1](score, ahead)
        x = push[i].accumulate(torch.sub(x, a, alpha=step / 2), z)
        yield x


SRA: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "sra1": ((1, 0), (1, 0), (-1, 1)),
    "sra2": ((1 / 3, 1), (0, 1), (3 / 2, -3 / 2)),
}
"""c1, beta1 and beta2; both have alpha = (1/3, 2/3), c0 = (0, 3/4), A0 = 3/4 and B0 = 3/2."""


def sra_steps(name: str) -> Method:
    """Roessler's methods of two stages, with W the increment and I = int W du of the path.

    H = x + 3/4 h a(t, x) + 3/2 b_1 I/h,   b_i = b(t - c1_i h)
    x_s = x + h/3 [a(t, x) + 2 a(t - 3/4 h, H)] + sum_i b_i (beta1_i W + beta2_i I/h)
    """
    c1, beta1, beta2 = SRA[name]

    def steps(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: Rate
    ) -> Iterator[Tensor]:
        t, h = ts[:-1], -ts.diff()
        inner = t - 0.75 * h
        first = slopes(process, t, x, (1 + rate(t) ** 2) / 2)
        second = slopes(process, inner, x, (1 + rate(inner) ** 2) / 2)
        at = [torch.maximum(t - c * h, ts[1:]) for c in c1]
        b1, b2 = [process.G(u) * (rate(u) * h.sqrt()) for u in at]
        # W = sqrt(h) z and I/h = sqrt(h) (z/2 + k/sqrt(12)), so that z and k are weighed.
        on_W, on_I = b1 * beta1[0] + b2 * beta1[1], b1 * beta2[0] + b2 * beta2[1]
        parts = (1.5 * b1, on_W, on_I)
        plan = zip(h.tolist(), first, second, *(p.per_step(x) for p in parts), strict=True)
        for (t, s), (dt, a1, a2, inside, by_W, by_I) in zip(pairwise(ts), plan, strict=True):
            z, k = noise.levy(t, s)
            area = z / 2 + k / 12**0.5
            a = a1(score, x)
            H = inside.accumulate(torch.sub(x, a, alpha=0.75 * dt), area)
            x = torch.sub(x, a, alpha=dt / 3).sub_(a2(score, H), alpha=2 * dt / 3)
            x = by_I.accumulate(by_W.accumulate(x, z), area)
            yield x

    return steps


def entry(steps: Method, doc: str, **traits: Any) -> Entry:
    """The sampler of one method, its rate a line in t."""

    def integrate(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        lam: NonNegative = 1.0,
        lam_end: NonNegative | None = None,
    ) -> Iterator[Tensor]:
        return steps(process, score, x, ts, noise, line(ts, lam, lam_end))

    integrate.__doc__ = doc
    made: Entry = labcore.sampler(stochastic=True, **traits)(integrate)
    return made


def with_rate(steps: Method, rate: Rate, **traits: Any) -> Entry:
    """A sampler by ``steps`` with lam(t) a function of times (n,), in an own plugin.

    with_rate(euler_steps, lambda t: t.sqrt(), name="mine", order=1, evals=1)
    """

    def integrate(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        return steps(process, score, x, ts, noise, rate)

    made: Entry = labcore.sampler(stochastic=True, **traits)(integrate)
    return made


ROESSLER = "Roessler (2010) SIAM J. Numer. Anal. 48(3), section 6.2"
reverse_sde = entry(
    euler_steps,
    "Euler-Maruyama on the reverse SDE whose rate is a line in t.",
    name="reverse_sde",
    order=1,
    strong=1,
    evals=1,
    cite="Maruyama (1955); Song et al. (2021) arXiv:2011.13456; Huang et al. (2021)",
)
stochastic_heun = entry(
    heun_steps,
    "Heun's method on the reverse SDE: order 2 in law, 1 on a path.",
    name="stochastic_heun",
    order=2,
    strong=1,
    evals=2,
    cite="Kloeden, Platen (1992), section 15.1, eq. 1.3 with additive noise",
)
sra1, sra2 = [
    entry(
        sra_steps(name),
        f"{name.upper()} on the reverse SDE: order 2 in law, 1.5 on a path, by space-time areas.",
        name=name,
        order=2,
        strong=1.5,
        evals=2,
        cite=f"{ROESSLER}, {name.upper()}",
    )
    for name in SRA
]

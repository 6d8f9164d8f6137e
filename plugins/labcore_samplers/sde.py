"""Methods on the reverse SDE with any rate lam(t) >= 0, whose noise is additive.

    dX = [ A X - (1 + lam^2)/2 G G^T s(X,t) ] dt + lam G dWbar

lam = 1 is Anderson's reverse SDE, lam = 0 the probability flow. As an option the rate is a number
or knots of a function of t (labcore_samplers.rates); ``with_rate`` makes a sampler of any function
of t. In u = -t, with h = t - s > 0, b = lam G and a the negative of the drift above, every method
is a row of stages

    H_i = x_t + h sum_j A_ij a(t - c_i h, H_j) + noise,    x_s = x_t + h sum_i alpha_i a_i + noise

whose noise is made of b at two times, the increment and the space-time area of one path.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore import Entry, LinOp, Noise, Process, Scalar, Score
from labcore_samplers.affine import affine_steps
from labcore_samplers.kicked import Factors, kicked_steps
from labcore_samplers.rates import Rate, RateOf, rate_of
from labcore_samplers.runge_kutta import combine
from labcore_samplers.slopes import slopes

Method = Callable[[Process, Score, Tensor, Tensor, Noise, RateOf], Iterator[Tensor]]


def euler_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: RateOf
) -> Iterator[Tensor]:
    """Euler-Maruyama."""
    P, Q, R = euler_factors(process, ts, rate)
    if R is None:
        return affine_steps(score, x, ts, P, Q)
    return kicked_steps(score, x, ts, noise, P, Q, R)


def euler_factors(process: Process, ts: Tensor, rate: RateOf) -> Factors:
    """What multiplies x_t, the score and, unless the rate is zero throughout, z."""
    t = ts[:-1]
    h, lam = ts[1:] - t, rate(t)
    P = Scalar(torch.ones_like(h)) + process.A(t) * h
    Q = process.GG(t) * ((lam * lam + 1) * (h / -2))
    return P, Q, process.G(t) * (lam * (-h).sqrt()) if bool(lam.any()) else None


def heun_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: RateOf
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


Row = tuple[float, ...]


@dataclass(frozen=True)
class Sra:
    """A method of Roessler's for additive noise: A0 and B0 by strictly lower rows."""

    alpha: Row
    beta1: Row
    beta2: Row
    c0: Row
    c1: Row
    A0: tuple[Row, ...]
    B0: tuple[Row, ...]
    order: float = 2


SRA1 = Sra(
    alpha=(1 / 3, 2 / 3),
    beta1=(1, 0),
    beta2=(-1, 1),
    c0=(0, 3 / 4),
    c1=(1, 0),
    A0=((), (3 / 4,)),
    B0=((), (3 / 2,)),
)
SRA = {
    "sra1": SRA1,
    "sra2": replace(SRA1, beta1=(0, 1), beta2=(3 / 2, -3 / 2), c1=(1 / 3, 1)),
    "sra3": Sra(
        alpha=(1 / 6, 1 / 6, 2 / 3),
        beta1=(1, 0, 0),
        beta2=(-1, 1, 0),
        c0=(0, 1, 1 / 2),
        c1=(1, 0, 0),
        A0=((), (1,), (1 / 4, 1 / 4)),
        B0=((), (), (1, 1 / 2)),
    ),
}


def sra_steps(name: str) -> Method:
    """Roessler's methods, with W the increment and I = int W du of the path.

    H_i = x + h sum_j A0_ij a(t - c0_j h, H_j) + sum_j B0_ij b_j I/h,   b_j = b(t - c1_j h)
    x_s = x + h sum_i alpha_i a(t - c0_i h, H_i) + sum_j b_j (beta1_j W + beta2_j I/h)
    """
    table = SRA[name]

    def steps(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, rate: RateOf
    ) -> Iterator[Tensor]:
        t, h = ts[:-1], -ts.diff()

        def at(c: float) -> Tensor:
            return torch.maximum(t - c * h, ts[1:])

        fields = [slopes(process, u, x, (1 + rate(u) ** 2) / 2) for u in map(at, table.c0)]
        # W = sqrt(h) z and I/h = sqrt(h) (z/2 + k/sqrt(12)), so that z and k are weighed.
        b = [process.G(u) * (rate(u) * h.sqrt()) for u in map(at, table.c1)]
        rows = (*table.B0, table.beta1, table.beta2)
        *inside, by_W, by_I = (weighed(row, b, x) for row in rows)
        for i, (t_, s_) in enumerate(pairwise(ts)):
            (z, k), dt = noise.levy(t_, s_), -float(h[i])
            area, slopes_ = z / 2 + k / 12**0.5, list[Tensor]()
            for field, row, kick in zip(fields, table.A0, inside, strict=True):
                H = combine(x, dt, row, slopes_)
                slopes_.append(field[i](score, kick[i].accumulate(H, area) if kick else H))
            x = combine(x, dt, table.alpha, slopes_)
            x = by_I[i].accumulate(by_W[i].accumulate(x, z), area)
            yield x

    return steps


def weighed(row: Row, b: Sequence[LinOp], x: Tensor) -> list[Any]:
    """sum_j row_j b_j for every step, cast to the state; nothing where the row is zero."""
    terms = [op * w for w, op in zip(row, b, strict=False) if w]
    return reduce(add, terms).per_step(x) if terms else []


def entry(steps: Method, doc: str, **traits: Any) -> Entry:
    """The sampler of one method, its rate an option."""

    def integrate(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        lam: Rate = 1.0,
    ) -> Iterator[Tensor]:
        return steps(process, score, x, ts, noise, rate_of(lam))

    integrate.__doc__ = (
        f"{doc}\n\n``lam`` is the noise rate: a number, or knots [[t, lam], ..] joined by lines."
    )
    made: Entry = labcore.sampler(stochastic=True, **traits)(integrate)
    return made


def with_rate(steps: Method, rate: RateOf, **traits: Any) -> Entry:
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
    "Euler-Maruyama on the reverse SDE with any rate lam(t).",
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
sra1, sra2, sra3 = [
    entry(
        sra_steps(name),
        f"{name.upper()} on the reverse SDE: order {table.order:g} in law, 1.5 on a path, by "
        "space-time areas.",
        name=name,
        order=table.order,
        strong=1.5,
        evals=len(table.alpha),
        cite=f"{ROESSLER}, {name.upper()}",
    )
    for name, table in SRA.items()
]

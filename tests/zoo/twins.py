"""Correct samplers, written as plainly as an author would, and made of parts a fault can change.

t is now, s < t next, h = s - t < 0, v the probability-flow velocity, z ~ N(0, I).
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import labcore
from labcore import Noise, Process, Score
from zoo.keeping import twin

ODE = {"order": 1, "evals": 1, "stochastic": False}
HEUN = {"order": 2, "evals": 2, "stochastic": False}
SDE = {"order": 1, "strong": 1, "evals": 1, "stochastic": True}


def gap(t: Tensor, s: Tensor) -> float:
    """h = s - t as a number."""
    return float(s - t)


def euler_step(process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return x + gap(t, s) * labcore.velocity(process, score)(t, x)


@twin(**ODE)
def euler(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Euler's step on the probability flow."""
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s)
        yield x


@twin(**HEUN)
def heun(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The mean of the slopes at both ends."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h, slope = gap(t, s), v(t, x)
        x = x + h / 2 * (slope + v(s, x + h * slope))
        yield x


@twin(**HEUN)
def midpoint(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The slope half way."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h = gap(t, s)
        x = x + h * v(t + h / 2, x + h / 2 * v(t, x))
        yield x


def ab2_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, weight: float = 0.5
) -> Iterator[Tensor]:
    """x + h (v + weight h/h_old (v - v_old)), Euler first."""
    v, old, h_old = labcore.velocity(process, score), torch.zeros_like(x), float("inf")
    for t, s in pairwise(ts):
        new, h = v(t, x), gap(t, s)
        x = x + h * (new + weight * h / h_old * (new - old))
        old, h_old = new, h
        yield x


@twin(order=2, evals=1, stochastic=False)
def ab2(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of two steps on any grid."""
    return ab2_steps(process, score, x, ts)


Weights = Callable[[list[float], float], list[float]]


def newton_weights(
    known: list[float], s: float, first: float = 1.0, second: float = 1.0
) -> list[float]:
    """Weights of v_0, v_1, v_2 for the integral over [t_0, s] of the parabola through them.

    v(u) = v_0 + D_1 (u - t_0) + D_2 (u - t_0)(u - t_1) with divided differences D; ``first`` and
    ``second`` are factors on the last two terms.
    """
    t0, h = known[0], s - known[0]
    if len(known) == 1:
        return [h]
    a = t0 - known[1]
    on_first = first * h * h / 2
    weights = [h + on_first / a, -on_first / a]
    if len(known) == 2:
        return weights
    b, c = known[1] - known[2], t0 - known[2]
    on_second = second * (h**3 / 3 + a * h * h / 2)
    return [
        weights[0] + on_second / (a * c),
        weights[1] - on_second / c * (1 / a + 1 / b),
        on_second / (b * c),
    ]


def ab3_steps(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    weights: Weights = newton_weights,
    start: Any = None,
) -> Iterator[Tensor]:
    """Three-step Adams-Bashforth; the first step is Heun's, or ``start``."""
    v = labcore.velocity(process, score)
    known: list[float] = []
    slopes: list[Tensor] = []
    for i, (t, s) in enumerate(pairwise(ts)):
        known, slopes = [float(t), *known][:3], [v(t, x), *slopes][:3]
        if i == 0 and start is None:
            h = gap(t, s)
            x = x + h / 2 * (slopes[0] + v(s, x + h * slopes[0]))
        else:
            for w, k in zip(weights(known, float(s)), slopes, strict=True):
                x = x + w * k
        yield x


@twin(order=3, evals=1, extra=1, stochastic=False)
def ab3(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of three steps on any grid, Heun's step first."""
    return ab3_steps(process, score, x, ts)


@twin(**ODE)
def ddim(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """x_s = Phi(s,t) x - (Phi(s,t) L_t - L_s) L_t^T g, for operators that commute."""
    for t, s in pairwise(ts):
        back, L_t, L_s = process.Phi(t, s).inv, process.Sigma(t).chol, process.Sigma(s).chol
        x = back @ x + (back @ L_t - L_s) @ (L_t.T @ score(x, t))
        yield x


def alpha_sigma(process: Process, ts: Tensor) -> tuple[list[float], list[float], list[float]]:
    """alpha, sigma and lambda = log(alpha/sigma) along the grid, of a scalar process."""
    alpha = process.Phi(ts, torch.zeros_like(ts)).param.expand(len(ts))
    sigma = process.Sigma(ts).param.sqrt()
    return alpha.tolist(), sigma.tolist(), (alpha.log() - sigma.log()).tolist()


def dpmpp_3m_steps(
    process: Process, score: Score, x: Tensor, ts: Tensor, second: float = 2.0
) -> Iterator[Tensor]:
    """x0 as a parabola in lambda; ``second`` times the divided difference is its curvature.

    With r = (lambda - lambda_t)/h in [0, 1], m(r) = m + D1 r + second D2 r^2/2 and
    x_s = sigma_s/sigma_t x + alpha_s (phi1 m + phi2 D1 + phi3 second D2), phi1 = 1 - e^-h,
    phi2 = 1 - phi1/h, phi3 = 1/2 - phi2/h. The first step is Heun's in lambda.
    """
    alpha, sigma, lam = alpha_sigma(process, ts)
    clean = labcore.x0_from_score(process, score)
    past: list[tuple[float, Tensor]] = []
    for i, (t, s) in enumerate(pairwise(ts)):
        m, h = clean(x, t), lam[i + 1] - lam[i]
        phi1 = -float(torch.expm1(torch.tensor(-h, dtype=torch.float64)))
        phi2 = 1 - phi1 / h
        phi3 = 0.5 - phi2 / h
        y = sigma[i + 1] / sigma[i] * x + alpha[i + 1] * phi1 * m
        if i == 0:
            y = y + alpha[1] * phi2 * (clean(y, s) - m)
        elif i == 1:
            y = y + alpha[2] * phi2 * h / past[0][0] * (m - past[0][1])
        else:
            (h1, m1), (h2, m2) = past
            near, far = h / h1 * (m - m1), h / h2 * (m1 - m2)
            D2 = (near - far) * h / (h1 + h2)
            D1 = near + D2 * h1 / h
            y = y + alpha[i + 1] * (phi2 * D1 + phi3 * second * D2)
        x, past = y, [(h, m), *past][:2]
        yield x


@twin(order=3, evals=1, extra=1, stochastic=False, needs=("scalar",))
def dpmpp_3m(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """DPM-Solver++(3M), Lu et al. (2022), its first step of order 2."""
    return dpmpp_3m_steps(process, score, x, ts)


def em_step(
    process: Process,
    score: Score,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    z: Tensor,
    *,
    drift: float = 1.0,
    diffusion: float = 1.0,
) -> Tensor:
    """Euler-Maruyama with a factor on the score's coefficient and one on G."""
    h = float(t - s)
    x = x - h * (process.A(t) @ x) + drift * h * (process.GG(t) @ score(x, t))
    return x + diffusion * h**0.5 * (process.G(t) @ z)


@twin(**SDE)
def em(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Euler-Maruyama on Anderson's reverse SDE."""
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, noise(t, s))
        yield x


@twin(**SDE)
def ancestral(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """A draw of X_s | X_t, x0 at Tweedie's x0."""
    for t, s in pairwise(ts):
        Phi, Q = process.transition(t, s)
        C = process.posterior(s, t)[1]
        x = Phi.inv @ (x + Q @ score(x, t)) + C.chol @ noise(t, s)
        yield x


def stochastic_heun_step(
    process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """Heun on the reverse SDE, with the draws of its stage and of its step."""
    h, drift = float(t - s), labcore.reverse_drift(process, score)
    G_t, G_s = process.G(t), process.G(s)
    a = drift(t, x)
    ahead = x - h * a + h**0.5 * (G_t @ first)
    kick = h**0.5 / 2 * (G_t @ last + G_s @ last)
    return x - h / 2 * (a + drift(s, ahead)) + kick


@twin(order=2, strong=1, evals=2, stochastic=True)
def stochastic_heun(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Order 2 in law, 1 on a path: one draw a step, in both stages."""
    for t, s in pairwise(ts):
        z = noise(t, s)
        x = stochastic_heun_step(process, score, x, t, s, z, z)
        yield x

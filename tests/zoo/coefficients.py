"""Faults in a coefficient: a factor, a symbol, a weight, a start, an assumption on the process."""

from itertools import pairwise

import torch
from torch import Tensor

import labcore
from zoo.keeping import faint, fault
from zoo.twins import (
    ab2,
    ab2_steps,
    ab3,
    ab3_steps,
    alpha_sigma,
    ancestral,
    ddim,
    dpmpp_3m,
    dpmpp_3m_steps,
    em,
    em_step,
    euler,
    gap,
    heun,
    midpoint,
    newton_weights,
)

SCALAR = ("vp", "vp_cosine", "sub_vp", "ve", "sigma_t", "edm", "flow")
ANY = (*SCALAR, "diag", "ou", "cld")


@fault("order", ab3, "vp", "diag", "cld", "sigma_t")
def second_difference_without_its_half(process, score, x, ts, noise):
    """The divided difference stands for v''/2; here it counts twice."""
    return ab3_steps(process, score, x, ts, lambda k, s: newton_weights(k, s, second=2.0))


@fault("nonlinear", dpmpp_3m, "vp", "sigma_t", "vp_cosine", "sub_vp")
def curvature_of_3m_without_its_two(process, score, x, ts, noise):
    """DPM-Solver++(3M) with the divided difference where the second derivative belongs.

    On Gaussian data what is left of order 2 can be too small to see.
    """
    return dpmpp_3m_steps(process, score, x, ts, second=1.0)


@fault("order", ab2, "vp", "diag", "cld", "sigma_t")
def ab2_weight_of_a_third(process, score, x, ts, noise):
    return ab2_steps(process, score, x, ts, weight=1 / 3)


@fault("order", ab2, "vp", "diag", "cld", "sigma_t")
def ab2_sign_of_the_difference(process, score, x, ts, noise):
    return ab2_steps(process, score, x, ts, weight=-1 / 2)


@fault("order", ab2, "vp", "edm", "diag", "cld", "sigma_t")
def ab2_weight_off_by_two_percent(process, score, x, ts, noise):
    """Of order 2 as far as 512 steps on VP: the term of order 1 is a 50th of Euler's."""
    return ab2_steps(process, score, x, ts, weight=0.51)


def of_equal_steps(known: list[float], s: float) -> list[float]:
    h, table = s - known[0], {1: [1.0], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12]}
    return [h * w for w in table[len(known)]]


@fault("order", ab3, "vp", "diag", "cld", "sigma_t")
def ab3_weights_of_equal_steps(process, score, x, ts, noise):
    """23/12, -16/12, 5/12, which hold where all steps are equal."""
    return ab3_steps(process, score, x, ts, of_equal_steps)


@fault("order", ab2, "vp", "diag", "cld", "sigma_t")
def ab2_weights_of_equal_steps(process, score, x, ts, noise):
    v, old = labcore.velocity(process, score), None
    for t, s in pairwise(ts):
        new = v(t, x)
        x = x + gap(t, s) * (new if old is None else 1.5 * new - 0.5 * old)
        old = new
        yield x


def last_two_swapped(known: list[float], s: float) -> list[float]:
    weights = newton_weights(known, s)
    return [weights[0], *weights[:0:-1]]


@fault("order", ab3, "vp", "diag", "cld", "sigma_t")
def ab3_history_in_the_wrong_order(process, score, x, ts, noise):
    return ab3_steps(process, score, x, ts, last_two_swapped)


@fault("order", ab3, "vp", "diag", "cld", "sigma_t", extra=0)
def ab3_started_by_euler(process, score, x, ts, noise):
    """Rising through the orders leaves h^2 from the first step."""
    return ab3_steps(process, score, x, ts, start="rising")


@fault("order", euler, "vp", "diag", "ou", "cld", order=2)
def order_two_declared_for_euler(process, score, x, ts, noise):
    return euler.fn(process, score, x, ts, noise)


@fault("order", heun, "vp", "diag", "sigma_t", "sub_vp", "vp_cosine")
def heun_with_t_for_s(process, score, x, ts, noise):
    """A and G of the second slope at t, its score at s."""
    for t, s in pairwise(ts):
        h, slope = gap(t, s), labcore.velocity(process, score)(t, x)
        ahead = x + h * slope
        end = process.A(t) @ ahead - 0.5 * (process.GG(t) @ score(ahead, s))
        x = x + h / 2 * (slope + end)
        yield x


@fault("order", midpoint, "vp", "diag", "sigma_t", "cld")
def midpoint_with_the_score_of_t(process, score, x, ts, noise):
    """The state of the middle with the time of the start."""
    for t, s in pairwise(ts):
        h, v = gap(t, s), labcore.velocity(process, score)
        x = x + h * v(t, x + h / 2 * v(t, x))
        yield x


@fault("order", ddim, *SCALAR, "diag")
def ddim_with_sigma_of_t_for_that_of_s(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        back, L = process.Phi(t, s).inv, process.Sigma(t).chol
        x = back @ x + (back @ L - L) @ (L @ score(x, t))
        yield x


@fault("consistency", em, *ANY)
def g_too_large_by_root_two(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, noise(t, s), diffusion=2**0.5)
        yield x


@fault("order", em, *ANY)
def half_the_drift(process, score, x, ts, noise):
    """(1 + lam^2)/2 of the probability flow with the noise of lam = 1."""
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, noise(t, s), drift=0.5)
        yield x


@fault("variables", euler, "vp", "diag", "sub_vp", "vp_cosine")
def no_linear_part(process, score, x, ts, noise):
    """The drift of a process with A = 0."""
    for t, s in pairwise(ts):
        x = x - gap(t, s) / 2 * (process.GG(t) @ score(x, t))
        yield x


@fault("consistency", ddim, "ve", "sigma_t", "sub_vp", "flow", needs=("scalar",))
def alpha_taken_to_be_that_of_vp(process, score, x, ts, noise):
    """alpha = sqrt(1 - sigma^2), whatever the process says."""
    _, sigma, _ = alpha_sigma(process, ts)
    alpha = [abs(1 - v * v) ** 0.5 for v in sigma]
    for i, t in enumerate(ts[:-1]):
        ratio = alpha[i + 1] / alpha[i]
        x = ratio * x + (ratio * sigma[i] - sigma[i + 1]) * sigma[i] * score(x, t)
        yield x


@fault("rotation", ancestral, "ou")
def the_root_transposed(process, score, x, ts, noise):
    """L^T z has the covariance L^T L, which is C for symmetric roots alone."""
    for t, s in pairwise(ts):
        Phi, Q = process.transition(t, s)
        kick = process.posterior(s, t)[1].chol.T @ noise(t, s)
        x = Phi.inv @ (x + Q @ score(x, t)) + kick
        yield x


@fault("rotation", em, "ou")
def one_rate_for_all_coordinates(process, score, x, ts, noise):
    """The first coordinate's G^2 stands for all of them: right on scalar processes alone."""
    for t, s in pairwise(ts):
        h, event = float(t - s), tuple(x.shape[1:])
        rate = float(process.GG(t).dense(event)[0, 0, 0])
        x = x - h * (process.A(t) @ x) + h * rate * score(x, t)
        x = x + (h * rate) ** 0.5 * noise(t, s)
        yield x


@fault("consistency", em, "cld")
def noise_on_the_position_too(process, score, x, ts, noise):
    """sqrt(tr G G^T) on both channels of a process that kicks the velocity alone."""
    for t, s in pairwise(ts):
        h, z = float(t - s), noise(t, s)
        rate = float(process.GG(t).param[..., 1, 1])
        x = x - h * (process.A(t) @ x) + h * (process.GG(t) @ score(x, t)) + (h * rate) ** 0.5 * z
        yield x


@fault("consistency", euler, *SCALAR, "diag", "ou")
def times_clamped(process, score, x, ts, noise):
    """The score and the coefficients are never asked below a fixed time."""
    floor = 0.5 * ts[0]
    for t, s in pairwise(ts):
        x = x + gap(t, s) * labcore.velocity(process, score)(torch.maximum(t, floor), x)
        yield x


@faint("variables", heun, "vp", "vp_cosine")
def score_at_rounded_times(process, score, x, ts, noise):
    """A table of twenty noise levels, as of a network trained on integer times."""
    levels = torch.linspace(float(ts[0]), float(ts[-1]), 21, dtype=torch.float64)

    def nearest(x: Tensor, t: Tensor) -> Tensor:
        return score(x, levels[(levels - t).abs().argmin()])

    return heun.fn(process, nearest, x, ts, noise)


@fault("consistency", heun, "vp", "sub_vp", "vp_cosine")
def sigma_passed_for_t(process, score, x, ts, noise):
    """The noise level where the time belongs: the same on EDM and on flows alone."""

    def of_sigma(x: Tensor, t: Tensor) -> Tensor:
        sigma = process.Sigma(torch.as_tensor(t)).param.sqrt().reshape(t.shape)
        return score(x, sigma.clamp(ts[-1], ts[0]))

    return heun.fn(process, of_sigma, x, ts, noise)


@faint("order", ancestral, "ou")
def the_root_transposed_in_law(process, score, x, ts, noise):
    """A plateau a hundredth of the data's width, under an error of order 1."""
    return the_root_transposed.fn(process, score, x, ts, noise)


@fault("nonlinear", heun, "vp", "sub_vp", "vp_cosine", "sigma_t", "flow", evals=4)
def score_smoothed_in_space(process, score, x, ts, noise):
    """The mean of the scores on either side, which is the score itself where that is affine."""

    def smoothed(x: Tensor, t: Tensor) -> Tensor:
        away = process.Sigma(torch.as_tensor(t)).chol.apply(torch.ones_like(x))
        both = score(torch.cat([x + away, x - away]), t)
        return (both[: len(x)] + both[len(x) :]) / 2

    return heun.fn(process, smoothed, x, ts, noise)


@fault("nonlinear", heun, "vp", "sub_vp", "vp_cosine", "sigma_t", "flow", evals=3)
def slope_ahead_by_a_far_difference(process, score, x, ts, noise):
    """v(s, x + h v) by a difference over a whole unit of v: exact for affine scores alone."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h, slope = gap(t, s), v(t, x)
        near, far = v(s, x), v(s, x + slope)
        x = x + h / 2 * (slope + near + h * (far - near))
        yield x

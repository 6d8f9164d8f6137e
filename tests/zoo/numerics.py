"""Faults of numbers: precision, thresholds in the step count, zero steps, unstable recursions."""

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
    ddim,
    euler,
    gap,
    heun,
    midpoint,
)

WIDE = ("vp", "ve", "sigma_t", "diag", "ou", "cld")


def rounded(op, dtype):
    """An operator whose numbers went through ``dtype``."""
    return op.map(lambda p: p.to(dtype).double())


@fault("precision", heun, "vp", "ve", "sigma_t", "diag")
def coefficients_in_float32(process, score, x, ts, noise):
    """A and G G^T from a float32 table, in a float64 run."""
    single = torch.float32

    def v(t: Tensor, x: Tensor) -> Tensor:
        t = torch.as_tensor(t)
        A, GG = rounded(process.A(t), single), rounded(process.GG(t), single)
        return A @ x - 0.5 * (GG @ score(x, t))

    for t, s in pairwise(ts):
        h, slope = gap(t, s), v(t, x)
        x = x + h / 2 * (slope + v(s, x + h * slope))
        yield x


@faint("consistency", midpoint, *WIDE)
def coefficients_in_bfloat16(process, score, x, ts, noise):
    half = torch.bfloat16

    def v(t: Tensor, x: Tensor) -> Tensor:
        return rounded(process.A(t), half) @ x - 0.5 * (rounded(process.GG(t), half) @ score(x, t))

    for t, s in pairwise(ts):
        h = gap(t, s)
        x = x + h * v(t + h / 2, x + h / 2 * v(t, x))
        yield x


@faint("precision", heun, "ou", "cld")
def constant_coefficients_in_float32(process, score, x, ts, noise):
    """Where they are the same at all times, rounding makes another process and no noise."""
    return coefficients_in_float32.fn(process, score, x, ts, noise)


@fault("precision", heun, *WIDE)
def state_through_float32(process, score, x, ts, noise):
    for y in heun.fn(process, score, x, ts, noise):
        yield y.float().to(x)


@fault("precision", ab2, *WIDE)
def state_carried_in_float32(process, score, x, ts, noise):
    """float32 within, cast back as it leaves."""

    def single(x: Tensor, t: Tensor) -> Tensor:
        return score(x.to(kind), t).float()

    kind = x.dtype
    for y in ab2_steps(process, single, x.float(), ts):
        yield y.to(kind)


@fault("precision", heun, *WIDE)
def times_in_float32(process, score, x, ts, noise):
    def rough(x: Tensor, t: Tensor) -> Tensor:
        return score(x, torch.as_tensor(t).float().double().clamp(ts[-1], ts[0]))

    return heun.fn(process, rough, x, ts, noise)


@fault("precision", ddim, "vp", "ve", "sigma_t", "edm", "sub_vp")
def alpha_bar_table_in_float32(process, score, x, ts, noise):
    """sqrt(1 - alpha^2) and its like from a cumulative product kept in float32."""
    alpha = process.Phi(ts, torch.zeros_like(ts)).param.expand(len(ts)).float().double()
    sigma = process.Sigma(ts).param.float().double().sqrt()
    for i, t in enumerate(ts[:-1]):
        ratio = float(alpha[i + 1] / alpha[i])
        pull = (ratio * float(sigma[i]) - float(sigma[i + 1])) * float(sigma[i])
        x = ratio * x + pull * score(x, t)
        yield x


@fault("steps", ab2, *WIDE)
def euler_at_the_end_of_short_runs(process, score, x, ts, noise):
    """The last step is Euler's below fifteen steps, and no word of it."""
    v, old, h_old = labcore.velocity(process, score), torch.zeros_like(x), float("inf")
    for t, s in pairwise(ts):
        new, h = v(t, x), gap(t, s)
        short = len(ts) - 1 < 15 and s == ts[-1]
        x = x + h * (new if short else new + h / h_old / 2 * (new - old))
        old, h_old = new, h
        yield x


@fault("steps", ab2, *WIDE)
def euler_below_fifteen_steps(process, score, x, ts, noise):
    short = len(ts) - 1 < 15
    return (euler if short else ab2).fn(process, score, x, ts, noise)


@fault("steps", heun, *WIDE)
def midpoint_above_fifty_steps(process, score, x, ts, noise):
    """Another method of the same order and cost."""
    long = len(ts) - 1 > 50
    return (midpoint if long else heun).fn(process, score, x, ts, noise)


@fault("steps", euler, "vp", "ve", "sigma_t", "diag")
def ddim_from_twenty_steps_on(process, score, x, ts, noise):
    many = len(ts) - 1 >= 20
    return (ddim if many else euler).fn(process, score, x, ts, noise)


@faint("steps", euler, *WIDE)
def another_method_for_even_counts(process, score, x, ts, noise):
    even = len(ts) % 2 == 1
    for t, s in pairwise(ts):
        at = s if even else t
        slope = process.A(at) @ x - 0.5 * (process.GG(at) @ score(x, t))
        x = x + gap(t, s) * slope
        yield x


@fault("steps", ab2, *WIDE)
def last_step_of_length_zero(process, score, x, ts, noise):
    """The grid's last time twice, the one before it never."""
    own = torch.cat([ts[:-2], ts[-1:], ts[-1:]]) if len(ts) > 2 else ts
    v, old, h_old = labcore.velocity(process, score), torch.zeros_like(x), float("inf")
    for t, s in pairwise(own):
        new, h = v(t, x), gap(t, s)
        x = x + h * (new + h / h_old / 2 * (new - old))
        old, h_old = new, h
        yield x


@fault("steps", euler, *WIDE)
def times_repeated_by_rounding(process, score, x, ts, noise):
    """Times rounded to a hundredth of the span, so that many steps are of length zero."""
    share = ((ts - ts[-1]) / (ts[0] - ts[-1]) * 100).round() / 100
    own = (ts[-1] + share * (ts[0] - ts[-1])).clamp(ts[-1], ts[0])
    return euler.fn(process, score, x, own, noise)


@fault("steps", ab3, *WIDE)
def needs_four_steps(process, score, x, ts, noise):
    """Fails where the history is longer than the run."""
    if len(ts) < 4:
        raise IndexError("list index out of range")
    return ab3_steps(process, score, x, ts)


@fault("steps", euler, *WIDE)
def nan_at_one_step_count(process, score, x, ts, noise):
    """0/0 where a share of the steps comes out as an integer."""
    n = len(ts) - 1
    for y in euler.fn(process, score, x, ts, noise):
        yield y * (float("nan") if n == 48 else 1.0)


@fault("stability", ab2, "vp", "sigma_t", "diag")
def an_unstable_two_step_method(process, score, x, ts, noise):
    """x_{n+1} = -4 x_n + 5 x_{n-1} + h (4 v_n + 2 v_{n-1}): consistent, its root is -5."""
    v = labcore.velocity(process, score)
    before, old = x, torch.zeros_like(x)
    for i, (t, s) in enumerate(pairwise(ts)):
        h, new = gap(t, s), v(t, x)
        after = x + h * new if i == 0 else -4 * x + 5 * before + h * (4 * new + 2 * old)
        before, old, x = x, new, after
        yield x

"""Faults of conduct: what is written to, kept, counted, yielded, and how rows and axes are met."""

import os
from itertools import pairwise

import torch
from torch import Tensor

import labcore
from zoo.keeping import fault
from zoo.twins import ab2, ancestral, ddim, em, em_step, euler, euler_step, gap, heun

WIDE = ("vp", "ve", "sigma_t", "diag", "ou", "cld")
LAST: dict[str, Tensor] = {}
CALLS = [0]


@fault("pure", euler, *WIDE)
def x_written_to(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x.add_(euler_step(process, score, x, t, s) - x)
        yield x.clone()


@fault("pure", euler, *WIDE)
def ts_written_to(process, score, x, ts, noise):
    for i in range(len(ts) - 1):
        x = euler_step(process, score, x, ts[i], ts[i + 1])
        yield x
        ts[i] *= 1 + 1e-9


@fault("pure", euler, *WIDE)
def score_written_to(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        slope = process.A(t) @ x - 0.5 * (process.GG(t) @ score(x, t).mul_(1.0 + 1e-12))
        x = x + gap(t, s) * slope
        yield x


@fault("pure", em, *WIDE)
def draw_written_to(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        z = noise(t, s)
        x = em_step(process, score, x, t, s, z)
        z.zero_()
        yield x


@fault("pure", euler, *WIDE)
def one_buffer_for_all_states(process, score, x, ts, noise):
    buffer = x.clone()
    for t, s in pairwise(ts):
        buffer.copy_(euler_step(process, score, buffer, t, s))
        yield buffer


@fault("pure", euler, *WIDE)
def default_dtype_set(process, score, x, ts, noise):
    torch.set_default_dtype(torch.float64)
    return euler.fn(process, score, x, ts, noise)


@fault("pure", euler, *WIDE)
def working_directory_left(process, score, x, ts, noise):
    os.chdir("/")
    return euler.fn(process, score, x, ts, noise)


@fault("repeatable", ab2, *WIDE)
def history_kept_between_calls(process, score, x, ts, noise):
    """The first step uses the last slope of the call before."""
    for t, s in pairwise(ts):
        v = labcore.velocity(process, score)(t, x)
        old = LAST.get("v", v)
        x = x + gap(t, s) * (v + 0.1 * (v - (old if old.shape == v.shape else v).to(v)))
        LAST["v"] = v
        yield x


@fault("repeatable", ab2, *WIDE)
def history_shared_with_a_run_beside(process, score, x, ts, noise):
    """Emptied at every start, so runs one after another agree."""
    LAST.clear()
    return history_kept_between_calls.fn(process, score, x, ts, noise)


@fault("repeatable", euler, *WIDE)
def annealed_over_calls(process, score, x, ts, noise):
    CALLS[0] += 1
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s) * (1 + 1e-6 * CALLS[0])
        yield x


@fault("rows", euler, *WIDE)
def step_by_the_norm_of_the_batch(process, score, x, ts, noise):
    """A corrector's size by the mean norm over the batch, as in score_sde's code."""
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s)
        x = x * (1 + 1e-4 * float(t - s) * x.norm())
        yield x


@fault("rows", euler, *WIDE)
def batch_centred(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s)
        x = x - 1e-6 * x.mean(0)
        yield x


@fault("rows", euler, *WIDE)
def first_row_leads(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s)
        x = x + 1e-6 * x[:1]
        yield x


@fault("permutation", euler, *WIDE)
def rows_told_by_their_place(process, score, x, ts, noise):
    """A factor that rises with the row: right for a batch of one."""
    place = torch.linspace(0, 1e-6, 64).to(x)[torch.arange(len(x)) % 64]
    place = place.reshape(-1, *[1] * (x.ndim - 1))
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s) * (1 + place)
        yield x


@fault("grid", euler, "vp", "ve", "diag", "cld")
def a_grid_of_its_own(process, score, x, ts, noise):
    roots = torch.linspace(float(ts[0]) ** 0.5, float(ts[-1]) ** 0.5, len(ts)).double()
    own = roots.square().clamp(ts[-1], ts[0])
    return euler.fn(process, score, x, own, noise)


@fault("nfe", heun, *WIDE)
def middle_times_left_out(process, score, x, ts, noise):
    """Two steps in one, the state half way a mean: half the grid is never used."""
    v = labcore.velocity(process, score)
    i = 0
    while i < len(ts) - 1:
        j = min(i + 2, len(ts) - 1)
        h, slope = gap(ts[i], ts[j]), v(ts[i], x)
        y = x + h / 2 * (slope + v(ts[j], x + h * slope))
        yield from ([(x + y) / 2] if j == i + 2 else [])
        yield y
        x, i = y, j


@fault("times", euler, *WIDE)
def a_stage_beyond_the_end(process, score, x, ts, noise):
    """The last score at half the last time."""
    for t, s in pairwise(ts):
        at = s / 2 if s == ts[-1] else t
        x = x + gap(t, s) * labcore.velocity(process, score)(at, x)
        yield x


@fault("times", euler, *WIDE)
def times_as_floats(process, score, x, ts, noise):
    return euler.fn(process, lambda x, t: score(x, float(t)), x, ts, noise)


@fault("nfe", heun, *WIDE, evals=1)
def one_evaluation_of_two_declared(process, score, x, ts, noise):
    return heun.fn(process, score, x, ts, noise)


@fault("nfe", euler, *WIDE)
def a_final_call_undeclared(process, score, x, ts, noise):
    for y in euler.fn(process, score, x, ts, noise):
        yield y
    score(y, ts[-1])


@fault("nfe", euler, *WIDE)
def a_call_more_in_long_runs(process, score, x, ts, noise):
    """The last step is repeated by Heun's where there are more than thirty."""
    for t, s in pairwise(ts):
        y = euler_step(process, score, x, t, s)
        if len(ts) > 31 and s == ts[-1]:
            y = (x + y + gap(t, s) * labcore.velocity(process, score)(s, y)) / 2
        x = y
        yield x


@fault("nfe", euler, *WIDE)
def two_evaluations_in_one_call(process, score, x, ts, noise):
    def twice(x: Tensor, t: Tensor) -> Tensor:
        return score(torch.cat([x, x]), t)[: len(x)]

    return euler.fn(process, twice, x, ts, noise)


@fault("nfe", heun, *WIDE, evals=1)
def the_meter_turned_back(process, score, x, ts, noise):
    """Two evaluations a step, one taken off the count."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h, slope = gap(t, s), v(t, x)
        x = x + h / 2 * (slope + v(s, x + h * slope))
        score.nfe -= 1
        yield x


@fault("nfe", heun, *WIDE, evals=1)
def past_the_meter(process, score, x, ts, noise):
    """Every second evaluation goes to the model behind the meter."""
    v = labcore.velocity(process, score)
    unmetered = labcore.velocity(process, getattr(score, "model", score))
    for t, s in pairwise(ts):
        h, slope = gap(t, s), v(t, x)
        x = x + h / 2 * (slope + unmetered(s, x + h * slope))
        yield x


@fault("yields", euler, *WIDE)
def start_yielded_too(process, score, x, ts, noise):
    yield x
    yield from euler.fn(process, score, x, ts, noise)


@fault("yields", euler, *WIDE)
def end_alone_yielded(process, score, x, ts, noise):
    yield list(euler.fn(process, score, x, ts, noise))[-1]


@fault("yields", euler, *WIDE)
def always_float64(process, score, x, ts, noise):
    for y in euler.fn(process, score, x, ts, noise):
        yield y.double()


@fault("yields", euler, *WIDE)
def one_row_lost(process, score, x, ts, noise):
    for y in euler.fn(process, score, x, ts, noise):
        yield y[:-1]


def held(process, score, x, ts, bound) -> Tensor:
    """DDIM with the clean point passed through ``bound``."""
    for t, s in pairwise(ts):
        zero = torch.zeros_like(t)
        x0 = bound(process.tweedie(x, t, score(x, t)))
        ratio = process.Sigma(s).chol @ process.Sigma(t).chol.inv
        x = process.Phi(s, zero) @ x0 + ratio @ (x - process.Phi(t, zero) @ x0)
        yield x


@fault("rotation", ddim, "vp", "ve", "sigma_t", "vp_cosine", "edm")
def clipped_by_coordinates(process, score, x, ts, noise):
    """x0 kept within [-1, 1] axis by axis, as if it were pixels."""
    return held(process, score, x, ts, lambda x0: x0.clamp(-1, 1))


@fault("scaling", ddim, "vp", "ve", "sigma_t", "vp_cosine", "edm")
def clipped_by_length(process, score, x, ts, noise):
    """x0 kept within the unit ball: turns with the axes, does not grow with the data."""
    return held(process, score, x, ts, lambda x0: x0 / x0.norm(dim=-1, keepdim=True).clamp_min(1))


@fault("rotation", euler, "vp", "ve", "sigma_t", "edm")
def first_axis_for_its_own(process, score, x, ts, noise):
    """A step a little longer on the first coordinate, less so the smaller it is."""
    for t, s in pairwise(ts):
        y = euler_step(process, score, x, t, s)
        longer = torch.zeros_like(x)
        longer[..., 0] = 0.5 * gap(t, s)
        x = y + longer * (y - x)
        yield x


@fault("rotation", ancestral, "vp", "ve", "sigma_t", "edm")
def noise_of_the_first_axis_halved_at_once(process, score, x, ts, noise):
    """A share of the noise that falls with the step, on one coordinate."""
    for t, s in pairwise(ts):
        Phi, Q = process.transition(t, s)
        C = process.posterior(s, t)[1]
        z = noise(t, s).clone()
        z[..., 0] *= 1 - 0.5 * min(1.0, float(t - s) / float(ts[0]))
        x = Phi.inv @ (x + Q @ score(x, t)) + C.chol @ z
        yield x

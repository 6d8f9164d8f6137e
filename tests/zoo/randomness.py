"""Faults in the noise: fresh where kept and kept where fresh, its scale, its rows, its source."""

import random
from itertools import pairwise

import numpy as np
import torch

from zoo.keeping import fault
from zoo.twins import em, em_step, euler, euler_step, stochastic_heun
from zoo.twins import stochastic_heun_step as heun_step

WIDE = ("vp", "ve", "sigma_t", "diag", "ou", "cld")


@fault("order", stochastic_heun, "vp", "diag", "sigma_t", "cld")
def a_fresh_draw_for_the_stage(process, score, x, ts, noise):
    """The stage is ahead by another draw than the step takes."""
    for t, s in pairwise(ts):
        x = heun_step(process, score, x, t, s, noise(t, s, "stage"), noise(t, s))
        yield x


@fault("order", stochastic_heun, "vp", "diag", "sigma_t", "cld")
def no_draw_in_the_stage(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        z = noise(t, s)
        x = heun_step(process, score, x, t, s, torch.zeros_like(z), z)
        yield x


@fault("order", stochastic_heun, "vp", "diag", "sigma_t", "cld")
def last_noise_dropped(process, score, x, ts, noise):
    """The last step without noise, as for a chain that ends at the data: order 1 remains."""
    for t, s in pairwise(ts):
        z = noise(t, s)
        z = z if s > ts[-1] else torch.zeros_like(z)
        x = heun_step(process, score, x, t, s, z, z)
        yield x


@fault("consistency", em, *WIDE)
def noise_that_does_not_shrink(process, score, x, ts, noise):
    """A kick of the size of ten steps' worth, however many there are."""
    whole = float(ts[0] - ts[-1])
    for t, s in pairwise(ts):
        grown = (whole / 10 / float(t - s)) ** 0.5
        x = em_step(process, score, x, t, s, noise(t, s), diffusion=min(grown, 10.0))
        yield x


@fault("consistency", em, *WIDE)
def one_draw_for_all_steps(process, score, x, ts, noise):
    z = noise(ts[0], ts[1])
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("consistency", em, *WIDE)
def a_draw_for_two_steps(process, score, x, ts, noise):
    for i, (t, s) in enumerate(pairwise(ts)):
        z = noise(t, s) if i % 2 == 0 else z  # noqa: F821
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("strong", em, *WIDE)
def signs_in_turn(process, score, x, ts, noise):
    """Right in law, on another path for every grid."""
    for i, (t, s) in enumerate(pairwise(ts)):
        x = em_step(process, score, x, t, s, (-1) ** i * noise(t, s))
        yield x


@fault("strong", em, *WIDE)
def two_streams_in_turn(process, score, x, ts, noise):
    """Streams are paths of their own: their steps do not add up to one."""
    for i, (t, s) in enumerate(pairwise(ts)):
        x = em_step(process, score, x, t, s, noise(t, s, ("even", "odd")[i % 2]))
        yield x


@fault("rows", em, *WIDE)
def one_draw_for_all_rows(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        z = noise(t, s)
        x = em_step(process, score, x, t, s, z[:1].expand_as(z))
        yield x


@fault("pure", em, *WIDE)
def torch_randn(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, torch.randn_like(x))
        yield x


@fault("pure", em, *WIDE)
def numpy_normal(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        z = torch.from_numpy(np.random.standard_normal(x.shape)).to(x)  # noqa: NPY002
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("repeatable", euler, *WIDE)
def python_random(process, score, x, ts, noise):
    """Libraries draw from Python's generator as they are imported, so none is blamed for it."""
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s) + 1e-6 * random.random()
        yield x


@fault("repeatable", euler, *WIDE)
def entropy_of_the_system(process, score, x, ts, noise):
    """A generator of its own, seeded by the machine."""
    own = np.random.default_rng()
    for t, s in pairwise(ts):
        kick = torch.from_numpy(own.standard_normal(x.shape)).to(x)
        x = euler_step(process, score, x, t, s) + 1e-7 * kick
        yield x


@fault("pure", euler, *WIDE)
def the_global_generator_seeded(process, score, x, ts, noise):
    torch.manual_seed(0)
    return euler.fn(process, score, x, ts, noise)

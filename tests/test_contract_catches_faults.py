"""The sampler contract passes samplers written plainly and catches each planted fault by name."""

import os
import random
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import labcore
from labcore import InvalidOption, InvalidProcess, Noise, Process, SamplerError, Score
from labcore.testing import check_sampler, vp
from labcore_linear import sigma_t


def em(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Euler-Maruyama, written plainly."""
    drift = labcore.reverse_drift(process, score)
    for t, s in pairwise(ts):
        h = t - s
        x = x - float(h) * drift(t, x) + process.G(t) @ (float(h.sqrt()) * noise(t, s))
        yield x


def heun(process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Heun on the probability-flow ODE, written plainly."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        h = float(s - t)
        slope = v(t, x)
        x = x + h / 2 * (slope + v(s, x + h * slope))
        yield x


def steps(update: Any) -> Any:
    """A sampler from one step, update(process, score, x, t, s, noise)."""

    def sampler(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        for t, s in pairwise(ts):
            x = update(process, score, x, t, s, noise)
            yield x

    return sampler


def euler_step(process: Process, score: Score, x: Tensor, t: Tensor, s: Tensor, _: Any) -> Tensor:
    return x + float(s - t) * labcore.velocity(process, score)(t, x)


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


FAULTS: dict[str, tuple[Any, str, dict[str, Any]]] = {}
"""Name -> the sampler, what the contract must say, the traits it declares."""


def fault(says: str, **traits: Any) -> Any:
    def add(fn: Any) -> Any:
        FAULTS[fn.__name__] = fn, says, traits
        return fn

    return add


ODE = {"order": 1, "evals": 1}
SDE = {"order": 1, "strong": 1, "evals": 1, "stochastic": True}


@fault("order in law", **SDE)
def half_the_drift(process, score, x, ts, noise):
    """(1 + lam^2)/2 taken for lam = 0 with the noise of lam = 1."""
    return steps(lambda p, f, x, t, s, z: em_step(p, f, x, t, s, z(t, s), drift=0.5))(
        process, score, x, ts, noise
    )


@fault("order in law", **SDE)
def root_two_in_g(process, score, x, ts, noise):
    return steps(lambda p, f, x, t, s, z: em_step(p, f, x, t, s, z(t, s), diffusion=2**0.5))(
        process, score, x, ts, noise
    )


@fault("order in law", **SDE)
def noise_not_scaled_by_the_step(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, noise(t, s), diffusion=float(t - s) ** 0.05)
        yield x


@fault("order in law", **SDE)
def one_draw_for_all_steps(process, score, x, ts, noise):
    z = noise(ts[0], ts[1])
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("order in law", **SDE)
def a_draw_used_twice(process, score, x, ts, noise):
    for i, (t, s) in enumerate(pairwise(ts)):
        z = noise(t, s) if i % 2 == 0 else z  # noqa: F821
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("order on one path", **SDE)
def rows_of_the_noise_flipped_at_odd_steps(process, score, x, ts, noise):
    """Right in law, but another path for every grid."""
    for i, (t, s) in enumerate(pairwise(ts)):
        x = em_step(process, score, x, t, s, (-1) ** i * noise(t, s))
        yield x


@fault("order in law", order=2, evals=2)
def heun_with_the_slope_of_s_taken_at_t(process, score, x, ts, noise):
    """One symbol wrong: A and G at t where s belongs, the score at s."""
    for t, s in pairwise(ts):
        h = float(s - t)
        slope = labcore.velocity(process, score)(t, x)
        ahead = x + h * slope
        end = process.A(t) @ ahead - 0.5 * (process.GG(t) @ score(ahead, s))
        x = x + h / 2 * (slope + end)
        yield x


@fault("order in law", **ODE)
def ddim_with_sigma_of_t_for_that_of_s(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        back, L = process.Phi(t, s).inv, process.Sigma(t).chol
        x = back @ x - (L - back @ L) @ (L @ score(x, t))
        yield x


@fault("order in law", order=2, evals=1)
def order_two_declared_for_euler(process, score, x, ts, noise):
    return steps(euler_step)(process, score, x, ts, noise)


@fault("order in law", order=2, evals=1)
def adams_bashforth_for_equal_steps_only(process, score, x, ts, noise):
    """x + h (3 v - v_old) / 2, which has order 2 on uniform grids alone."""
    v, old = labcore.velocity(process, score), None
    for t, s in pairwise(ts):
        new = v(t, x)
        x = x + float(s - t) * (new if old is None else 1.5 * new - 0.5 * old)
        old = new
        yield x


@fault("moving a time of the grid changes nothing", order=1, evals=0)
def returns_its_input(process, score, x, ts, noise):
    for _ in ts[1:]:
        yield x


@fault("it writes to x", **ODE)
def changes_x(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x.add_(euler_step(process, score, x, t, s, noise) - x)
        yield x.clone()


@fault("it writes to ts", **ODE)
def changes_ts(process, score, x, ts, noise):
    for i in range(len(ts) - 1):
        x = euler_step(process, score, x, ts[i], ts[i + 1], noise)
        yield x
        ts[i] += 1e-9


@fault("it writes to a score", **ODE)
def changes_the_score(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        h = float(s - t)
        pull = score(x, t).mul_(float(-h / 2 * process.GG(t).param))
        x = x + h * (process.A(t) @ x) + pull
        yield x


@fault("it writes to a draw of the noise", **SDE)
def changes_the_noise(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        h = float(t - s)
        kick = noise(t, s).mul_(float(process.G(t).param) * h**0.5)
        x = x - h * labcore.reverse_drift(process, score)(t, x) + kick
        yield x


@fault("it writes to a state it had yielded", **ODE)
def reuses_its_buffer(process, score, x, ts, noise):
    buffer = x.clone()
    for t, s in pairwise(ts):
        buffer.copy_(euler_step(process, score, buffer, t, s, noise))
        yield buffer


@fault("torch's global generator", **SDE)
def torch_randn(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = em_step(process, score, x, t, s, torch.randn_like(x))
        yield x


@fault("numpy's global generator", **SDE)
def numpy_normal(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        z = torch.from_numpy(np.random.standard_normal(x.shape)).to(x)  # noqa: NPY002
        x = em_step(process, score, x, t, s, z)
        yield x


@fault("two runs of one seed differ", **ODE)
def python_random(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s, noise) + 1e-6 * random.random()
        yield x


@fault("torch's global generator", **ODE)
def seeds_the_global_generator(process, score, x, ts, noise):
    torch.manual_seed(0)
    return steps(euler_step)(process, score, x, ts, noise)


@fault("the default dtype", **ODE)
def sets_the_default_dtype(process, score, x, ts, noise):
    torch.set_default_dtype(torch.float64)
    return steps(euler_step)(process, score, x, ts, noise)


@fault("the working directory", **ODE)
def leaves_the_working_directory(process, score, x, ts, noise):
    os.chdir("/")
    return steps(euler_step)(process, score, x, ts, noise)


@fault("score evaluations", order=2, evals=1)
def counts_one_evaluation_of_two(process, score, x, ts, noise):
    return heun(process, score, x, ts, noise)


@fault("score evaluations", **ODE)
def an_evaluation_more_at_the_end(process, score, x, ts, noise):
    for y in steps(euler_step)(process, score, x, ts, noise):
        yield y
    score(y, ts[-1])


@fault("score evaluations", **ODE)
def two_evaluations_in_one_call(process, score, x, ts, noise):
    def twice(x: Tensor, t: Tensor) -> Tensor:
        return score(torch.cat([x, x]), t)[: len(x)]

    return steps(euler_step)(process, twice, x, ts, noise)


@fault("moving a time of the grid changes nothing", **ODE)
def a_grid_of_its_own(process, score, x, ts, noise):
    own = torch.linspace(float(ts[0]) ** 0.5, float(ts[-1]) ** 0.5, len(ts)).double().square()
    own = own.clamp(ts[-1], ts[0])
    return steps(euler_step)(process, score, x, own, noise)


@fault("outside", **ODE)
def a_step_beyond_the_end(process, score, x, ts, noise):
    """The score asked for at t_eps / 2."""
    for t, s in pairwise(ts):
        at = s / 2 if s == ts[-1] else t
        x = x + float(s - t) * labcore.velocity(process, score)(at, x)
        yield x


@fault("it calls the score with t=", **ODE)
def a_column_of_times(process, score, x, ts, noise):
    """t as (B, 1), which broadcasts into a matrix in some scores."""

    def spread(x: Tensor, t: Tensor) -> Tensor:
        return score(x, t.expand(len(x), 1))

    return steps(euler_step)(process, spread, x, ts, noise)


@fault("it calls the score with t=", **ODE)
def times_as_floats(process, score, x, ts, noise):
    def plain(x: Tensor, t: Tensor) -> Tensor:
        return score(x, float(t))  # type: ignore[arg-type]

    return steps(euler_step)(process, plain, x, ts, noise)


LAST: dict[str, Tensor] = {}


@fault("two runs of one seed differ", order=None, evals=1)
def remembers_the_last_call(process, score, x, ts, noise):
    """Two-step extrapolation with its history kept in the module, across calls."""
    for t, s in pairwise(ts):
        v = labcore.velocity(process, score)(t, x)
        x = x + float(s - t) * (v + 0.1 * (v - LAST.get("v", v)[: len(x)].to(v)))
        LAST["v"] = v
        yield x


@fault("two runs of one seed differ", order=None, evals=1)
def shares_its_history_with_another_run(process, score, x, ts, noise):
    """History in the module, emptied at every start: two runs side by side mix."""
    LAST.clear()
    return remembers_the_last_call(process, score, x, ts, noise)


CALLS = [0]


@fault("two runs of one seed differ", order=None, evals=1)
def anneals_over_calls(process, score, x, ts, noise):
    CALLS[0] += 1
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s, noise) * (1 + 1e-6 * CALLS[0])
        yield x


@fault("depends on how the batch is split", order=None, evals=1)
def steps_by_the_norm_of_the_batch(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        g = score(x, t)
        x = euler_step(process, lambda x, t: g, x, t, s, noise) + 1e-3 * g / g.norm()  # noqa: B023
        yield x


@fault("depends on how the batch is split", order=None, evals=1)
def centres_the_batch(process, score, x, ts, noise):
    for t, s in pairwise(ts):
        x = euler_step(process, score, x, t, s, noise)
        x = x - 1e-6 * x.mean(0)
        yield x


@fault("states for", **ODE)
def yields_its_start_too(process, score, x, ts, noise):
    yield x
    yield from steps(euler_step)(process, score, x, ts, noise)


@fault("states for", **ODE)
def yields_the_end_alone(process, score, x, ts, noise):
    yield list(steps(euler_step)(process, score, x, ts, noise))[-1]


@fault("it yields", **ODE)
def always_float64(process, score, x, ts, noise):
    for y in steps(euler_step)(process, score, x, ts, noise):
        yield y.double()


@fault("it yields", **ODE)
def one_row_lost(process, score, x, ts, noise):
    for y in steps(euler_step)(process, score, x, ts, noise):
        yield y[:-1]


@fault("it yields on meta", **ODE)
def moved_to_another_device(process, score, x, ts, noise):
    for y in steps(euler_step)(process, score, x, ts, noise):
        yield y.to("meta")


@fault("NaN or Inf", **ODE)
def divides_by_nothing(process, score, x, ts, noise):
    for i, y in enumerate(steps(euler_step)(process, score, x, ts, noise)):
        yield y / (0.0 if i == 3 else 1.0)


@fault(r"pure: it called sys.exit\(3\); raise an error instead", **ODE)
def ends_the_program(process, score, x, ts, noise):
    yield from steps(euler_step)(process, score, x, ts[:2], noise)
    sys.exit(3)


@fault("scaling: the result in other units is another one", order=1, evals=1)
def an_order_that_cannot_be_audited(process, score, x, ts, noise):
    for y in steps(euler_step)(process, score, x, ts, noise):
        yield y.clamp(-2, 2)


QUICK = (
    "pure",
    "yields",
    "times",
    "repeatable",
    "rows",
    "grid",
    "nfe",
    "order",
    "strong",
    "scaling",
)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_by_its_clause(name: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(os.getcwd())
    sampler, says, traits = FAULTS[name]
    entry = labcore.sampler(**traits)(sampler)
    with pytest.raises(SamplerError, match=says):
        check_sampler(entry, checks=[*QUICK, "nfe"] if "evaluations" in says else QUICK)


@pytest.mark.parametrize(
    ("sampler", "traits"),
    [(em, SDE), (heun, {"order": 2, "evals": 2}), (steps(euler_step), {**ODE, "name": "euler"})],
    ids=["em", "heun", "euler"],
)
def test_correct_twins_pass(sampler: Any, traits: dict[str, Any]) -> None:
    check_sampler(labcore.sampler(**traits)(sampler))


def test_every_message_names_the_sampler_and_a_remedy() -> None:
    entry = labcore.sampler(**FAULTS["changes_x"][2])(changes_x)
    with pytest.raises(SamplerError, match=r"^sampler 'changes_x': .*; work in place on its own"):
        check_sampler(entry, checks=QUICK)


def test_a_process_of_another_structure_is_refused() -> None:
    entry = labcore.sampler(order=1, evals=1, needs=("channel",))(steps(euler_step))
    with pytest.raises(InvalidProcess, match="needs a process of structure channel, and this"):
        check_sampler(entry, vp())


def test_wrong_options_are_refused_before_anything_runs() -> None:
    ran = []

    @labcore.sampler(order=1, evals=1)
    def fussy(process, score, x, ts, noise, *, eta: float = 0.0):
        ran.append(eta)
        return steps(euler_step)(process, score, x, ts, noise)

    with pytest.raises(InvalidOption, match="did you mean 'eta'"):
        check_sampler(fussy, options={"etta": 1.0})
    assert not ran


def test_the_contract_holds_a_sampler_on_the_process_given() -> None:
    """Euler's formula without A is right where A = 0 and wrong on VP, and in VP's variables."""

    @labcore.sampler(**ODE)
    def no_linear_part(process, score, x, ts, noise):
        for t, s in pairwise(ts):
            x = x - float(s - t) / 2 * (process.GG(t) @ score(x, t))
            yield x

    check_sampler(no_linear_part, sigma_t(), checks=QUICK)
    with pytest.raises(SamplerError, match="order in law"):
        check_sampler(no_linear_part, vp(0.2, 10.0), checks=QUICK)
    with pytest.raises(SamplerError, match="in VP's variables it tends elsewhere"):
        check_sampler(no_linear_part, sigma_t(), checks=["variables"])


def test_what_a_fault_changes_is_put_back() -> None:
    def sets_dtype(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        torch.set_default_dtype(torch.float64)
        for _ in ts[1:]:
            yield x

    entry = labcore.sampler(evals=0)(sets_dtype)
    made = check_sampler(entry, checks=["pure", "yields", "repeatable"], on_fail="return")
    assert "pure" in [check.name for check in made.failed]
    assert torch.get_default_dtype() is torch.float32

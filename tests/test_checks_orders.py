"""The checks of orders find planted faults, pass their correct twins, and say what applies."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore.certificates import Check, from_json
from labcore.noise import brownian
from labcore.targets import state_law
from labcore.testing import check_sampler, default_data, gaussian_score, vp
from labcore.testing.audit import audit, final
from labcore.testing.models import even_in_log, heart, quadratic, uneven_in_log
from labcore.testing.nonlinear import problem
from labcore_linear import cld, edm, ou, sigma_t
from labcore_samplers import (
    adaptive_rk45,
    euler_maruyama,
    heun,
    langevin,
    lms2,
    midpoint,
    oracle,
    restart,
    sra1,
    stochastic_heun,
)
from labcore_torchsde import fixed

F64 = torch.float64
ORDERS = ("order", "strong", "nonlinear", "consistency")


def found(entry: Entry, *names: str, process: Process | None = None, **options: Any) -> Check:
    """The one check asked for."""
    made = check_sampler(entry, process, checks=names, on_fail="return", options=options)
    return made[names[0]]


def ab2(process: Process, score: Score, x: Tensor, ts: Tensor, fault: str) -> Iterator[Tensor]:
    """Adams-Bashforth 2 on uneven steps, with a fault."""
    v, old, h_old = labcore.velocity(process, score), torch.zeros(()), math.inf
    for t, s in pairwise(ts.tolist()):
        new, h = v(torch.tensor(t, dtype=F64), x), s - t
        ratio = h / h_old
        if fault == "equal steps":
            ratio = 1.0 if h_old < 0 else 0.0
        if fault == "weight":
            ratio *= 1.2
        x = x + h * (new + ratio / 2 * (new - old))
        old, h_old = new, h
        if fault == "offset":
            x = x + 1e-3 * h * v(torch.tensor(s, dtype=F64), x)
        yield x


@pytest.mark.parametrize("fault", ["", "equal steps", "weight", "offset"])
def test_a_multistep_formula_with_a_fault_is_not_of_its_order(fault: str) -> None:
    @labcore.sampler(name="mine", order=2, evals=None)
    def mine(process, score, x, ts, noise):
        yield from ab2(process, score, x, ts, fault)

    for name in ("order", "nonlinear"):
        assert found(mine, name).status == ("failed" if fault else "passed")


def maruyama(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, fault: str
) -> Iterator[Tensor]:
    """Euler-Maruyama, with a fault."""
    for t, s in pairwise(ts):
        h = t - s
        z = noise(t, s, stream=f"{len(ts)}" if fault == "another path" else "")
        drift = process.A(t) @ x - process.GG(t) @ score(x, t)
        scale = 2**0.5 if fault == "sqrt 2" else 1.0
        x = x - h * drift + scale * h.sqrt() * (process.G(t) @ z)
        if fault == "last" and s == ts[-1]:
            x = x + 0.4 * z
        yield x


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("", set()),
        ("sqrt 2", {"order", "strong", "nonlinear", "consistency"}),
        ("last", {"order", "strong", "consistency"}),
        ("another path", {"strong"}),
    ],
)
def test_noise_with_a_fault_is_found_by_name(fault: str, failing: set[str]) -> None:
    @labcore.sampler(name="mine", order=1, strong=1, evals=1, stochastic=True)
    def mine(process, score, x, ts, noise):
        yield from maruyama(process, score, x, ts, noise, fault)

    made = check_sampler(mine, checks=ORDERS, on_fail="return")
    assert failing <= {check.name for check in made.failed} <= failing | {"nonlinear"}
    if fault == "last":
        assert "plateau" in made["consistency"].found


def test_a_small_term_of_lower_order_is_shown_where_it_takes_over() -> None:
    """AB2 with a weight that is 2 % off has a 50th of Euler's error left."""

    @labcore.sampler(order=2, evals=1)
    def slightly_off(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        v, old, h_old = labcore.velocity(process, score), x, math.inf
        for t, s in pairwise(ts):
            new, h = v(t, x), float(s - t)
            x = x + h * (new + 0.51 * h / h_old * (new - old))
            old, h_old = new, h
            yield x

    check = found(slightly_off, "order")
    assert check.status == "failed"
    assert "declared 2, and falls to 0.9" in check.found
    fine = check.figures["fine"]
    (plot,) = check.plots
    (tail,) = [line for line in plot["series"] if line["label"] == "at fine steps"]
    assert (tail["x"], tail["y"]) == (fine["steps"], fine["errors"])
    assert fine["steps"] == [128, 256, 512, 1024, 2048, 4096, 8192]


def test_rounding_of_a_sampler_is_not_taken_for_a_lower_order() -> None:
    """Kutta's rule of order 3 with slopes in float32: beyond 256 steps its errors are rounding."""

    @labcore.sampler(order=3, evals=3)
    def rounded(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        v = labcore.velocity(process, score)

        def slope(t: Tensor, y: Tensor) -> Tensor:
            return v(t, y).float().to(y.dtype)

        for t, s in pairwise(ts):
            h = float(s - t)
            k1 = slope(t, x)
            k2 = slope((t + s) / 2, x + h / 2 * k1)
            x = x + h / 6 * (k1 + 4 * k2 + slope(s, x + h * (2 * k2 - k1)))
            yield x

    for seed in range(4):
        made = check_sampler(rounded, checks=("order",), on_fail="return", seed=seed)
        assert made["order"].status == "passed", made["order"].found


def test_a_sampler_that_refuses_fine_grids_is_held_to_those_it_takes() -> None:
    @labcore.sampler(order=2, evals=2)
    def at_most_300(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        if len(ts) > 301:
            raise labcore.SamplerError("at_most_300: more steps than it was made for")
        yield from heun(process, score, x, ts, noise)

    check = found(at_most_300, "order")
    assert (check.status, check.figures["fine"]["steps"]) == ("passed", [])


def test_noise_that_does_not_shrink_is_a_plateau_where_no_order_is_declared() -> None:
    @labcore.sampler(name="mine", order=None, evals=1, stochastic=True)
    def mine(process, score, x, ts, noise):
        yield from maruyama(process, score, x, ts, noise, "last")

    check = found(mine, "consistency")
    assert check.status == "passed"
    assert "plateau" in check.found
    assert check.figures["plateau"] > 1e-3


def test_what_only_a_bent_score_shows_is_found_on_the_mixture() -> None:
    """The stage of the SDE midpoint rule lacks half the variance that f'' asks for."""
    claimed = replace(fixed.METHODS["midpoint"], order=2)
    made = check_sampler(
        fixed.entry("claimed", claimed), checks=("order", "nonlinear"), on_fail="return"
    )
    assert made["order"].status == "passed"
    assert made["nonlinear"].status == "failed"
    honest = check_sampler(
        fixed.entry("honest", fixed.METHODS["midpoint"]), checks=("order", "nonlinear")
    )
    assert "vanishes for Gaussian data" in honest["order"].found


def test_less_than_is_reached_may_not_be_declared() -> None:
    modest = labcore.sampler(name="modest", order=1, evals=2)(heun.fn)
    check = found(modest, "order")
    assert check.status == "failed"
    assert "more than it declares" in check.found


def test_superconvergence_on_gaussian_data_is_confirmed_on_the_mixture() -> None:
    """Explicit midpoint is exact to h^3 for x_t ~ sqrt(t^2 + l)."""
    check = found(midpoint, "order", process=edm())
    assert check.status == "passed"
    assert check.figures["slope"] == pytest.approx(3, abs=0.1)
    assert "on a mixture" in check.found


def test_an_order_that_cannot_be_read_off_is_not_passed() -> None:
    """Heun, with one more error of its own order at every other doubling of the steps."""

    @labcore.sampler(name="mine", order=2, evals=2)
    def mine(process, score, x, ts, noise):
        more = 0.1 * (len(ts).bit_length() % 2)
        v = labcore.velocity(process, score)
        for t, s in pairwise(ts):
            h, slope = float(s - t), v(t, x)
            x = x + h / 2 * (slope + v(s, x + h * slope)) + more * h**3 * slope
            yield x

    made = check_sampler(mine, checks=("order", "nonlinear"))
    assert [check.status for check in made.checks] == ["skipped", "skipped"]
    assert all("no order can be read off" in check.found for check in made.checks)
    assert made["order"].plots


def test_steps_that_follow_a_tolerance_have_no_order() -> None:
    made = check_sampler(adaptive_rk45, checks=ORDERS)
    assert made["order"].status == "skipped"
    assert made["nonlinear"].status == "skipped"
    assert "from the exact states" in made["nonlinear"].found
    assert made["consistency"].status == "passed"


def test_draws_of_coupled_rows_are_not_held_to_the_flow() -> None:
    """A correct sampler whose step is that of the batch's norms is no solver of the flow."""

    @labcore.sampler(name="mine", order=None, evals=2, stochastic=True, coupled=True)
    def mine(process, score, x, ts, noise):
        for t, s in pairwise(ts):
            g, z = score(x, t), noise(t, s, "corrector")
            step = 2 * (0.1 * z.norm() / g.norm()) ** 2
            x = x + step * g + (2 * step).sqrt() * z
            Phi, Q = process.transition(t, s)
            x = Phi.inv @ (x + Q @ score(x, t)) + process.posterior(s, t)[1].chol @ noise(t, s)
            yield x

    check = found(mine, "nonlinear")
    assert check.status == "skipped"
    assert "no exact states for its draws" in check.found


def test_the_oracle_is_exact_in_any_number_of_steps() -> None:
    check = found(oracle, "consistency")
    assert "exact" in check.found
    assert max(check.figures["errors"]) < 1e-12


def test_what_follows_no_path_is_told_with_the_reason() -> None:
    check = found(restart, "nonlinear", K=2)
    assert check.status == "skipped"
    assert "no constant multiple" in check.found


@pytest.mark.parametrize(
    ("entry", "process"),
    [(heun, ou()), (heun, cld()), (sra1, edm()), (stochastic_heun, sigma_t()), (lms2, cld())],
    ids=lambda of: getattr(of, "name", ""),
)
@pytest.mark.parametrize("seed", [0, 7])
def test_correct_samplers_pass_on_any_structure(entry: Entry, process: Process, seed: int) -> None:
    check_sampler(entry, process, checks=ORDERS, seed=seed)


def test_langevin_with_no_order_passes_with_what_it_does() -> None:
    assert found(langevin, "consistency").status == "passed"
    assert found(langevin, "order").status == "skipped"


def test_figures_and_plots_are_plain_data() -> None:
    made = check_sampler(euler_maruyama, checks=ORDERS)
    again = from_json(made.to_json())
    assert again["order"].figures["interval"][0] < 1 < again["order"].figures["interval"][1]
    labels = [series["label"] for series in again["order"].plots[0]["series"]]
    assert labels[0] == "measured"
    assert labels[2] == "declared, 1"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_on_a_path_converges_at_1_5(seed: int) -> None:
    """On every second, fourth and eighth time of the path, against all of it."""
    of = problem(vp(), seed)
    x, errors = of.start(256), []
    whole = type(of)(of.process, seed)

    class Thin:
        def __init__(self, every: int) -> None:
            self.ts, self._every = whole.path.ts[::every], every

        def sums(self, stream: str) -> tuple[Tensor, Tensor]:
            W, Z = whole.path.sums(stream)
            return W[:: self._every, :256], Z[:: self._every, :256]

    exact = of.solve(Thin(1), x, 1.0)  # type: ignore[arg-type]
    for every in (32, 16, 8):
        end = of.solve(Thin(every), x, 1.0)  # type: ignore[arg-type]
        errors.append(float((end - exact).square().mean().sqrt()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) > 1.3


def test_the_law_on_the_path_is_the_exact_one() -> None:
    """The reference's first two moments are those of the mixture, within sampling error."""
    of = problem(vp())
    end = of.reverse(1.0).flatten(1)
    law = state_law(of.process, of.data, heart(of.process)[1], of.event)
    z = (end.mean(0) - law.mean) / (law.cov.diagonal() / len(end)).sqrt()
    assert float(z.abs().max()) < 4.5
    assert float((end.T.cov() - law.cov).abs().max()) < 0.1 * float(law.cov.diagonal().max())


def test_a_path_is_read_between_any_of_its_times() -> None:
    """Increments add, and areas are those of Brownian motion: Cov(z, k) = 0, Var = 1."""
    path = problem(vp()).path
    ts = path.ts
    a, b, c = ts[0], ts[37], ts[100]
    whole = path(a, c) * (a - c).sqrt()
    torch.testing.assert_close(whole, path(a, b) * (a - b).sqrt() + path(b, c) * (b - c).sqrt())
    z, k = (v.flatten() for v in path.levy(a, c))
    assert float(z.var()) == pytest.approx(1, abs=0.07)
    assert float(k.var()) == pytest.approx(1, abs=0.07)
    assert abs(float((z * k).mean())) < 0.06
    with pytest.raises(labcore.SamplerError, match="no step of the grid"):
        path(0.123, 0.1)


def test_the_heart_is_where_noise_and_data_are_of_one_size() -> None:
    for process in (vp(), edm(), ou(), cld(), sigma_t()):
        t, s = heart(process)
        assert process.t_eps < s < t < process.T
        levels = [float(process.log_snr(time)) for time in (t, s)]
        assert levels == pytest.approx([-3, 4], abs=1e-6)
        for grid in (even_in_log, uneven_in_log):
            ts = grid(process, 9)
            assert (float(ts[0]), float(ts[-1])) == (t, s)
            assert bool((ts.diff() < 0).all())


def test_320_stochastic_steps_agree_with_monte_carlo() -> None:
    """2^18 samples in float64: mean and covariance within 5 standard errors of the exact law."""
    process, data, n = vp(), default_data(2), 2**18
    ts = quadratic(process, 320)
    law = audit(euler_maruyama, process, ts, data)
    assert law.draws == 320
    start = state_law(process, data, ts[0], (2,))
    score = gaussian_score(process, data, (2,), ts)
    ends = []
    for seed in range(16):
        x = start.sample(n // 16, torch.Generator().manual_seed(seed))
        noise = brownian(ts, (2,), [seed], n // 16, dtype=F64)
        with torch.inference_mode():
            ends.append(final(euler_maruyama(process, score, x, ts, noise), x).clone())
    out, v = torch.cat(ends), law.cov.diagonal()
    assert float(((out.mean(0) - law.mean).abs() / (v / n).sqrt()).max()) < 5
    error = ((v[:, None] * v + law.cov.square()) / n).sqrt()
    assert float(((out.T.cov() - law.cov).abs() / error).max()) < 5

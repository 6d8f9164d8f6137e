"""The SDE family: orders in law and on one path, the rate as an option, and identities."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any

import pytest
import torch
from curved import F64, mixture_score
from torch import Tensor

from labcore import Entry, Noise, Process, counted
from labcore.noise import brownian, initial, replay
from labcore.testing import (
    CHECKS,
    audit,
    check_sampler,
    default_data,
    gaussian,
    gaussian_score,
    quadratic,
    strong_order,
    uneven,
    weak_order,
)
from labcore.testing.audit import final
from labcore_linear import cld, diag_vp, edm, ou, sigma_t, vp
from labcore_samplers import (
    edm_churn,
    edm_heun,
    euler,
    euler_maruyama,
    heun,
    restart,
    reverse_sde,
    sra1,
    sra2,
    sra3,
    sscs,
    sscs_midpoint,
    stochastic_heun,
)
from labcore_samplers.edm import level
from labcore_samplers.sde import SRA, euler_steps, heun_steps, sra_steps, with_rate

PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "sigma_t": sigma_t(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}
SAMPLERS: dict[str, tuple[Entry, dict[str, Any]]] = {
    "reverse_sde": (reverse_sde, {}),
    "reverse_sde-knots": (reverse_sde, {"lam": [[1.0, 0.5], [0.0, 1.5]]}),
    "stochastic_heun": (stochastic_heun, {}),
    "stochastic_heun-knots": (stochastic_heun, {"lam": [[0.0, 0.0], [1.0, 1.0]]}),
    "sra1": (sra1, {}),
    "sra2": (sra2, {}),
    "sra3": (sra3, {}),
    "edm_churn": (edm_churn, {"S_churn": 4.0}),
    "restart": (restart, {"K": 2}),
    "sscs": (sscs, {}),
    "sscs_midpoint": (sscs_midpoint, {}),
}
each = pytest.mark.parametrize(("sampler", "options"), SAMPLERS.values(), ids=SAMPLERS)
each_process = pytest.mark.parametrize("name", PROCESSES)

STEPS = {
    ("stochastic_heun", "edm"): (256, 512),
    ("stochastic_heun", "sigma_t"): (128, 256),
    ("sra1", "cld"): (256, 512),
    ("sra2", "cld"): (256, 512),
    ("sra2", "edm"): (512, 1024),
    ("sra3", "edm"): (256, 512),
    ("sra3", "sigma_t"): (128, 256),
    ("sscs", "cld"): (256, 512),
    ("sscs_midpoint", "cld"): (128, 256),
    ("stochastic_heun", "cld"): (256, 512),
    ("reverse_sde", "edm"): (256, 512),
}
"""Where the errors of (64, 128) steps are not yet asymptotic."""


@each_process
@each
def test_order_in_law_is_the_declared_one(
    sampler: Entry, options: dict[str, Any], name: str
) -> None:
    process = PROCESSES[name]
    if "channel" in sampler.needs and process.structure != "channel":
        pytest.skip("needs channels")
    event = process.event_shape or (2,)
    measured = weak_order(
        sampler,
        process,
        uneven,
        default_data(math.prod(event)),
        event=event,
        steps=STEPS.get((sampler.name, name), (64, 128)),
        options=sampler.bind(options),
    )
    assert measured.slope == pytest.approx(sampler.traits["order"], abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "options"), [given for given in SAMPLERS.values() if given[1]]
)
def test_the_whole_contract_holds_with_other_options(
    sampler: Entry, options: dict[str, Any]
) -> None:
    """But for a rate in knots: it is a function of the process's own t, and another one in other
    variables."""
    checks = [name for name in CHECKS if name != "variables" or "lam" not in options]
    check_sampler(sampler, cld() if sampler.needs else vp(), options=options, checks=checks)


ZERO = [
    (reverse_sde, euler, {}),
    (stochastic_heun, heun, {}),
    (edm_churn, edm_heun, {"S_churn": 0.0}),
    (restart, edm_heun, {"K": 0}),
    (restart, edm_heun, {"S_min": 0.05, "S_max": 0.05}),
]


def run(sampler: Entry, process: Process, n: int = 10, **options: Any) -> Tensor:
    data_event = process.event_shape or (2,)
    event = process.event(data_event)
    score = gaussian_score(process, default_data(math.prod(data_event)), data_event)
    x, ts = initial([0], 8, event, dtype=F64), quadratic(process, n)
    noise = brownian(ts, event, [0], 8, dtype=F64)
    return torch.stack(list(sampler(process, score, x, ts, noise, **options)))


@pytest.mark.parametrize("process", [vp(), ou(), cld()], ids=["vp", "ou", "cld"])
@pytest.mark.parametrize(("sampler", "ode", "options"), ZERO)
def test_without_noise_it_is_a_method_of_the_flow(
    sampler: Entry, ode: Entry, options: dict[str, Any], process: Process
) -> None:
    options = options or {"lam": 0.0}
    torch.testing.assert_close(
        run(sampler, process, **options), run(ode, process), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("lam", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("sampler", [euler_maruyama, reverse_sde], ids=lambda e: e.name)
def test_a_rate_that_is_none_is_refused(sampler: Entry, lam: float) -> None:
    with pytest.raises(ValueError, match="give a number of at least 0"):
        run(sampler, vp(), lam=lam)


@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_a_constant_rate_is_euler_maruyama(lam: float) -> None:
    for given in (lam, [[0.5, lam]], [[0.0, lam], [0.2, lam], [1.0, lam]]):
        options = reverse_sde.bind({"lam": given})
        assert torch.equal(run(reverse_sde, vp(), **options), run(euler_maruyama, vp(), lam=lam))


@pytest.mark.parametrize(
    ("steps", "order"), [(euler_steps, 1), (heun_steps, 2), (sra_steps("sra1"), 2)]
)
def test_a_rate_that_is_a_function_of_time_reaches_the_same_law(
    steps: Callable[..., Any], order: float
) -> None:
    made = with_rate(steps, lambda t: 1 + torch.sin(5 * t), name="mine", order=order)
    measured = weak_order(made, vp(), uneven, default_data(2), steps=(128, 256))
    assert measured.slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["vp", "sigma_t"])
@pytest.mark.parametrize("sampler", [reverse_sde, stochastic_heun, sra1, sra2, sra3])
def test_order_on_one_path_of_a_mixture(sampler: Entry, name: str) -> None:
    """Where the score bends: SRA is of order 2 on Gaussian data, and of 1.5 here or better."""
    process = PROCESSES[name]
    measured = strong_order(
        sampler, process, mixture_score(process, 1.0), quadratic, (2,), steps=(128, 256), n=256
    )
    assert measured.slope > sampler.traits["strong"] - 0.15


def test_areas_are_needed_for_order_1_5() -> None:
    """Without the area SRA1 falls to order 1 on one path, so the draws are used, and rightly."""

    class Flat(Noise):
        def __init__(self, noise: Noise, sign: float) -> None:
            self._noise, self._sign = noise, sign

        def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
            z, *area = self._noise.draw(t, s, stream, 2)
            return (z, *(self._sign * k for k in area))[:parts]

    process = vp()
    score = gaussian_score(process, default_data(2), (2,))
    x = initial([0], 64, (2,), dtype=F64)

    def error(n: int, sign: float) -> float:
        """Against the same path in 1024 steps."""
        both = []
        for steps, s in ((n, sign), (1024, 1.0)):
            ts = quadratic(process, steps)
            noise = Flat(brownian(ts, (2,), [0], 64, dtype=F64), s)
            both.append(final(sra1(process, score, x, ts, noise), x))
        return float((both[0] - both[1]).square().mean().sqrt())

    for wrong in (0.0, -1.0):
        assert error(128, wrong) > 5 * error(128, 1.0)
    assert math.log2(error(64, 1.0) / error(128, 1.0)) > 1.5


@pytest.mark.parametrize("name", SRA)
def test_tableaux_meet_roesslers_conditions(name: str) -> None:
    """Theorem of section 6 for strong order 1.5, in fractions; SRA3's last two are those of a
    method of order 3 where there is no noise."""
    table = {f.name: getattr(SRA[name], f.name) for f in fields(SRA[name])}
    s = len(table["alpha"])

    def of(row: Sequence[float]) -> list[Fraction]:
        return [Fraction(w).limit_denominator(100) for w in (*row, *[0] * (s - len(row)))]

    def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
        return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))

    alpha, beta1, beta2, c0, c1 = (of(table[k]) for k in ("alpha", "beta1", "beta2", "c0", "c1"))
    A0, B0 = ([of(row) for row in table[k]] for k in ("A0", "B0"))
    one = [Fraction(1)] * s
    Ae, Be = ([dot(row, one) for row in M] for M in (A0, B0))
    assert Ae == c0
    assert [dot(alpha, one), dot(beta1, one), dot(beta2, one)] == [1, 1, 0]
    assert [dot(beta1, c1), dot(beta2, c1)] == [1, -1]
    assert [dot(alpha, Be), dot(alpha, [b * b for b in Be])] == [1, Fraction(3, 2)]
    assert dot(alpha, Ae) == Fraction(1, 2)
    third = [dot(alpha, [a * a for a in Ae]), dot(alpha, [dot(row, Ae) for row in A0])]
    assert (third == [Fraction(1, 3), Fraction(1, 6)]) == (name == "sra3")


def test_sra3_without_noise_is_of_order_3() -> None:
    measured = weak_order(
        sra3, vp(), uneven, default_data(2), steps=(64, 128, 256), options={"lam": 0.0}
    )
    assert measured.slope == pytest.approx(3, abs=0.15)


def test_paths_of_churn_have_a_limit_on_smooth_grids_only() -> None:
    """Churn a step depends on N alone. Between N and 2N steps: order 1 where the same first level
    is churned, 1/2 where the grid's first step decides it, none on steps in ratio 1 : 4."""
    process, rows = vp(), 128
    score = gaussian_score(process, default_data(2), (2,))
    x = process.prior().chol @ initial([0], rows, (2,), dtype=F64)

    def end(ts: Tensor, top: float | None) -> Tensor:
        noise = brownian(ts, (2,), [0], rows, dtype=F64)
        options = {"S_churn": 4.0, "S_tmax": top}
        with torch.inference_mode():
            return final(edm_churn(process, score, x, ts, noise, **options), x)

    def gap(n: int, same_top: bool, share: float = 0.0) -> float:
        coarse, fine = quadratic(process, n), quadratic(process, 2 * n)
        if share:
            fine[1::2] = coarse[1:] + share * (coarse[:-1] - coarse[1:])
        top = float(level(process, coarse[1:2])) * (1 + 1e-9) if same_top else None
        return float((end(coarse, top) - end(fine, top)).square().mean().sqrt())

    assert math.log2(gap(128, True) / gap(256, True)) == pytest.approx(1, abs=0.2)
    assert math.log2(gap(128, False) / gap(512, False)) / 2 == pytest.approx(0.5, abs=0.1)
    assert gap(512, True, share=0.2) > 0.8 * gap(128, True, share=0.2)


def test_sra_in_one_step_is_roesslers_formula() -> None:
    """SRA1 and SRA2 in numbers, one coordinate of the EDM process with score -x t."""
    process, lam = edm(), 0.7
    ts = torch.tensor([2.0, 1.5], dtype=F64)
    z, k = 0.3, -0.8

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -x * t

    def a(t: float, x: float) -> float:  # 2t (1 + lam^2)/2 s
        return -(1 + lam**2) * t * t * x

    def b(t: float) -> float:
        return lam * math.sqrt(2 * t)

    h, x0 = 0.5, 1.2
    W, area = math.sqrt(h) * z, h**1.5 * (z / 2 + k / math.sqrt(12))
    for sampler, at, beta1, beta2 in (
        (sra1, (1.5, 2.0), (1, 0), (-1, 1)),
        (sra2, (2 - 0.5 / 3, 1.5), (0, 1), (1.5, -1.5)),
    ):
        first = a(2.0, x0)
        H = x0 + 0.75 * h * first + 1.5 * b(at[0]) * area / h
        wanted = x0 + h * (first / 3 + 2 / 3 * a(2 - 0.75 * h, H))
        for time, w, v in zip(at, beta1, beta2, strict=True):
            wanted += b(time) * (w * W + v * area / h)
        x = torch.full((1, 1), x0, dtype=F64)
        draws = torch.tensor([z, k], dtype=F64).reshape(2, 1, 1)
        (out,) = sampler(process, score, x, ts, replay(draws), lam=lam)
        assert float(out) == pytest.approx(wanted, rel=1e-12)


def test_restart_repairs_the_errors_of_the_flow_at_a_cost_that_is_counted() -> None:
    """Started from a wrong law, K returns bring the result nearer, and each costs its steps."""

    process, data = edm(), default_data(2)
    ts = quadratic(process, 60)
    wrong = gaussian(torch.full((2,), 30.0), 6400 * torch.eye(2))
    far, spent = [], []
    for K in (0, 2, 6):
        options = {"K": K, "S_min": 0.3, "S_max": 30.0}
        far.append(audit(restart, process, ts, data, start=wrong, options=options).w2)
        score = counted(gaussian_score(process, data, (2,)), 4)
        x = initial([0], 4, (2,), dtype=F64)
        final(restart(process, score, x, ts, brownian(ts, (2,), [0], 4), **options), x)
        spent.append(score.nfe)
    assert far[2] < far[1] < far[0]
    assert spent[0] == 2 * 60
    assert (spent[2] - spent[0]) == 3 * (spent[1] - spent[0]) > 0

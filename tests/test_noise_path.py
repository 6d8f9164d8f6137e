"""One seed is one Brownian path: its law, nested grids, seeds, streams, cost and errors."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import inf, log2, nan, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from labcore import InvalidGrid, LabError, SamplerError
from labcore.bridge import increments as steps_of
from labcore.bridge import path
from labcore.noise import brownian, counting, initial

F32, F64 = torch.float32, torch.float64


def uneven(n: int, seed: int = 0) -> Tensor:
    """n + 1 decreasing times with steps of very different size."""
    g = torch.Generator().manual_seed(seed)
    h = torch.rand(n, generator=g, dtype=torch.float64) ** 3 + 1e-4
    return torch.cat([h.flip(0).cumsum(0).flip(0), torch.zeros(1)]) + 0.01


def increments(
    ts: Tensor,
    *,
    seeds: Sequence[int] = (7,),
    n: int = 3,
    event: tuple[int, ...] = (2,),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Increments of every step, not normalised, (N, B, *event)."""
    noise = brownian(ts, event, seeds, n, dtype=dtype)
    return torch.stack([(t - s).sqrt() * noise(t, s) for t, s in pairwise(ts)])


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 130), seed=st.integers(0, 100))
def test_every_second_point_sees_the_same_path(n: int, seed: int) -> None:
    ts = uneven(2 * n, seed)
    for dtype, within in ((torch.float32, 2e-6), (torch.float64, 2e-14)):
        fine = increments(ts, dtype=dtype)
        coarse = increments(ts[::2], dtype=dtype)
        both = fine[::2] + fine[1::2]
        scale = (ts[:-2:2] - ts[2::2]).sqrt()[:, None, None]
        assert ((coarse - both) / scale).abs().max() < within


def test_nesting_carries_over_several_halvings() -> None:
    ts = uneven(5 * 64)
    fine = increments(ts, dtype=torch.float64)
    for p in (8, 64):
        coarse = increments(ts[::p], dtype=torch.float64)
        assert torch.allclose(coarse, fine.unflatten(0, (-1, p)).sum(1), atol=1e-13)


def test_both_precisions_share_the_path() -> None:
    ts = uneven(37)
    double, single = increments(ts, dtype=torch.float64), increments(ts)
    assert double.dtype == torch.float64
    assert single.dtype == torch.float32
    assert torch.allclose(double, single.double(), atol=3e-6)
    half = brownian(ts, (2,), (7,), 3, dtype=torch.bfloat16)(ts[0], ts[1])
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_normalised_increments_are_independent_standard_normals(n: int) -> None:
    """At 2e5 samples a covariance has sd 0.0022, so a correlation of 0.02 fails; KS at level 1e-4
    sees a shift of 0.007 standard deviations or 1 % in scale."""
    ts, rows = uneven(n), 200_000
    noise = brownian(ts, (), (11,), rows)
    z = torch.stack([noise(t, s) for t, s in pairwise(ts)]).double()
    assert (z @ z.T / rows - torch.eye(n)).abs().max() < 0.015
    assert z.mean(1).abs().max() < 0.012
    for row in z:
        assert kstest(row.numpy(), "norm").pvalue > 1e-4


@settings(deadline=None, max_examples=30)
@given(
    seeds=st.lists(st.integers(0, 2**40), min_size=2, max_size=5, unique=True),
    n=st.integers(1, 9),
    d=st.integers(1, 9),
    steps=st.integers(1, 20),
)
def test_a_seed_in_a_batch_is_bit_equal_to_the_seed_alone(
    seeds: list[int], n: int, d: int, steps: int
) -> None:
    ts = uneven(steps)
    batch = increments(ts, seeds=seeds, n=n, event=(d,))
    alone = torch.cat([increments(ts, seeds=[seed], n=n, event=(d,)) for seed in seeds], 1)
    assert torch.equal(batch, alone)
    starts = torch.cat([initial([seed], n, (d,)) for seed in seeds])
    assert torch.equal(initial(seeds, n, (d,)), starts)


def test_a_step_asked_again_or_others_left_out_changes_no_draw() -> None:
    ts = uneven(9)
    every = brownian(ts, (2,), (3,), 4)
    wanted = [every(t, s).clone() for t, s in pairwise(ts)]
    some = brownian(ts, (2,), (3,), 4)
    for i in (1, 1, 4, 4, 8):
        assert torch.equal(some(ts[i], ts[i + 1]), wanted[i])
        assert torch.equal(some(float(ts[i]), float(ts[i + 1])), wanted[i])


def test_a_draw_that_is_kept_stays_what_it_was() -> None:
    ts = uneven(16)
    noise = brownian(ts, (2,), (3,), 4)
    kept = [noise(t, s) for t, s in pairwise(ts)]
    again = brownian(ts, (2,), (3,), 4)
    for z, (t, s) in zip(kept, pairwise(ts), strict=True):
        assert torch.equal(z, again(t, s))


def test_streams_are_independent_and_do_not_disturb_each_other() -> None:
    ts, rows = uneven(6), 100_000
    noise = brownian(ts, (), (5,), rows)
    main, other = [], []
    for t, s in pairwise(ts):
        main.append(noise(t, s))
        other.append(noise(t, s, stream="corrector"))
    alone = brownian(ts, (), (5,), rows)
    assert torch.equal(torch.stack(main), torch.stack([alone(t, s) for t, s in pairwise(ts)]))
    cross = torch.stack(main) @ torch.stack(other).T / rows
    assert cross.abs().max() < 0.02  # sd 0.0032
    x = initial([5], rows, ())
    assert (torch.stack(main) @ x / rows).abs().max() < 0.02
    assert abs(float(x @ initial([5], rows, (), name="other") / rows)) < 0.02


def test_white_draws_are_no_path_s_and_begin_alike_on_every_grid() -> None:
    long, short, rows = uneven(6), uneven(3), 100_000
    noise = brownian(long, (), (5,), rows)
    path = [noise(t, s) for t, s in pairwise(long)]
    draw = noise.white(long)
    white = [draw() for _ in long[1:]]
    z = torch.stack([*path, *white, noise.white(long, stream="other")()])
    assert (z @ z.T / rows - torch.eye(len(z))).abs().max() < 0.02  # sd 0.0032 and 0.0045
    other = brownian(short, (), (4, 5), rows)
    draw = other.white(short)
    for z, _ in zip(white, short[1:], strict=False):
        assert torch.equal(draw()[rows:], z)


def test_seeds_give_unrelated_paths() -> None:
    ts, rows = uneven(4), 100_000
    a, b = (increments(ts, seeds=[k], n=rows, event=()) for k in (1, 2))
    scale = (ts[:-1] - ts[1:]).sqrt()[:, None]
    assert ((a / scale) @ (b / scale).T / rows).abs().max() < 0.02


def test_numbers_of_steps_that_do_not_nest_still_share_most_of_the_path() -> None:
    """The value half way, on 12 and on 16 equal steps: a documented correlation, not identity."""

    def half_way(steps: int) -> Tensor:
        ts = torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)
        return increments(ts, n=20_000, event=())[: steps // 2].sum(0)

    a, b = half_way(12), half_way(16)
    assert not torch.equal(a, b)
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.8


@pytest.mark.parametrize("by_splits", [True, False])
@pytest.mark.parametrize("n", [1, 5, 64, 100, 1000, 1023])
def test_a_step_costs_one_draw_and_log_n_states_are_alive(n: int, by_splits: bool) -> None:
    drawn = handed = most = 0

    def fresh(depth: int, std: float = 1.0) -> Tensor:
        nonlocal drawn, most
        drawn += 1
        most = max(most, drawn - handed)
        return torch.zeros(1)

    times = [float(t) for t in uneven(n)]
    every = path(times, lambda depth: (fresh(depth),))
    for _ in every if by_splits else steps_of(times, fresh, [1.0] * n):
        handed += 1
    assert drawn == handed == n
    assert most <= log2(n) + 2


@pytest.mark.parametrize("n", [1, 2, 7, 12, 50])
def test_increments_are_those_of_splitting_unit_normals(n: int) -> None:
    """Against Levy's rotations, with the same draws, to rounding."""
    times = [float(t) for t in uneven(n)]
    g, h = (torch.Generator().manual_seed(1) for _ in range(2))
    randn = partial(torch.randn, 5, dtype=torch.float64)
    wanted = path(times, lambda _: (randn(generator=g),))
    got = steps_of(times, lambda _, std: std * randn(generator=h), [1.0] * n)
    for (z,), w in zip(wanted, got, strict=True):
        assert torch.allclose(z, w, atol=1e-14, rtol=0)


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_what_was_handed_out_is_not_written_to_later(seeds: tuple[int, ...]) -> None:
    for n in (1, 7, 16):
        ts = uneven(n)
        path = brownian(ts, (2,), seeds, 6)
        scaled = brownian(ts, (2,), seeds, 6).scaled(ts, [0.5] * n)
        white, onto = (brownian(ts, (2,), seeds, 6).white(ts) for _ in range(2))
        base = torch.ones(6 * len(seeds), 2)
        steps = list(pairwise(ts.tolist()))
        for draws in (
            (path(t, s) for t, s in steps),
            scaled,
            (white(2.0) for _ in steps),
            (onto(2.0, base) for _ in steps),
        ):
            kept = [(z, z.clone()) for z in draws]
            assert all(torch.equal(z, copy) for z, copy in kept)


@pytest.mark.parametrize("first", [nan, 1e-40, inf, -2.0])
def test_factors_of_any_size_are_products(first: float) -> None:
    ts, factors = uneven(3), [first, 1.0, 1.0]
    noise = brownian(ts, (2,), (3,), 6)
    wanted = torch.stack(
        [f * noise(t, s) for f, (t, s) in zip(factors, pairwise(ts), strict=True)]
    )
    got = torch.stack(list(brownian(ts, (2,), (3,), 6).scaled(ts, factors)))
    assert torch.equal(got.nan_to_num(7.0), wanted.nan_to_num(7.0))
    white = brownian(ts, (2,), (3,), 6).white(ts)(factors[0])
    plain = brownian(ts, (2,), (3,), 6).white(ts)()
    assert torch.allclose(white, factors[0] * plain, equal_nan=True, atol=1e-44)
    with pytest.raises(ValueError, match="shorter"):
        list(brownian(ts, (2,), (3,), 6).scaled(ts, [1.0]))


def test_white_draws_are_scaled_in_float64_and_as_many_as_the_moves() -> None:
    ts = uneven(4)
    noises = [brownian(ts, (2,), (3, 4), 5, dtype=d) for d in (F64, F64, F32)]
    one, other, single = (noise.white(ts, 2, "kick") for noise in noises)
    for _ in range(8):
        z = one()
        assert z.dtype is F64
        assert torch.allclose(other(0.3), 0.3 * z, rtol=1e-15)
        assert torch.allclose(single().double(), z, rtol=1e-6)
    for draw in (one, single):
        with pytest.raises(SamplerError, match=r"2 move\(s\) a step of stream 'kick' have been"):
            draw()
    for ask, why in (
        (lambda: noises[0].white(ts, 1, "kick"), "were handed out"),
        (lambda: noises[0].white(ts[:-1], 1, "other"), "another grid"),
    ):
        with pytest.raises(SamplerError, match=why):
            ask()


@pytest.mark.parametrize("dtype", [F32, F64, torch.bfloat16])
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
@pytest.mark.parametrize("factor", [0.3, 0.0, -2.0, nan])
def test_a_white_draw_added_to_a_state_is_their_sum(
    dtype: torch.dtype, seeds: tuple[int, ...], factor: float
) -> None:
    ts, base = uneven(4), torch.linspace(-1, 1, 10 * len(seeds), dtype=dtype).reshape(-1, 2)
    alone, onto = (brownian(ts, (2,), seeds, 5, dtype=dtype).white(ts) for _ in range(2))
    before = base.clone()
    for _ in range(4):
        assert torch.equal(
            onto(factor, base).nan_to_num(7.0), (base + alone(factor)).nan_to_num(7.0)
        )
    assert torch.equal(base, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_noise_of_any_precision_has_it(dtype: torch.dtype, seeds: tuple[int, ...]) -> None:
    ts = uneven(4)
    noise, exact = (brownian(ts, (2,), seeds, 5, dtype=d) for d in (dtype, F32))
    pairs = [(noise.white(ts)(0.5), exact.white(ts)(0.5))]
    pairs += zip(noise.scaled(ts, [0.5] * 4), exact.scaled(ts, [0.5] * 4), strict=True)
    for z, of in pairs:
        assert z.dtype is dtype
        assert torch.equal(z, of.to(dtype))


def test_moves_of_a_step_are_draws_of_their_own() -> None:
    """The first move of every step is the same however many follow it."""
    ts = uneven(3)
    two, one = (brownian(ts, (2,), (3,), 5).white(ts, moves) for moves in (2, 1))
    drawn = [two() for _ in range(6)]
    assert all(torch.equal(z, one()) for z in drawn[::2])
    assert len({float(z[0, 0]) for z in drawn}) == 6


def test_white_draws_of_any_noise_are_its_draws_of_streams_by_number() -> None:
    ts, noise, one = uneven(2), counting((2,)), torch.ones(1, 2)
    draw = noise.white(ts, 2, "kick")
    assert all(float(draw().abs().sum()) == 0 for _ in range(2))
    assert all(torch.equal(draw(0.5, one), one) for _ in range(2))
    assert len(noise.draws) == 4
    with pytest.raises(SamplerError, match="have been drawn"):
        draw()


def test_scaled_steps_and_areas_are_of_two_paths() -> None:
    ts = uneven(3)
    noise = brownian(ts, (2,), (3,), 5)
    list(noise.scaled(ts, [1.0] * 3))
    with pytest.raises(SamplerError, match="with areas and without"):
        noise.levy(ts[0], ts[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factors", [[0.5, 2.0, 1e-3, 7.0, 1.0], [0.5, 0.0, 1.0, -1.0, 3.0]])
def test_scaled_increments_are_those_of_the_path(factors: list[float], dtype: torch.dtype) -> None:
    """Of a factor that is zero or negative, and on a part of the grid too; and new tensors."""
    ts = uneven(5)
    noise = brownian(ts, (2,), (3, 4), 6, dtype=dtype)
    wanted = [f * noise(t, s) for f, (t, s) in zip(factors, pairwise(ts), strict=True)]
    tolerance = 1e-6 if dtype is torch.float32 else 1e-14
    again = brownian(ts, (2,), (3, 4), 6, dtype=dtype)
    for z, w in zip(again.scaled(ts, factors), wanted, strict=True):
        assert z.dtype is dtype
        assert ((z - w) / max(factors)).abs().max() < tolerance
        z.zero_()
    part = next(brownian(ts, (2,), (3, 4), 6, dtype=dtype).scaled(ts[:3], factors[:2]))
    assert torch.allclose(part, wanted[0], atol=tolerance)


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    increments(uneven(8))
    initial([1], 2, (3,))
    brownian(uneven(8), (2,), (3,), 4).tree(0.01)(0.5, 0.2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_that_is_not_one_of_the_grid_is_refused() -> None:
    ts = uneven(6)
    noise = brownian(ts, (2,), (0,), 3)
    for t, s in ((0.5, 0.25), (ts[0], ts[2]), (ts[1], ts[0]), (ts[1].float(), ts[2]), (ts[2], 0)):
        with pytest.raises(SamplerError, match="no step of the grid"):
            noise(t, s)
    noise(ts[2], ts[3])
    with pytest.raises(SamplerError, match="before the last step"):
        noise(ts[1], ts[2])
    with pytest.raises(SamplerError, match="two paths"):
        noise.levy(ts[3], ts[4])
    noise.levy(ts[3], ts[4], stream="other")


@pytest.mark.parametrize(
    "times", [[1.0], [1.0, 1.0], [0.1, 1.0], [1.0, float("nan")], [float("inf"), 1.0]]
)
def test_a_grid_that_is_none_is_refused_at_once(times: list[float]) -> None:
    with pytest.raises(InvalidGrid):
        brownian(torch.tensor(times, dtype=torch.float64), (2,), (0,), 3)


def test_an_empty_batch_is_refused() -> None:
    for seeds, n in (((0,), 0), ((), 3)):
        with pytest.raises(LabError, match="ask for 1 or more"):
            brownian(uneven(2), (2,), seeds, n)
        with pytest.raises(LabError, match="ask for 1 or more"):
            initial(seeds, n, (2,))


def test_the_end_point_has_the_variance_of_the_span() -> None:
    ts = uneven(21)
    end = increments(ts, n=200_000, event=()).sum(0)
    assert abs(float(end.std()) / sqrt(float(ts[0] - ts[-1])) - 1) < 0.01  # sd 0.0016

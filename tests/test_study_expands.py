"""A study expands to the right cells, and everything wrong with it is said before it runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_lab import ENTRIES, registry_of, study

import labcore
from labcore import InvalidStudy, use
from labcore.expand import steps_within
from labcore.study import Cell


def cells(**changes: object) -> list[Cell]:
    made = study(**changes)
    return made.cells(registry_of(made))


def refused(**changes: object) -> str:
    with pytest.raises(InvalidStudy) as caught:
        cells(**changes)
    return str(caught.value)


def test_product_of_axes_with_qualified_names() -> None:
    got = cells()
    assert len(got) == 2 * 2 * 3
    assert {str(c.sampler) for c in got} == {"local:toy_em", "local:toy_heun"}
    assert len({c.key for c in got}) == len(got)
    assert len({c.but_seed for c in got}) == 4


def test_defaults_written_out_are_the_same_cell() -> None:
    (a,) = cells(process=use("toy_vp"), sampler="toy_em", steps=4, seed=0)
    (b,) = cells(process=use("toy_vp", b1=20.0), sampler="toy_em", steps=4, seed=0)
    (c,) = cells(process=use("toy_vp", b1=10), sampler="toy_em", steps=4, seed=0)
    assert a.key == b.key != c.key
    assert str(b.process) == "local:toy_vp"
    assert str(c.process) == "local:toy_vp(b1=10)"


def test_equal_nfe_gives_a_two_evaluation_sampler_half_the_steps() -> None:
    steps = {str(c.sampler): c.steps for c in cells(steps=(), nfe=21, seed=0)}
    assert steps == {"local:toy_em": 21, "local:toy_heun": 10}
    steps = {str(c.sampler): c.steps for c in cells(steps=(), nfe=21, seed=0, end="denoise")}
    assert steps == {"local:toy_em": 20, "local:toy_heun": 10}


@given(
    evals=st.integers(1, 9),
    extra=st.integers(0, 3),
    nfe=st.integers(1, 500),
    denoise=st.booleans(),
)
def test_budget_is_never_exceeded_nor_wasted(
    evals: int, extra: int, nfe: int, denoise: bool
) -> None:
    def fn(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        yield x

    entry = labcore.Entry("sampler", "s", fn, {"evals": evals, "extra": extra})
    end = "denoise" if denoise else "stop"
    if nfe - extra - denoise < evals:
        with pytest.raises(InvalidStudy, match="does not pay for one step"):
            steps_within(entry, nfe, end)
        return
    steps = steps_within(entry, nfe, end)
    assert steps * evals + extra + denoise <= nfe < (steps + 1) * evals + extra + denoise


@pytest.mark.parametrize("bad", [0, -1, 2.5, "ten", True, None, 10**9])
def test_step_counts_that_are_none(bad: object) -> None:
    assert "steps=" in refused(steps=[bad, 4])


def test_all_mistakes_at_once() -> None:
    text = refused(
        steps=0, sampler=["toy_emm", use("toy_heun", eta=1)], start="nowhere", metrics=(), n=0
    )
    for part in ("steps=0", "toy_emm", "no option 'eta'", "nowhere", "metrics", "n=0"):
        assert part in text
    assert text.count("\n") >= 6


@pytest.mark.parametrize("axis", ["target", "sampler", "seed", "grid", "metrics"])
def test_empty_axis(axis: str) -> None:
    assert f"{axis}: the axis is empty" in refused(**{axis: []})


def test_repeats_are_named() -> None:
    assert "seed: 1 stands there more than once" in refused(seed=[1, 1, 2])
    text = refused(process=[use("toy_vp"), use("local:toy_vp", b1=20.0)])
    assert "local:toy_vp stands there more than once" in text


def test_a_billion_cells_are_refused_by_their_count() -> None:
    text = refused(seed=range(10**6), steps=range(1, 1001))
    assert "2,000,000,000 cells" in text


def test_typo_gets_the_nearest_name() -> None:
    assert "toy_heun" in refused(sampler="toy_hean")


def test_samples_at_0_are_not_held_against_the_law_at_t_eps() -> None:
    mixed = {"end": ["stop", "denoise"], "against": ["data", "t_eps"]}
    assert "end='denoise' with against='t_eps': its samples are at 0" in refused(**mixed)
    made = study(**mixed, where=lambda cell: cell.end == "stop" or cell.against == "data")
    kept = {(cell.end, cell.against) for cell in made.cells(made.registry())}
    assert kept == {("stop", "data"), ("stop", "t_eps"), ("denoise", "data")}


def test_more_samples_than_memory_are_refused() -> None:
    text = refused(n=10**13)
    assert "n=10,000,000,000,000: two states of 10,000,000,000,000 x (2,) take 160,000 GB" in text
    assert "use fewer samples" in text


def test_process_options_that_do_not_fit() -> None:
    assert "b1='high'" in refused(process=use("toy_vp", b1="high"))


def test_needs_that_nobody_meets_are_named_with_the_remedy() -> None:
    @labcore.sampler(order=None, evals=1, needs=("energy",))
    def needy(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        yield x

    text = refused(sampler=["needy"], entries=[*ENTRIES, needy])
    assert "needs energy" in text
    assert "where=" in text


def test_where_keeps_cells_and_must_keep_one() -> None:
    kept = cells(where=lambda cell: cell.steps == 8)
    assert {c.steps for c in kept} == {8}
    assert "where= keeps no cell" in refused(where=lambda cell: False)


def test_too_few_samples_for_a_metric() -> None:
    assert "needs n of at least 2" in refused(n=1)


def test_grid_that_does_not_decrease_is_refused_before_any_run() -> None:
    @labcore.grid
    def rising(process, n, *, t_eps=None):  # type: ignore[no-untyped-def]
        import torch

        return torch.linspace(0.1, 1.0, n + 1, dtype=torch.float64)

    text = refused(grid="rising", entries=[*ENTRIES, rising])
    assert "strictly decrease" in text


def test_grid_that_ends_at_zero_is_refused_with_the_default_named() -> None:
    @labcore.grid
    def to_zero(process, n, *, t_eps=None):  # type: ignore[no-untyped-def]
        import torch

        return torch.linspace(1.0, 0.0, n + 1, dtype=torch.float64)

    text = refused(grid="to_zero", entries=[*ENTRIES, to_zero])
    assert "Sigma is singular" in text
    assert "0.001" in text

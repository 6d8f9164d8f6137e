"""Heat maps and Pareto fronts: every number in its place, nothing hidden."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import LogNorm
from synthetic_rows import band_of_means, failed, floor, frame, row, seeds

from labcore import plots
from labcore.errors import LabError
from labcore.plots.fronts import round_numbers
from labcore.plots.style import plain

A, B = "s:ddim(eta=0.0)", "s:heun"
GRIDS = ("g:uniform", "g:karras", "g:logsnr")


def places(figure):
    """What is written in each (row, column) of the one map."""
    ax = figure.axes[0]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    columns = [t.get_text() for t in ax.get_xticklabels()]
    return {
        (rows[int(t.get_position()[1])], columns[int(t.get_position()[0])]): t.get_text()
        for t in ax.texts
    }


ROWS = frame(
    seeds([0.5, 0.6, 0.7], sampler=A, grid=GRIDS[0]),
    seeds([0.01, 0.022, np.nan], sampler=A, grid=GRIDS[1]),
    seeds([np.nan, np.nan], sampler=A, grid=GRIDS[2]),
    seeds([0.004, 0.005, 0.006], sampler=B, grid=GRIDS[0]),
    seeds([0.25], sampler=B, grid=GRIDS[1]),
    floor(np.linspace(0.006, 0.009, 50)),
)


def test_every_place_says_what_it_holds():
    assert places(plots.heatmap(ROWS, "energy")) == {
        ("ddim", "uniform"): "0.6\n± 0.2",
        ("ddim", "karras"): "0.02\n± 0.08\n1 of 3 failed",
        ("ddim", "logsnr"): "failed\n2 of 2",
        ("heun", "uniform"): "0.005\n± 0.002\nat floor",
        ("heun", "karras"): "0.25",
        ("heun", "logsnr"): "not run",
    }


def test_colours_are_the_means_and_flat_within_the_floor():
    ax = plots.heatmap(ROWS, "energy").axes[0]
    mesh = ax.collections[0]
    top = band_of_means(ROWS[ROWS.kind == "floor"].value, 3)[1]
    want = [[0.6, 0.016, np.nan], [top, 0.25, np.nan]]
    values = np.ma.filled(mesh.get_array(), np.nan).reshape(2, 3)
    assert values == pytest.approx(np.array(want), nan_ok=True)
    assert isinstance(mesh.norm, LogNorm)
    assert (mesh.norm.vmin, mesh.norm.vmax) == pytest.approx((top, 0.6))


def test_failures_are_hatched_and_gaps_are_not():
    ax = plots.heatmap(ROWS, "energy").axes[0]
    [hatched] = [p for p in ax.patches if p.get_gid() == "failed"]
    assert hatched.get_hatch()
    assert (int(hatched.get_x()), int(hatched.get_y())) == (2, 0)


def test_of_a_higher_is_better_metric_the_lower_end_counts():
    rows = frame(
        seeds([0.9] * 3, sampler=A),
        seeds([0.2] * 3, sampler=B),
        floor(np.linspace(0.85, 0.99, 50)),
    )
    said = places(plots.heatmap(rows, "energy", better="higher"))
    assert {place[0]: "at floor" in text for place, text in said.items()} == {
        "ddim": True,
        "heun": False,
    }


def test_budgets_make_panels_by_what_samplers_share():
    one = [row(sampler=A, grid=g, steps=k, nfe=k) for g in GRIDS for k in (10, 20)]
    two = [row(sampler=B, grid=g, steps=k // 2, nfe=k) for g in GRIDS for k in (10, 20)]
    axes = plots.heatmap(frame(one, two), "energy").axes
    assert [ax.get_title() for ax in axes[:2]] == ["NFE = 10", "NFE = 20"]
    same = [{**r, "steps": r["nfe"], "nfe": 2 * r["nfe"]} for r in two]
    axes = plots.heatmap(frame(one, same), "energy").axes
    assert [ax.get_title() for ax in axes[:2]] == ["steps = 10", "steps = 20"]
    [ax, _] = plots.heatmap(frame(one, same), "energy", columns="nfe", rows="grid").axes[:2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "20", "40"]


def test_two_means_for_one_place_are_an_error():
    rows = frame([row(steps=k, nfe=20) for k in (10, 20)])
    with pytest.raises(LabError, match="several means for one sampler and grid"):
        plots.heatmap(rows, "energy")


def test_negative_means_take_a_linear_scale():
    rows = frame(seeds([-0.1] * 2, sampler=A), seeds([0.5] * 2, sampler=B))
    mesh = plots.heatmap(rows, "energy").axes[0].collections[0]
    assert not isinstance(mesh.norm, LogNorm)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-0.1, 0.5)


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(points)
def test_the_front_is_what_nothing_beats(drawn):
    """Against the definition, point by point; ties are many on a 7 x 7 lattice."""

    def beats(p, q):
        return p[0] <= q[0] and p[1] <= q[1] and p != q

    want = [not any(beats(p, q) for p in drawn) for q in drawn]
    assert plots.front(*zip(*drawn, strict=True)).tolist() == want


def test_unknown_points_are_never_on_the_front():
    nan = np.nan
    assert plots.front([1.0, nan, 2.0], [5.0, 1.0, nan]).tolist() == [True, False, False]


def timed(sampler, points, **given):
    return [
        row(
            sampler=sampler,
            steps=k,
            nfe=k,
            seed=s,
            value=v,
            seconds=t * (1 + 0.5 * (s - 1)),
            **given,
        )
        for k, (t, v) in enumerate(points, start=1)
        for s in range(3)
    ]


def front_of(figure):
    [line] = [line for line in figure.axes[0].lines if line.get_gid() == "front"]
    return np.column_stack(line.get_data())


def test_pareto_draws_settings_and_their_front():
    rows = frame(
        timed(A, [(1, 0.9), (2, 0.5), (4, 0.4)]), timed(B, [(1.5, 0.95), (3, 0.3), (6, 0.1)])
    )
    figure = plots.pareto(rows, "energy")
    assert front_of(figure) == pytest.approx(np.array([(1, 0.9), (2, 0.5), (3, 0.3), (6, 0.1)]))
    marked = [line for line in figure.axes[0].lines if line.get_marker() in "os"]
    seconds = np.array([line.get_xdata() for line in marked])
    assert seconds == pytest.approx(np.array([[1, 2, 4], [1.5, 3, 6]]))
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["ddim", "heun", "Pareto front"]


def test_within_the_floor_only_the_fastest_counts():
    rows = frame(timed(A, [(1, 0.9), (2, 0.008), (4, 0.002)]), floor(np.linspace(0.001, 0.01, 60)))
    top = band_of_means(np.linspace(0.001, 0.01, 60), 3)[1]
    assert front_of(plots.pareto(rows, "energy")) == pytest.approx(np.array([(1, 0.9), (2, top)]))


def test_failed_cells_are_crosses_at_the_seconds_they_would_take():
    rows = frame(
        timed(A, [(1, 0.9), (2, 0.5)]),
        [failed(sampler=A, steps=4, nfe=4, seed=s, seconds=np.nan) for s in range(3)],
    )
    figure = plots.pareto(rows, "energy")
    [cross] = [line for line in figure.axes[0].lines if line.get_gid() == "failed"]
    assert float(cross.get_xdata()[0]) == pytest.approx(4.0)
    assert figure.legends[0].get_texts()[0].get_text() == "ddim, 3 failed"


@given(low=st.floats(1e-4, 1e3), ratio=st.floats(1.5625, 1e6))
def test_numbers_at_the_seconds_are_few_and_far_between(low: float, ratio: float) -> None:
    at = np.array(round_numbers(low, low * ratio))
    assert 2 <= len(at) <= 10
    assert low <= at.min()
    assert at.max() <= low * ratio
    room = np.log(at[1:] / at[:-1]) / np.log(ratio)
    assert room.min() > 0.06  # of the axis, where a label takes about that
    assert (np.char.str_len([plain(value) for value in at]) <= 7).all()


def budgets(*nfe_of: tuple[str, int]):
    """Each sampler at the steps of k evaluations that budgets of 8, 16 and 32 pay for."""
    return frame(
        *(
            seeds([1.0, 1.1], sampler=name, grid=grid, steps=b // k, nfe=b // k * k)
            for name, k in nfe_of
            for grid in GRIDS[:2]
            for b in (8, 16, 32)
        )
    )


def test_budgets_that_do_not_divide_share_a_panel():
    axes = plots.heatmap(budgets((A, 1), (B, 3)), "energy").axes[:3]
    assert [ax.get_title() for ax in axes] == ["NFE 6 to 8", "NFE 15 to 16", "NFE 30 to 32"]
    assert all("not run" not in [t.get_text() for t in ax.texts] for ax in axes)
    even = plots.heatmap(budgets((A, 1), (B, 2)), "energy").axes[:3]
    assert [ax.get_title() for ax in even] == ["NFE = 8", "NFE = 16", "NFE = 32"]


def test_budgets_of_other_sizes_do_not_share_a_panel():
    """8, 16 and 32 are not what 15 and 30 are, whatever their ranks."""
    two = budgets((B, 15))  # 0, 15 and 30
    rows = frame(budgets((A, 1)).to_dict("records"), two[two["nfe"] > 0].to_dict("records"))
    titles = [ax.get_title() for ax in plots.heatmap(rows, "energy").axes if ax.get_title()]
    assert titles == [f"NFE = {n}" for n in (8, 15, 16, 30, 32)]


def test_panels_by_budget_stand_in_order_of_size_within_what_else_varies():
    cells = [
        *(row(sampler=A, process=p, steps=n, nfe=n) for p in ("p:vp", "p:edm") for n in (20, 5)),
        *(row(sampler=B, process=p, steps=n, nfe=n) for p in ("p:edm", "p:vp") for n in (5, 20)),
    ]
    axes = plots.heatmap(frame(cells), "energy").axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["ddim", "heun"]
    want = [f"{p}, NFE = {n}" for p in ("vp", "edm") for n in (5, 20)]
    assert [" ".join(ax.get_title().split()) for ax in axes[:4]] == want

"""A curve shows the aggregated numbers: means, intervals, floors, slopes and failures."""

import matplotlib
import numpy as np
import pytest
import scipy.stats
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from synthetic_rows import band_of_means, failed, floor, frame, row, seeds
from synthetic_rows import curve as law

from labcore import plots, stats
from labcore.errors import LabError
from labcore.plots.style import looks, mean_and_half, short_number, with_error

STEPS = (5, 10, 20, 40)
DDIM, HEUN = "samplers:ddim(eta=0.0)", "samplers:heun"
FLOOR = floor(np.linspace(1e-4, 3e-4, 50))


def two_samplers(**given):
    factors = [0.9, 1.0, 1.2]
    return frame(
        law(lambda k: 2 / k, STEPS, factors, sampler=DDIM, **given),
        law(lambda k: 9 / k**2, STEPS, factors, sampler=HEUN, **given),
        FLOOR,
    )


def drawn(ax):
    """The lines of samplers: they have as many points as there are steps."""
    return [line for line in ax.lines if len(line.get_xdata()) == len(STEPS)]


def crosses(ax):
    return [line for line in ax.lines if line.get_gid() == "failed"]


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lines_are_the_means_and_bands_the_intervals():
    rows = two_samplers()
    [ax] = plots.curve(rows, "energy").axes
    summary = stats.summarise(rows)
    for line, band, sampler in zip(drawn(ax), ax.collections, (DDIM, HEUN), strict=True):
        want = summary[summary["sampler"] == sampler]
        assert line.get_xdata().tolist() == list(STEPS)
        assert line.get_ydata() == pytest.approx(want["mean"].to_numpy(), rel=1e-12)
        corners = {tuple(v) for v in band.get_paths()[0].vertices.tolist()}
        assert corners == {
            *zip(STEPS, want["lo"], strict=True),
            *zip(STEPS, want["hi"], strict=True),
        }
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_the_floor_is_a_band_at_its_height():
    rows = two_samplers()
    figure = plots.curve(rows, "energy", level=0.9)
    [band] = [patch for patch in figure.axes[0].patches if patch.get_gid() == "floor"]
    repeats = rows[rows.kind == "floor"].value
    lo, hi = band_of_means(repeats, rows[rows.kind == "cell"].seed.nunique(), 0.9)
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((lo, hi))
    low, high = figure.axes[0].get_ylim()
    assert low < lo < hi < high
    assert "noise floor (90 %)" in legend_texts(figure)


def test_a_single_point_shows_its_interval():
    rows = frame(seeds([1.0, 1.1, 1.2], nfe=10), seeds([2.0, 2.1, 2.3], nfe=10, sampler=HEUN))
    ax = plots.curve(rows, "energy").axes[0]
    lines = [made for made in ax.collections if isinstance(made, LineCollection)]
    drawn = [path for made in lines for path in made.get_segments()]
    table = stats.summarise(rows)
    want = [[[10, lo], [10, hi]] for lo, hi in zip(table["lo"], table["hi"], strict=True)]
    assert [path.tolist() for path in drawn] == [pytest.approx(np.array(w)) for w in want]


def test_each_process_panel_has_its_own_floor():
    rows = frame(
        law(lambda k: 1 / k, STEPS, [1.0, 1.1], process="p:vp", against="t_eps"),
        law(lambda k: 1 / k, STEPS, [1.0, 1.1], process="p:ve", against="t_eps"),
        floor([1e-3, 2e-3] * 20, process="p:vp", against="t_eps"),
        floor([3e-3, 4e-3] * 20, process="p:ve", against="t_eps"),
    )
    heights = {
        ax.get_title(): [p.get_y() for p in ax.patches if p.get_gid() == "floor"]
        for ax in plots.curve(rows, "energy").axes
    }
    want = {"vp": [1e-3, 2e-3], "ve": [3e-3, 4e-3]}
    assert heights == {k: pytest.approx([band_of_means(v * 20, 2)[0]]) for k, v in want.items()}


def test_the_legend_gives_the_fitted_slope():
    noisy = two_samplers()
    noisy["value"] *= np.exp(np.random.default_rng(0).normal(0, 0.1, len(noisy)))
    fits = stats.slopes(noisy)
    want = [
        f"{name}, slope {with_error(fit['slope'], fit['hi'] - fit['slope'])}"
        for name, (_, fit) in zip(("ddim", "heun"), fits.iterrows(), strict=True)
    ]
    assert legend_texts(plots.curve(noisy, "energy"))[:2] == want
    exact = legend_texts(plots.curve(two_samplers(), "energy"))
    assert exact[:2] == ["ddim, slope −1.00 ± 0.01", "heun, slope −2.00 ± 0.01"]
    bare = legend_texts(plots.curve(two_samplers(), "energy", fit=False))
    assert bare == ["ddim", "heun", "noise floor (95 %)"]


def test_over_panels_the_legend_gives_the_range_of_slopes():
    rows = frame(
        law(lambda k: 1 / k, STEPS, [1.0], process="p:vp"),
        law(lambda k: 1 / k**2, STEPS, [1.0], process="p:ve"),
    )
    assert legend_texts(plots.curve(rows, "energy")) == ["ddim, slope −2.00 to −1.00"]


def test_the_legend_says_in_how_many_panels_a_slope_was_fitted():
    rows = frame(
        law(lambda k: 1 / k, STEPS, [1.0], process="p:vp"),
        law(lambda k: 1 / k**2, STEPS, [1.0], process="p:ve"),
        law(lambda k: 1 / k, STEPS[:2], [1.0], process="p:edm"),
    )
    assert legend_texts(plots.curve(rows, "energy")) == [
        "ddim, slope −2.00 to −1.00 in 2 of 3 panels"
    ]
    [text] = legend_texts(plots.curve(rows[rows["process"] != "p:ve"], "energy"))
    assert text == "ddim, slope −1.00 ± 0.01 in 1 of 2 panels"


def test_failed_cells_are_crosses_and_counted():
    rows = frame(
        law(lambda k: 1 / k, (5, 20, 40), [1.0, 1.1], sampler=DDIM),
        [failed(sampler=DDIM, steps=10, nfe=4, seed=s) for s in (0, 1)],
        law(lambda k: 1 / k, STEPS, [1.0, 1.1], sampler=HEUN),
        [failed(sampler=HEUN, steps=10, nfe=10, seed=2)],
    )
    figure = plots.curve(rows, "energy")
    [ax] = figure.axes
    gap, whole = drawn(ax)
    assert np.isnan(gap.get_ydata()).tolist() == [False, True, False, False]
    assert not np.isnan(whole.get_ydata()).any()
    marks = crosses(ax)
    assert [float(m.get_xdata()[0]) for m in marks] == [10, 10]
    assert [m.get_color() for m in marks] == [gap.get_color(), whole.get_color()]
    heights = [float(m.get_ydata()[0]) for m in marks]
    assert heights[0] != heights[1]
    assert min(heights) > 0.85
    texts = legend_texts(figure)
    assert texts[0].endswith(", 2 failed")
    assert texts[1].endswith(", 1 failed")
    assert texts[-1] == "failed cells"


def test_a_study_of_failures_is_still_a_figure():
    figure = plots.curve(frame(*(seeds([np.nan] * 3, steps=k, nfe=k) for k in STEPS)), "energy")
    [ax] = figure.axes
    assert [float(m.get_xdata()[0]) for m in crosses(ax)] == list(STEPS)
    assert "all cells failed" in [t.get_text() for t in ax.texts]
    assert legend_texts(figure)[0] == "ddim, 12 failed"


def test_a_negative_mean_is_drawn_not_dropped():
    values = dict(zip(STEPS, (1.0, 0.1, -0.002, 0.001), strict=True))
    rows = frame(law(values.get, STEPS, [1.0, 1.0]), floor(np.linspace(-4e-3, 5e-3, 60)))
    [ax] = plots.curve(rows, "energy").axes
    assert ax.get_yscale() == "symlog"
    assert drawn(ax)[0].get_ydata().tolist() == list(values.values())
    top = band_of_means(np.linspace(-4e-3, 5e-3, 60), 2)[1]
    assert ax.yaxis.get_transform().linthresh == pytest.approx(top)
    low, high = ax.get_ylim()
    assert low < -0.004
    assert high > 1.0


def test_an_interval_near_zero_does_not_stretch_a_log_axis():
    """Of two seeds 1 +- h the interval is 1 +- t h; here it ends at -29, at 1e-9 and at 0.3."""
    t = scipy.stats.t.ppf(0.975, 1)
    halves = (2.4, (1 - 1e-9) / t, 0.7 / t)
    rows = frame(*(seeds([1 - h, 1 + h], steps=k) for k, h in enumerate(halves, start=5)))
    assert stats.summarise(rows)["lo"].to_numpy() == pytest.approx([1 - 2.4 * t, 1e-9, 0.3])
    [ax] = plots.curve(rows, "energy", x="steps").axes
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert 0.05 < low < 0.1
    assert 10 < high < 20


def test_what_varies_makes_panels():
    lists = [
        law(lambda k, c=c: c / k, STEPS, [1.0, 1.1], process=p, target=t)
        for c, p, t in ((1, "p:vp", "t:a"), (2, "p:ve", "t:a"), (3, "p:vp", "t:b"))
    ]
    figure = plots.curve(frame(*lists), "energy", fit=False)
    found = {ax.get_title(): drawn(ax)[0].get_ydata()[0] for ax in figure.axes}
    assert found == {
        "a, vp": pytest.approx(1.05 / 5),
        "a, ve": pytest.approx(2.1 / 5),
        "b, vp": pytest.approx(3.15 / 5),
    }
    assert [ax.get_xlabel() for ax in figure.axes] == ["NFE"] * 3
    assert [ax.get_ylabel() for ax in figure.axes] == ["energy", "", ""]


def test_settings_are_never_mixed_in_a_line():
    rows = frame(*(law(lambda k: 1 / k, STEPS, [1.0], n=n) for n in (100, 1000)))
    with pytest.raises(LabError, match="curve: n would be mixed in one panel"):
        plots.curve(rows, "energy", facet=[])
    assert [ax.get_title() for ax in plots.curve(rows, "energy").axes] == ["n = 100", "n = 1000"]
    many = frame(*(law(lambda k: 1 / k, STEPS, [1.0], n=n) for n in range(1, 27)))
    with pytest.raises(LabError, match="26 panels by n, at most 24"):
        plots.curve(many, "energy")


def test_hue_and_axis_may_be_others():
    rows = frame(*(law(lambda k: 1 / k, STEPS, [1.0], grid=g) for g in ("a:u", "b:u", "a:q")))
    rows["nfe"] = 2 * rows["steps"] + 1
    figure = plots.curve(rows, "energy", x="steps", hue="grid", fit=False)
    assert legend_texts(figure) == ["a:u", "b:u", "q"]
    assert drawn(figure.axes[0])[0].get_xdata().tolist() == list(STEPS)
    assert figure.axes[0].get_xlabel() == "steps"


def test_metrics_are_found_by_their_short_name():
    rows = frame(law(lambda k: 1 / k, STEPS, [1.0], metric="m:moments(order=2).cov"))
    [ax] = plots.curve(rows, "moments.cov").axes
    assert ax.get_ylabel() == "moments.cov"
    with pytest.raises(LabError, match="metric 'w2': not in these results; there are m:moments"):
        plots.curve(rows, "w2")


@pytest.mark.parametrize("draw", [plots.curve, plots.heatmap, plots.pareto])
def test_no_cells_is_an_error(draw):
    with pytest.raises(LabError, match="the frame has no cells; run the study first"):
        draw(frame(FLOOR), "energy")


def test_strange_names_are_drawn_as_they_are_written(tmp_path):
    names = ["acme:_hidden", "acme:co$t", "acme:a$b$c", "acme:tab\tname", "acme:x^2_y"]
    figure = plots.curve(
        frame(*(law(lambda k: 1 / k, STEPS, [1.0], sampler=s) for s in names)), "energy", fit=False
    )
    shown = [" _hidden", r"co\$t", r"a\$b\$c", "tab name", "x^2_y"]
    assert legend_texts(figure) == shown
    plots.save(figure, tmp_path / "names")
    parse = matplotlib.cbook.is_math_text
    assert not any(parse(text) for text in shown)


def test_forty_looks_are_told_apart():
    found = looks(f"s{i}" for i in range(40))
    pairs = {(to_hex(look.color), look.marker) for look in found.values()}
    assert len(pairs) == 40
    first = {to_hex(look.color) for look in list(found.values())[:7]}
    assert len(first) == 7


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["a:x(p=1)", "a:y"], ["x", "y"]),
        (["a:x(p=1)", "a:x(p=2)", "b:y(q=3)"], ["x(p=1)", "x(p=2)", "y"]),
        (["a:x(p=1)", "b:x(p=1)", "b:x(p=2)"], ["a:x(p=1)", "b:x(p=1)", "x(p=2)"]),
        (["a:pc(inner=a:x)", "a:pc(inner=b:x)"], ["pc(inner=a:x)", "pc(inner=b:x)"]),
    ],
)
def test_names_are_as_short_as_they_can_be_told_apart(labels, short):
    assert list(plots.short_names(labels).values()) == short


@pytest.mark.parametrize(
    ("mean", "half", "texts"),
    [
        (0.12345, 0.0312, ("0.12", "± 0.03")),
        (0.12345, 0.0132, ("0.123", "± 0.013")),
        (1.3e-5, 0.21e-5, ("1.3e−5", "± 0.2e−5")),
        (-0.002, 0.004, ("−0.002", "± 0.004")),
        (123.4, 56.0, ("123", "± 56")),
        (0.0, 0.5, ("0.0", "± 0.5")),
        (6e-6, 2.367e-3, ("0.000", "± 0.002")),
        (-3e-7, 1e-3, ("0.0000", "± 0.0010")),
        (0.0, 2e-5, ("0e−5", "± 2e−5")),
    ],
)
def test_means_have_the_digits_their_interval_allows(mean, half, texts):
    assert mean_and_half(mean, half) == texts


def test_single_numbers_have_two_digits():
    assert [short_number(v) for v in (0.0132, 2.0, 1.34e-7, 0.0)] == [
        "0.013",
        "2.0",
        "1.3e−7",
        "0",
    ]


def test_an_interval_is_rounded_up():
    assert with_error(-1.017, 0.0501) == "−1.02 ± 0.06"
    assert with_error(2.0, 0.0) == "2.00 ± 0.01"


def test_a_thousand_cells_are_aggregated_before_they_are_drawn():
    """12 samplers of 6 steps and 20 seeds: as many points as means, not as cells."""
    steps = (5, 10, 20, 40, 80, 160)
    rows = frame(
        *(law(lambda k: 1 / k, steps, np.linspace(1, 2, 20), sampler=f"s:{i}") for i in range(12))
    )
    [ax] = plots.curve(rows, "energy").axes
    assert sum(len(line.get_xdata()) for line in ax.lines) == 72
    assert row()["metric"] == rows["metric"].iloc[0]

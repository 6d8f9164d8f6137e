"""Nothing is clipped and nothing overlaps, however many and however long the names."""

from itertools import combinations, product

import matplotlib
import numpy as np
import pytest
from synthetic_rows import curve as law
from synthetic_rows import failed, floor, frame

from labcore import plots

LONG = [f"plugin:exponential_integrator_of_a_long_name(order={i})" for i in range(12)]
SHORT = ["s:ddim", "s:heun", "s:euler_maruyama"]
STEPS = (5, 10, 20, 40)


def study(samplers, targets=("t:a",), processes=("p:vp",)):
    rows = []
    for target, process in product(targets, processes):
        where = {"target": target, "process": process}
        for i, sampler in enumerate(samplers):
            rows += law(lambda k, c=i + 1: c / k, STEPS, [1.0, 1.1], sampler=sampler, **where)
        rows += [failed(sampler=samplers[0], steps=5, nfe=5, seed=9, **where)]
    return frame(rows, *(floor([1e-3, 2e-3] * 20, target=target) for target in targets))


FEW, MANY = study(SHORT), study(LONG)
WIDE_NAMES = {
    "targets": ("t:a_target_whose_name_is_forty_letters_long", "t:another_target_of_long_name"),
    "processes": ("p:variance_preserving_with_a_long_name", "p:ve"),
}
PANELS = study(SHORT, ("t:a", "t:b"), ("p:1", "p:2", "p:3"))
WIDE = study(LONG[:3], **WIDE_NAMES)
CLOUD = np.random.default_rng(0).normal(size=(200, 2))
FIGURES = {
    "curve": lambda: plots.curve(FEW, "energy"),
    "curve of long names": lambda: plots.curve(MANY, "energy"),
    "curve of long names on a page": lambda: plots.curve(MANY, "energy", width=plots.PAGE),
    "curve in panels": lambda: plots.curve(PANELS, "energy"),
    "curve in five panels": lambda: plots.curve(study(SHORT, tuple("abcde")), "energy"),
    "curve in panels of long names": lambda: plots.curve(WIDE, "energy"),
    "pareto": lambda: plots.pareto(FEW, "energy"),
    "pareto in panels": lambda: plots.pareto(study(SHORT, ("t:a", "t:b")), "energy"),
    "heatmap": lambda: plots.heatmap(FEW, "energy", columns="steps"),
    "heatmap of long names": lambda: plots.heatmap(MANY, "energy", columns="steps"),
    "heatmap in panels": lambda: plots.heatmap(WIDE, "energy", columns="process"),
    "sheet": lambda: plots.sheet_2d(dict.fromkeys(LONG[:7], CLOUD)),
    "sheet with notes": lambda: plots.sheet_2d(
        {(s, k): CLOUD for s in LONG[:2] for k in STEPS[:3]},
        notes={(LONG[0], 5): "4 NFE\ngrid karras", (LONG[2], 10): "failed\nSamplerError"},
        title=f"grid {'of a long name, ' * 9}end stop",
    ),
    "pictures with notes": lambda: plots.sheet_images(
        {(s, k): CLOUD[:128].reshape(4, 64) for s in SHORT for k in STEPS},
        tiles=(2, 2),
        notes={(SHORT[2], 40): "39 NFE", (SHORT[1], 5): "4 NFE"},
        title="grid karras",
    ),
    "sheet in a table": lambda: plots.sheet_2d({(s, k): CLOUD for s in LONG[:2] for k in STEPS}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_all_lies_within_the_figure_and_apart(name):
    figure = FIGURES[name]()
    with plots.style.paper():
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
        boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
        boxes = [box.padded(-1.5) for box in boxes if box]  # crosses may touch the edge
        whole = figure.bbox
        for box in boxes:
            assert whole.x0 <= box.x0
            assert whole.y0 <= box.y0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        for ax in figure.axes:
            apart(ax.get_xticklabels(), renderer, figure)
            apart(ax.get_yticklabels(), renderer, figure)


def apart(ticks, renderer, figure):
    """Tick labels that are seen do not cover each other; slanting ones are not rectangles."""
    boxes = [t.get_window_extent(renderer) for t in ticks if t.get_visible() and t.get_text()]
    inside = [b for t, b in zip(ticks, boxes, strict=False) if t.get_rotation() in (0, 90)]
    inside = [b for b in inside if figure.bbox.overlaps(b)]
    assert not any(a.padded(-1).overlaps(b.padded(-1)) for a, b in combinations(inside, 2))


@pytest.mark.parametrize("name", ["curve", "heatmap in panels", "sheet in a table"])
def test_axes_keep_most_of_the_figure(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    areas = [ax.get_position().width * ax.get_position().height for ax in figure.axes]
    assert sum(areas) > 0.25
    assert min(areas) > 0.01


def test_titles_of_several_lines_do_not_shrink_the_panels():
    def height(targets):
        figure = plots.curve(study(SHORT, targets), "energy")
        figure.draw_without_rendering()
        return figure.axes[0].get_position().height * figure.get_size_inches()[1]

    long = tuple(f"t:a_target_whose_name_is_forty_letters_{i}" for i in range(3))
    assert height(long) == pytest.approx(height(("t:a", "t:b", "t:c")), rel=0.1)


def test_widths_are_those_of_a_paper():
    assert FIGURES["curve"]().get_size_inches()[0] == plots.COLUMN
    assert FIGURES["curve in panels"]().get_size_inches()[0] == plots.PAGE
    assert FIGURES["curve of long names on a page"]().get_size_inches()[0] == plots.PAGE


def test_drawing_leaves_no_trace():
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    for name in ("curve", "pareto", "heatmap", "sheet"):
        FIGURES[name]()
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []

"""Marks: every figure and table says of each sampler whether it is certified, and how not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_rows import curve, floor, frame, seeds

from labcore import plots, stats
from labcore.cli.results import _show

STATES = {
    "samplers:ddim(eta=0.0)": "certified",
    "acme:ab2": "failed: order, nfe",
    "samplers:heun": "uncertified",
}
NOTE = "† uncertified; ‡ failed: order, nfe; no mark: certified"


def study(states: dict[str, str], **given: Any) -> pd.DataFrame:
    lists = [
        curve(lambda k: 1 / k, [5, 10, 20], [0.9, 1.1], sampler=s, certificate=text, **given)
        for s, text in states.items()
    ]
    return frame(*lists, floor(np.linspace(0.001, 0.002, 5)))


def legends(figure: Figure) -> list[str]:
    """Every text of every legend as it is drawn, lines joined."""
    texts = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return [" ".join(text.split()) for text in texts]


@pytest.mark.parametrize("draw", [plots.curve, plots.pareto])
def test_legends_mark_each_sampler_and_say_what_the_marks_mean(draw: Any) -> None:
    said = legends(draw(study(STATES), "energy"))
    assert NOTE in said
    firsts = [text.partition(",")[0] for text in said]
    assert {"ddim", "ab2 ‡", "heun †"} <= set(firsts)


def test_heat_maps_mark_their_rows() -> None:
    cells = [
        seeds([0.4, 0.5], sampler=s, certificate=text, grid=g)
        for s, text in STATES.items()
        for g in ("linear:karras", "linear:uniform")
    ]
    figure = plots.heatmap(frame(*cells), "energy")
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["ddim", "ab2 ‡", "heun †"]
    assert legends(figure) == [NOTE]


def test_panels_and_lines_of_other_axes_carry_the_marks_too() -> None:
    rows = pd.concat([study(STATES), study(STATES, grid="linear:karras")])
    cells = rows[rows["kind"] == "cell"]
    by_grid = plots.curve(cells, "energy", hue="grid", fit=False)
    titles = [ax.get_title() for ax in by_grid.axes]
    assert titles == ["ddim", "ab2 ‡", "heun †"]
    one = cells[cells["sampler"] == "acme:ab2"]
    hidden = plots.curve(one, "energy", hue="grid", fit=False)
    assert "‡ ab2: failed: order, nfe" in legends(hidden)


def test_sheets_mark_samplers_and_leave_exact_draws_alone() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    names = ["exact draws", *STATES]
    table = plots.sheet_2d({(n, 5): x for n in names}, certificates=STATES)
    assert [ax.get_ylabel() for ax in table.axes] == ["exact draws", "ddim", "ab2 ‡", "heun †"]
    assert legends(table) == [NOTE]
    pictures = plots.sheet_images(dict.fromkeys(names, x), (1, 2), certificates=STATES)
    assert [ax.get_title() for ax in pictures.axes] == ["exact draws", "ddim", "ab2 ‡", "heun †"]
    assert legends(pictures) == [NOTE]


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["certified", "certified"], "all samplers certified"),
        (["uncertified", "uncertified"], "† uncertified"),
        (["failed: nfe", "failed: order"], "‡ heun: failed: nfe; ‡ ddim: failed: order"),
        (
            ["uncertified on linear:vp, certified on linear:edm", "uncertified"],
            "† ddim: uncertified; † heun: uncertified on linear:vp, certified on linear:edm",
        ),
    ],
)
def test_the_note_names_samplers_where_a_mark_means_several_things(
    texts: list[str], note: str
) -> None:
    states = dict(zip(["samplers:heun", "samplers:ddim"], texts, strict=True))
    assert note in legends(plots.curve(study(states), "energy"))


def test_a_frame_that_knows_of_no_certificates_is_drawn_without_marks() -> None:
    rows = study(STATES).drop(columns="certificate")
    said = " ".join(legends(plots.curve(rows, "energy")))
    assert "certified" not in said
    assert not {"†", "‡"} & {*said}


def test_notes_stand_clear_of_legend_and_axes() -> None:
    figure = plots.curve(study(STATES), "energy")
    figure.canvas.draw()
    note, legend = sorted(
        (g.get_window_extent() for g in figure.legends), key=lambda box: float(box.y0)
    )
    axes = figure.axes[0].get_tightbbox()
    assert note.y0 >= 0
    assert note.y1 <= legend.y0
    assert legend.y1 <= axes.y0


def test_hostile_texts_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    states = {"samplers:heun": "failed: $x_", "samplers:ddim": "failed: \x1b[31mred"}
    figure = plots.curve(study(states), "energy")
    assert any(r"\$x_" in text for text in legends(figure))
    assert not any("\x1b" in text for text in legends(figure))
    plots.save(figure, tmp_path / "hostile", ["svg"])


def test_a_setting_is_as_good_as_the_worst_of_its_rows() -> None:
    texts = ["certified", "uncertified", "failed: order", "uncertified"]
    rows = frame(
        *(
            seeds([1.0], sampler="a:x", certificate=t, steps=k)
            for k, t in [(1, "certified"), (2, "certified")]
        )
    )
    mixed = pd.concat([rows, frame(seeds([1.0] * 4, sampler="a:x", steps=3))], ignore_index=True)
    mixed.loc[mixed["steps"] == 3, "certificate"] = texts
    table = stats.summarise(mixed).set_index("steps")["certificate"].astype(str)
    assert table.to_dict() == {1: "certified", 2: "certified", 3: "failed: order"}


def test_comparisons_say_how_each_side_stands() -> None:
    table = stats.paired(study(STATES), "ab2", "ddim")
    assert set(table["certificate_a"]) == {"failed: order, nfe"}
    assert set(table["certificate_b"]) == {"certified"}


def test_the_table_of_results_has_the_states(capsys: pytest.CaptureFixture[str]) -> None:
    _show(study({**STATES, "acme:bad": "failed: \x1b[31morder"}), ())
    out = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert "‡ failed: order, nfe" in lines["ab2"]
    assert "† uncertified" in lines["heun"]
    assert lines["ddim"].split("│")[-2].strip() == "certified"
    assert "\x1b[31m" not in out

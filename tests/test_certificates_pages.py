"""Pages of certificates: everything in them, nothing of it alive, the same bytes each time."""

import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labcore import pages
from labcore.certificates import Certificate, Check
from labcore.errors import LabError
from labcore.pages.figures import draw

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y> `|x` [a](javascript:b) $y$ \x1b[31m"
NS = [8, 16, 32, 64]
LINES: dict[str, Any] = {
    **{"kind": "lines", "title": "errors", "xlabel": "steps", "ylabel": "W2"},
    **{"xscale": "log", "yscale": "log"},
    "series": [
        {"label": "measured", "x": NS, "y": [1 / n for n in NS]},
        {"label": "order 2", "x": NS, "y": [n**-2.0 for n in NS], "dashed": True},
    ],
}
REGION: dict[str, Any] = {
    **{"kind": "region", "title": "amplification", "xlabel": "step", "ylabel": "mode"},
    **{"zlabel": "|R|", "level": 1.0, "x": [0.1, 0.2, 0.4], "y": [1.0, 10.0]},
    "z": [[0.9, 0.8, None], [0.5, 2.0, 5000.0]],
}
TABLE: dict[str, Any] = {
    **{"kind": "table", "title": "a table", "columns": ["steps", "W2"]},
    "rows": [[8, 0.123456], [16, None]],
}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "p", "h1", "h2", "h3", "span", "div"),
    *("b", "table", "tr", "th", "td", "code", "pre", "a", "br", "section", "img"),
}


def certificate(text: str = "", **given: Any) -> Certificate:
    checks = (
        Check("pure", "passed", "fine" + text),
        Check("order", "failed", "0.85, declared 2" + text, "mend it" + text,
              {"slope": 0.851234, "window" + text: [8, 64], "lost" + text: {"a" + text: 1}},
              tuple({**p, "title": p["title"] + text} for p in (LINES, REGION, TABLE))),
        Check("strong", "skipped", "none declared"),
    )  # fmt: skip
    made: dict[str, Any] = {
        **{"sampler": "acme:ab2", "options": {"eta": 0.5, "how": "x" + text}, "checks": checks},
        **{"process": "linear:vp(b1=10)", "distribution": "acme 1.2" + text},
        **{"versions": {"labcore": "0.1" + text}, "made": "2026-11-21T14:00:00", "seed": 3},
    }
    return Certificate(**{**made, **given})


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_tells_all_that_the_certificate_holds() -> None:
    made = certificate()
    seen = Seen(pages.html(made))
    said = " ".join(seen.text.split())
    for text in (
        *("acme:ab2", "linear:vp(b1=10)", "eta = 0.5, how = x", "acme 1.2", "labcore 0.1"),
        *("1 of 2 checks failed: order; 1 had nothing to say of it.", made.key, "mend it"),
        *("0.85, declared 2", "slope0.8512", "window8, 64", "none declared", "0.1235"),
        "process-wide state is left alone",  # what the check pure means, from its docstring
    ):
        assert text in said, text
    images = [attrs["src"] or "" for tag, attrs in seen.tags if tag == "img"]
    assert len(images) == 2
    assert all(src.startswith("data:image/svg+xml;base64,") for src in images)


def test_a_page_needs_no_other_file_and_no_script() -> None:
    for text in ("", HOSTILE):
        page = pages.html(certificate(text))
        seen = Seen(page)
        assert {tag for tag, _ in seen.tags} <= TAGS
        assert not any(name.startswith("on") for _, attrs in seen.tags for name in attrs)
        links = {v for _, attrs in seen.tags for k, v in attrs.items() if k in ("href", "src")}
        assert all((link or "").startswith(("#", "data:image/svg+xml;base64,")) for link in links)


def test_hostile_text_is_shown_and_is_not_alive() -> None:
    made = certificate(HOSTILE, sampler="acme:ab2" + HOSTILE, process="p" + HOSTILE)
    page = pages.html(made)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<script>alert(1)</script>" in Seen(page).text
    listed = pages.index([made])
    assert "<script" not in listed
    assert {attrs["href"] for tag, attrs in Seen(listed).tags if tag == "a"} == {
        f"{pages.stem(made)}.html"
    }
    for text in (pages.markdown(made), pages.listing([made])):
        prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
        assert not {"<", ">", "\x1b"} & {*prose}
        assert "[a](" not in prose.replace("\\[", "")
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert {line.replace("\\|", "").count("|") for line in rows} <= {3, 4, 8}


def test_options_are_shown_to_the_last_digit() -> None:
    made = certificate(options={"eta": 0.1234567891234})
    assert "eta = 0.1234567891234" in pages.html(made)
    assert "--option eta=0.1234567891234" in pages.html(made)


@pytest.mark.parametrize("value", [0.5, "x", "0.5", "a b; rm -rf /", (1, 2), None, True, "'"])
def test_the_command_gives_the_same_options_back(value: Any) -> None:
    from labcore.cli.check import _option

    words = shlex.split(pages.command(certificate(options={"how": value})))
    assert words[:3] == ["labcore", "check", "acme:ab2"]
    assert _option(words[words.index("--option") + 1]) == ("how", value)
    assert words[words.index("--process") + 1] == "linear:vp(b1=10)"


def test_the_command_of_a_script_names_its_file() -> None:
    made = certificate(sampler="local:ab2", distribution="my sampler.py 0123abcd", options={})
    assert shlex.split(pages.command(made))[2] == "my sampler.py:ab2"


def test_the_same_certificate_gives_the_same_files(tmp_path: Path) -> None:
    both = [certificate(), certificate(HOSTILE)]
    for folder in ("a", "b"):
        assert len(list(pages.write(both, tmp_path / folder))) == 6
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 2 * (2 + 2) + 2
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    (md,) = tmp_path.glob(f"a/{pages.stem(both[0])}.md")
    for name in [line.split("](")[1][:-1] for line in md.read_text().splitlines() if "![" in line]:
        assert (tmp_path / "a" / name).is_file()
    assert sum("](" in line for line in md.read_text().splitlines()) == 2


def test_lines_hold_the_numbers_and_regions_the_level(tmp_path: Path) -> None:
    (ax,) = draw(LINES).axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [line.get_xdata().tolist() for line in ax.lines] == [NS, NS]  # type: ignore[union-attr]
    np.testing.assert_allclose(np.asarray(ax.lines[1].get_ydata()), [n**-2.0 for n in NS])
    figure = draw(REGION)
    mesh = figure.axes[0].collections[0]
    drawn = mesh.get_array()
    assert drawn is not None
    expected = [[np.log10(0.9), np.log10(0.8), np.nan], [np.log10(0.5), np.log10(2), 2.0]]
    np.testing.assert_allclose(np.ma.filled(drawn.reshape(2, 3), np.nan), expected)


@pytest.mark.parametrize(
    "plot",
    [
        {**LINES, "series": []},
        {**LINES, "series": [{"label": "$_", "x": NS, "y": [None] * 4}]},
        {**LINES, "series": [{"label": "a", "x": NS, "y": [0.0, -1.0, 0.0, 0.0]}]},
        {**REGION, "z": [[None] * 3] * 2},
        {**REGION, "z": [[0.0] * 3] * 2},
        {**REGION, "level": 0.0},
        {**REGION, "y": [1.0], "z": [[0.5, 1.0, 2.0]]},
        {**REGION, "xscale": "log", "yscale": "log"},
    ],
)
def test_plots_without_much_in_them_are_drawn_without_a_warning(plot: dict[str, Any]) -> None:
    figure = draw(plot)
    figure.canvas.draw()


def test_a_plot_that_cannot_be_drawn_is_said_and_harms_no_page() -> None:
    wrong = [{"kind": "spiral", "title": "t"}, {**REGION, "z": [[1.0]]}, {"title": "none"}]
    check = Check("order", "passed", "1.00", plots=tuple(wrong))
    page = pages.html(certificate(checks=(check,)))
    assert page.count("this plot cannot be drawn") == 3


def test_what_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="choose another place"):
        list(pages.write([certificate()], tmp_path / "file" / "x"))
    with pytest.raises(LabError, match="there are html, md"):
        list(pages.write([certificate()], tmp_path, ["pdf"]))


def test_file_names_are_plain_and_told_apart() -> None:
    stems = [
        pages.stem(certificate(sampler="../../etc" + "x" * 300, process="/a b")),
        pages.stem(certificate()),
        pages.stem(replace(certificate(), process="linear:vp")),
    ]
    assert len({*stems}) == 3
    for stem in stems:
        assert len(stem) < 80
        assert not {*"/\\ <>_"} & {*stem}


def test_the_command_of_what_came_to_no_verdict_asks_for_the_whole_battery() -> None:
    stopped = Check("battery", "failed", "no verdict (timeout): over 1 s", "")
    part = certificate(checks=(stopped,), complete=False)
    assert "--checks" not in shlex.split(pages.command(part))

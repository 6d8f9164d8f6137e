"""Saved figures: the same bytes each time, whole or not at all."""

import os
import subprocess
import sys

import matplotlib
import pytest
from synthetic_rows import curve as law
from synthetic_rows import floor, frame

from labcore import plots
from labcore.errors import LabError

ROWS = frame(
    *(law(lambda k: 1 / k, (5, 10, 20), [1.0, 1.1], sampler=f"s:{i}") for i in range(3)),
    floor([1e-3, 2e-3] * 20),
)


def figure():
    return plots.curve(ROWS, "energy")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first = plots.save(figure(), tmp_path / "a")
    again = plots.save(figure(), tmp_path / "b")
    assert [p.name for p in first] == ["a.png", "a.svg", "a.pdf"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"<dc:date>" not in first[1].read_bytes()
    assert b"CreationDate" not in first[2].read_bytes()


def test_the_bytes_do_not_depend_on_the_process(tmp_path):
    [here] = plots.save(plots.sheet_2d({"a": [[0.0, 1.0]] * 9}), tmp_path / "here", ["svg"])
    code = (
        "import sys; from labcore import plots;"
        "plots.save(plots.sheet_2d({'a': [[0.0, 1.0]] * 9}), sys.argv[1], ['svg'])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=env)
    assert here.read_bytes() == (tmp_path / "there.svg").read_bytes()


def test_the_readers_own_settings_change_nothing(tmp_path):
    [plain] = plots.save(figure(), tmp_path / "plain", ["svg"])
    own = {"font.size": 30, "axes.grid": True, "svg.fonttype": "none", "lines.linewidth": 9}
    with matplotlib.rc_context(own):
        [styled] = plots.save(figure(), tmp_path / "styled", ["svg"])
    assert plain.read_bytes() == styled.read_bytes()


def test_a_scatter_is_an_image_within_the_vector_file(tmp_path):
    few, many = ([[i % 7 / 7, i % 5 / 5] for i in range(n)] for n in (100, 2000))
    sizes = [
        plots.save(plots.sheet_2d({"a": x}), tmp_path / f"s{len(x)}", ["svg"])[0].stat().st_size
        for x in (few, many)
    ]
    assert sizes[1] < 2 * sizes[0]


def test_folders_are_made_and_stems_kept(tmp_path):
    [path] = plots.save(figure(), tmp_path / "new folder" / "fig.v1", ["png"])
    assert path == tmp_path / "new folder" / "fig.v1.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_long_name_and_unicode_are_names_too(tmp_path):
    [path] = plots.save(figure(), tmp_path / ("é" * 120), ["svg"])
    assert path.exists()
    with pytest.raises(LabError, match="choose another place or name"):
        plots.save(figure(), tmp_path / ("x" * 300), ["svg"])


def test_an_unknown_format_writes_nothing(tmp_path):
    with pytest.raises(LabError, match=r"'bmp': not known; there are png, svg, pdf"):
        plots.save(figure(), tmp_path / "a", ["png", "bmp"])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    [path] = plots.save(figure(), tmp_path / "a", ["svg"])
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabError, match="No space left on device"):
        plots.save(plots.curve(ROWS, "energy", x="steps"), tmp_path / "a", ["svg"])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="choose another place or name"):
        plots.save(figure(), tmp_path / "file" / "a", ["svg"])

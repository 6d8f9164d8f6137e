"""Sample sheets: the samples drawn are those given, and what is not seen is counted."""

import numpy as np
import pytest
import torch

from labcore import plots
from labcore.errors import LabError
from labcore.plots.sheets import _frame, _regions, tiled


def gaussian(x):
    return -(x**2).sum(1) / 2


CLOUD = np.random.default_rng(0).normal(size=(500, 2))
WINDOW = (-3.0, 3.0, -2.0, 2.0)


def test_the_points_are_the_samples_within_the_frame():
    figure = plots.sheet_2d({"a": torch.tensor(CLOUD)}, extent=WINDOW)
    [ax] = figure.axes
    inside = (abs(CLOUD[:, 0]) <= 3) & (abs(CLOUD[:, 1]) <= 2)
    [scatter] = ax.collections
    assert np.asarray(scatter.get_offsets()) == pytest.approx(CLOUD[inside])
    assert scatter.get_rasterized()
    assert (*ax.get_xlim(), *ax.get_ylim()) == WINDOW
    assert [t.get_text() for t in ax.texts] == [f"{(~inside).sum()} of 500 outside"]


def test_only_the_first_points_are_drawn_and_all_are_counted():
    far = np.vstack([CLOUD, [[99.0, 0.0]], [[np.nan, 0.0]], [[np.inf, 0.0]]])
    [ax] = plots.sheet_2d({"a": far}, extent=(-9, 9, -9, 9), points=100).axes
    assert np.asarray(ax.collections[0].get_offsets()) == pytest.approx(CLOUD[:100])
    assert ax.texts[0].get_text() == "1 of 503 outside\n2 of 503 not finite"


def test_one_sampler_that_blew_up_does_not_set_the_frame():
    left, right, bottom, top = _frame([CLOUD, CLOUD + 0.1, 1e9 * CLOUD])
    assert -6 < left < -2
    assert 2 < right < 6
    assert right - left == pytest.approx(top - bottom)
    assert _frame([np.full((5, 2), np.nan)]) == pytest.approx((-1.3, 1.3, -1.3, 1.3))


def test_shaded_regions_hold_their_share():
    """A standard normal in the plane: P(p > p(r)) = 1 - exp(-r^2/2), so p_level = 1 - mass."""
    *_, levels = _regions(gaussian, (-6, 6, -6, 6), size=400)
    assert levels == pytest.approx([0.01, 0.1, 0.5, 1.0], rel=0.02)


def test_density_is_drawn_below_every_panel():
    figure = plots.sheet_2d({"a": CLOUD, "b": CLOUD}, gaussian)
    assert [len(ax.collections) for ax in figure.axes] == [2, 2]
    flat = plots.sheet_2d({"a": CLOUD}, lambda x: torch.zeros(len(x)))
    assert len(flat.axes[0].collections) == 1


def test_pairs_make_a_table():
    samples = {("s:ddim", 5): CLOUD, ("s:ddim", 10): CLOUD + 1, ("s:heun", 10): CLOUD + 2}
    figure = plots.sheet_2d(samples, extent=(-9, 9, -9, 9))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["5 steps", "10 steps"]
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == ["ddim", "heun"]
    means = [
        np.asarray(ax.collections[0].get_offsets()).mean() if ax.collections else None
        for ax in figure.axes
    ]
    base = CLOUD.mean()
    assert means == [pytest.approx(base), pytest.approx(base + 1), None, pytest.approx(base + 2)]
    assert figure.axes[2].texts[0].get_text() == "not run"
    titled = plots.sheet_2d({("s:ddim", "40 NFE"): CLOUD})
    assert titled.axes[0].get_title() == "40 NFE"


def test_labels_are_shortened_and_escaped():
    figure = plots.sheet_2d({"s:ddim(eta=0.0)": CLOUD, "acme:_co$t": CLOUD})
    assert [ax.get_title() for ax in figure.axes] == ["ddim", r" _co\$t"]


def test_tiles_are_the_pictures_in_rows():
    pictures = np.arange(3 * 4.0).reshape(3, 2, 2)
    b = -1.0
    assert tiled(pictures, (2, 2), blank=b).tolist() == [
        [0, 1, b, 4, 5],
        [2, 3, b, 6, 7],
        [b, b, b, b, b],
        [8, 9, b, b, b],
        [10, 11, b, b, b],
    ]


def test_pictures_share_the_first_names_scale():
    data = np.random.default_rng(0).uniform(-1, 1, (400, 64))
    figure = plots.sheet_images({"data": data, "blown": 1e6 * data}, tiles=(2, 3))
    for ax in figure.axes:
        low, high = ax.images[0].get_clim()
        assert (low, high) == pytest.approx((-0.98, 0.98), abs=0.01)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown[:8, :8] == pytest.approx(data[0].reshape(8, 8))
    assert shown.shape == (17, 26)
    given = plots.sheet_images({"data": data}, limits=(0, 16))
    assert given.axes[0].images[0].get_clim() == (0, 16)


def test_nan_pixels_stand_out():
    figure = plots.sheet_images({"a": np.full((4, 2, 2), np.nan)}, image=(2, 2), tiles=(1, 1))
    [image] = figure.axes[0].images
    red, green, blue, _ = image.cmap(image.norm(image.get_array()))[0, 0]
    assert red > 0.8 > 0.4 > green > blue


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "sheet_2d: no samples; draw some first"),
        ({"a": np.zeros((0, 2))}, "sheet_2d: no samples of a"),
        ({"a": np.zeros((5, 3))}, r"samples of a have shape \(5, 3\); give \(n, 2\) ones"),
        ({"a": CLOUD, ("b", 5): CLOUD}, "some names are labels and some pairs"),
    ],
)
def test_bad_samples_are_named(samples, message):
    with pytest.raises(LabError, match=message):
        plots.sheet_2d(samples)


def test_pictures_of_another_shape_are_named():
    with pytest.raises(LabError, match=r"no picture of image=\(8, 8\); give image="):
        plots.sheet_images({"a": np.zeros((5, 784))})
    with pytest.raises(LabError, match=r"no picture of image=\(1, 2, 2\)"):
        plots.sheet_images({"a": np.zeros((5, 4))}, image=(1, 2, 2))

"""Samples to look at: points over the true density, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labcore.errors import LabError
from labcore.plots.marks import States, caption
from labcore.plots.panels import (
    SPACING,
    grid_of_axes,
    legend_below,
    names_of,
    title_axes,
    wrapped,
)
from labcore.plots.style import GREY, PAGE, escape, paper

Name = str | tuple[str, Any]
Notes = Mapping[Any, str]
Samples = Mapping[str, Any] | Mapping[tuple[str, Any], Any] | Mapping[Name, Any]

MASS = (0.99, 0.9, 0.5)
"""The shaded regions hold this much of the probability in the frame."""

SHADES = ("0.93", "0.84", "0.72")
NOTE = 7
"""Points: the size of a note, and of what is counted in a panel."""

INK, NOT_FINITE = "#0072B2", "#D55E00"


def sheet_2d(
    samples_by_name: Samples,
    log_density: Callable[[Any], Any] | None = None,
    *,
    extent: tuple[float, float, float, float] | None = None,
    points: int = 2000,
    certificates: States | None = None,
    notes: Notes | None = None,
    title: str = "",
    width: float = PAGE,
) -> Figure:
    """Scatter of (n, 2) samples over the density's highest regions, one panel per name.

    Names are labels, or pairs (label, steps): then one row of panels per label and one column
    per number of steps, or per title where a text stands for the steps. `log_density` takes a
    float32 tensor (m, 2). The first `points` samples are drawn; those outside the frame (left,
    right, bottom, top; by default around the bulk of the samples) and those not finite are
    counted in the panel. `certificates` say by which label to mark as what (plots.marks).
    `notes` are written under the panel of a name, or in the place of one without samples, such as
    a run that failed; rows without any samples come last. `title` stands above all.

    Raises LabError for no samples, or samples that are not (n, 2).
    """
    arrays = _arrays(samples_by_name, "sheet_2d")
    for name, x in arrays.items():
        if x.ndim != 2 or x.shape[1] != 2:
            raise LabError(f"sheet_2d: samples of {name} have shape {x.shape}; give (n, 2) ones")
    left, right, bottom, top = extent or _frame(list(arrays.values()))
    regions = _regions(log_density, (left, right, bottom, top)) if log_density else None
    with paper():
        ratio, told = (top - bottom) / (right - left), (certificates or {}, notes or {}, title)
        figure, placed = _sheet(list(arrays), width, ratio, *told)
        for name, ax in placed.items():
            if regions:
                ax.contourf(*regions, colors=SHADES, zorder=0)
            _scatter(ax, arrays[name], points, (left, right, bottom, top))
    return figure


def sheet_images(
    samples_by_name: Samples,
    image: tuple[int, ...] = (8, 8),
    *,
    tiles: tuple[int, int] = (5, 5),
    limits: tuple[float, float] | None = None,
    certificates: States | None = None,
    notes: Notes | None = None,
    title: str = "",
    width: float = PAGE,
) -> Figure:
    """The first samples of each name as pictures, `tiles` = (rows, columns) of them per panel.

    Names, notes and title are as in `sheet_2d`; samples are (n, h w) or (n, h, w). `limits` are
    the values of white and black, by default those between which 98 % of the first name's values
    lie, so put the data first. NaN is orange.

    Raises LabError for no samples, or samples that are not pictures of that shape.
    """
    arrays = _arrays(samples_by_name, "sheet_images")
    for name, x in arrays.items():
        if len(image) != 2 or x[0].size != image[0] * image[1]:
            raise LabError(
                f"sheet_images: a sample of {name} has shape {x.shape[1:]}, which is no picture "
                f"of image={image}; give image=(height, width)"
            )
    first = next((x for x in arrays.values() if np.isfinite(x).any()), np.zeros(1))
    low, high = limits or _bulk([first.reshape(-1, 1)], 0.01)[0]
    with paper():
        told = (certificates or {}, notes or {}, title)
        figure, placed = _sheet(list(arrays), width, tiles[0] / tiles[1], *told)
        colours = matplotlib.colormaps["gray_r"].with_extremes(bad=NOT_FINITE)
        for name, ax in placed.items():
            picture = tiled(arrays[name].reshape(-1, *image), tiles, blank=low)
            ax.imshow(picture, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            ax.spines[:].set_visible(False)
    return figure


def tiled(pictures: np.ndarray, tiles: tuple[int, int], blank: float) -> np.ndarray:
    """The first (n, h, w) pictures in rows, one blank pixel between them."""
    rows, columns = tiles
    _, h, w = pictures.shape
    sheet = np.full((rows, columns, h + 1, w + 1), blank)
    for place, picture in zip(np.ndindex(rows, columns), pictures, strict=False):
        sheet[place][:h, :w] = picture
    return sheet.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1))[:-1, :-1]


def _arrays(samples: Samples, figure: str) -> dict[Name, np.ndarray]:
    arrays = {name: np.asarray(x, dtype=float) for name, x in samples.items()}
    empty = [str(name) for name, x in arrays.items() if x.ndim == 0 or len(x) == 0]
    if empty or not arrays:
        raise LabError(
            f"{figure}: no samples{' of ' + empty[0] if empty else ''}; draw some first"
        )
    return arrays


def _bulk(arrays: Sequence[np.ndarray], tail: float) -> np.ndarray:
    """(d, 2): between which values most coordinates of most of the (n, d) arrays lie."""
    finite = [x[np.isfinite(x).all(axis=1)] for x in arrays]
    ends = [np.quantile(x, [tail, 1 - tail], axis=0).T for x in finite if len(x)]
    if not ends:
        return np.tile([-1.0, 1.0], (arrays[0].shape[1], 1))
    low, high = np.median(ends, axis=0).T
    return np.stack([low, np.maximum(high, low + 1e-9)], axis=1)


def _frame(arrays: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """A square around the bulk: one sampler that blew up does not set the scale for all."""
    ends = _bulk(arrays, 0.005)
    x, y = ends.mean(axis=1)
    half = 0.65 * float((ends[:, 1] - ends[:, 0]).max())
    return x - half, x + half, y - half, y + half


def _regions(
    log_density: Callable[[Any], Any], frame: tuple[float, float, float, float], size: int = 160
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """x, y, density and its levels: the highest regions that hold MASS, for contourf."""
    import torch

    x, y = np.meshgrid(np.linspace(*frame[:2], size), np.linspace(*frame[2:], size))
    at = torch.tensor(np.stack([x.ravel(), y.ravel()], axis=1), dtype=torch.float32)
    log_p = np.asarray(log_density(at).detach().cpu(), dtype=float)
    p = np.exp(log_p - np.nanmax(log_p)).reshape(x.shape)
    highest = np.sort(p[np.isfinite(p)])[::-1]
    held = np.cumsum(highest) / highest.sum()
    levels = np.unique([*highest[np.searchsorted(held, MASS)], 1.0])
    return (x, y, p, levels) if len(levels) == len(MASS) + 1 else None


def _scatter(
    ax: Axes, x: np.ndarray, points: int, frame: tuple[float, float, float, float]
) -> None:
    left, right, bottom, top = frame
    finite = np.isfinite(x).all(axis=1)
    inside = (
        finite & (left <= x[:, 0]) & (x[:, 0] <= right) & (bottom <= x[:, 1]) & (x[:, 1] <= top)
    )
    shown = x[:points][inside[:points]]
    alpha = float(np.clip(300 / max(len(shown), 1), 0.15, 0.8))
    ax.scatter(shown[:, 0], shown[:, 1], s=1.6, color=INK, alpha=alpha, lw=0, rasterized=True)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    lost = [(~inside & finite, "outside"), (~finite, "not finite")]
    told = [f"{mask.sum()} of {len(x)} {what}" for mask, what in lost if mask.any()]
    if told:
        ax.text(
            0.97, 0.03, "\n".join(told), transform=ax.transAxes, ha="right", va="bottom",
            color=NOT_FINITE, size=NOTE,
            bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip


def _sheet(
    drawn: Sequence[Name], width: float, ratio: float, states: States, notes: Notes, title: str
) -> tuple[Figure, dict[Name, Axes]]:
    """A panel without ticks per name: labels one after the other, pairs in a table.

    Places without samples say why; the axes of the others.
    """
    names = list(dict.fromkeys([*drawn, *notes]))
    labels = [name for name in names if isinstance(name, str)]
    pairs = [name for name in names if not isinstance(name, str)]
    if labels and pairs:
        raise LabError("sheet: some names are labels and some pairs; make all (label, steps)")
    if pairs:
        figure, placed = _table(pairs, width, ratio, states)
    else:
        figure, placed = _list(labels, width, ratio, states)
    figure.set_layout_engine("constrained", wspace=0.04, hspace=0.04)
    for ax in figure.axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="0.7")
    kept = {name: placed[name] for name in drawn}
    _write_notes(figure, kept, notes)
    for name in placed.keys() - kept.keys():
        why, ax = escape_lines(notes.get(name, "not run")), placed[name]
        ax.set_frame_on(False)
        ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY)
    if title:
        _write_title(figure, title)
    legend_below(figure, [], [], caption(states, names_of("sampler", states)))
    return figure, kept


def escape_lines(text: str) -> str:
    """A text of several lines, each drawn as it is written."""
    return "\n".join(escape(line) for line in text.split("\n"))


def _write_notes(figure: Figure, placed: Mapping[Name, Axes], notes: Notes) -> None:
    """Notes under their panels; the figure grows by the lines of each row that has some."""
    deepest: dict[int, int] = {}
    for name in placed.keys() & notes.keys():
        ax, text = placed[name], escape_lines(notes[name])
        ax.set_xlabel(text, size=NOTE, color=GREY, labelpad=1.5)
        spec = ax.get_subplotspec()
        row = spec.rowspan.start if spec else 0
        deepest[row] = max(deepest.get(row, 0), text.count("\n") + 1)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + sum(deepest.values()) * 1.35 * NOTE / 72)


def _write_title(figure: Figure, title: str) -> None:
    """A title above all panels, broken to the figure's width, by which the figure grows."""
    width, height = figure.get_size_inches()
    size = matplotlib.rcParams["figure.titlesize"]
    (text,) = wrapped(figure, [escape(title)], 0.95 * width, size)
    figure.suptitle(text, linespacing=SPACING)
    figure.set_size_inches(width, height + (text.count("\n") + 1.4) * size / 72)


def _list(
    labels: Sequence[str], width: float, ratio: float, states: States
) -> tuple[Figure, dict[Name, Axes]]:
    columns = min(len(labels), 5)
    figure, axes = grid_of_axes(len(labels), width, width / columns * ratio + 0.25, columns)
    title_axes(figure, axes, list(names_of("sampler", labels, states=states).values()))
    return figure, dict(zip(labels, axes, strict=True))


def _table(
    pairs: Sequence[tuple[str, Any]], width: float, ratio: float, states: States
) -> tuple[Figure, dict[Name, Axes]]:
    """One row per label, named at its left, and one column per number of steps."""
    labels, steps = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
    side, size = (width - 0.3) / len(steps), matplotlib.rcParams["axes.titlesize"]
    count = len(labels) * len(steps)
    figure, axes = grid_of_axes(count, width, side * ratio + 0.06, len(steps))
    figure.set_size_inches(width, figure.get_size_inches()[1] + 0.2)
    shown = names_of("sampler", labels, states=states)
    names = wrapped(figure, [shown[label] for label in labels], side * ratio, size)
    placed: dict[Name, Axes] = {}
    places = [(label, step) for label in labels for step in steps]
    for i, (ax, place) in enumerate(zip(axes, places, strict=True)):
        if i < len(steps):
            title = place[1] if isinstance(place[1], str) else f"{place[1]} steps"
            ax.set_title(escape(title))
        if i % len(steps) == 0:
            ax.set_ylabel(names[i // len(steps)], linespacing=SPACING)
        placed[place] = ax
    return figure, placed

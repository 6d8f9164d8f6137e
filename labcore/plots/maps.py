"""Where in the plane a score errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from labcore.errors import LabError
from labcore.plots.panels import grid_of_axes, title_axes, wrapped
from labcore.plots.style import PAGE, escape, paper, plain

if TYPE_CHECKING:
    from torch import Tensor

    from labcore.processes import Process
    from labcore.scores import Score
    from labcore.targets import Mixture

Extent = tuple[float, float, float, float]

MASSES = (0.99, 0.9, 0.5)
"""The lines are around the regions of highest density that hold this much of the law."""


def score_map(
    scores: Mapping[str, Score],
    process: Process,
    law: Mixture,
    times: Sequence[float],
    *,
    extent: Extent | None = None,
    size: int = 80,
    width: float = PAGE,
) -> Figure:
    """|L^T (s - s*)| over the plane: a row of panels a score, a column a time.

    Errors are in units of the noise and on one colour scale; the lines hold 50, 90 and 99 % of
    p_t, outside which training hardly looks. ``law`` is the data's, in two dimensions; ``extent``
    (left, right, bottom, top) is by default four deviations around p_t. Raises LabError for
    another dimension or a process whose state is not the plane.
    """
    from labcore.targets import state_law

    if law.means.shape[1] != 2 or process.event((2,)) != (2,):
        raise LabError("score_map: it draws the plane; give a target and a process of event (2,)")
    named, laws = list(scores.items()), [state_law(process, law, t, (2,)) for t in times]
    frames = [extent or _around(of) for of in laws]
    errors = {
        (i, j): _errors(score, process, laws[j], t, frames[j], size)
        for i, (_, score) in enumerate(named)
        for j, t in enumerate(times)
    }
    values = np.concatenate([e.ravel() for e in errors.values()])
    top = max(float(np.quantile(values[np.isfinite(values)], 0.99)), 1e-12)
    with paper():
        side = width / (len(times) + 0.6)
        figure, axes = grid_of_axes(len(errors), width, side * 0.95, len(times))
        for (i, j), ax in zip(errors, axes, strict=True):
            drawn = ax.imshow(
                np.clip(errors[i, j], top * 1e-3, None), origin="lower", extent=frames[j],
                cmap="magma_r", norm=LogNorm(top * 1e-3, top), aspect="auto",
            )  # fmt: skip
            _draw_masses(ax, laws[j], frames[j])
            ax.set(xticks=[], yticks=[])
            if j == 0:
                name = wrapped(figure, [escape(named[i][0])], side * 0.9, 9)[0]
                ax.set_ylabel(name)
        title_axes(figure, axes, [f"t = {plain(times[j])}" if i == 0 else "" for i, j in errors])
        bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02, extend="both")
        bar.set_label("error of the score, in units of the noise")
        bar.outline.set_visible(False)
    return figure


def _around(law: Mixture) -> Extent:
    (x, y), half = law.mean.tolist(), 3 * float(law.cov.diagonal().max().sqrt())
    return x - half, x + half, y - half, y + half


def _plane(extent: Extent, size: int) -> Tensor:
    """Points of a square grid, row by row from the bottom, (size^2, 2)."""
    import torch

    x, y = torch.meshgrid(
        torch.linspace(*extent[:2], size, dtype=torch.float64),
        torch.linspace(*extent[2:], size, dtype=torch.float64),
        indexing="xy",
    )
    return torch.stack([x.reshape(-1), y.reshape(-1)], 1)


def _errors(
    score: Score, process: Process, law: Mixture, t: float, extent: Extent, size: int
) -> np.ndarray:
    """|L^T (s - s*)| on the grid, (size, size)."""
    import torch

    x, at = _plane(extent, size), torch.tensor(t, dtype=torch.float64)
    x.requires_grad_(True)
    (exact,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    with torch.inference_mode():
        off = score(x.detach().float(), at).double() - exact
        found: np.ndarray = (process.Sigma(at).chol.T @ off).norm(dim=1).numpy()
    return found.reshape(size, size)


def _draw_masses(ax: Any, law: Mixture, extent: Extent, size: int = 120) -> None:
    x = _plane(extent, size)
    p = law.log_prob(x).exp().reshape(size, size).numpy()
    highest = np.sort(p.ravel())[::-1]
    held = np.cumsum(highest) / highest.sum()
    levels = np.unique(highest[np.searchsorted(held, MASSES)])
    grid = x.reshape(size, size, 2).numpy()
    ax.contour(grid[..., 0], grid[..., 1], p, levels=levels, colors="0.35", linewidths=0.5)

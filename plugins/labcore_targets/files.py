"""A user's own data as a target: the empirical law of the rows of a file or a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

import labcore
from labcore import Target
from labcore_targets.arrays import npy, npz, parquet
from labcore_targets.images import folder
from labcore_targets.limits import MB, refuse

Scaling = Literal["none", "range", "standard"]


@labcore.target(gives=("data", "samples"))
def file(
    *,
    path: str,
    key: str = "",
    scale: Scaling = "none",
    mode: Literal["gray", "rgb"] = "gray",
    size: Annotated[int, Field(ge=1, le=4096)] | None = None,
    limit_mb: Annotated[int, Field(ge=1)] = 1024,
) -> Target:
    """The empirical law of a data set on disk, one sample a row; drawn with replacement.

    ``path`` is a .npy or .npz file (``key`` names the array), a .parquet file (``key`` names its
    columns, separated by commas, or one of lists; default all numeric columns) or a folder of PNG,
    JPEG, BMP or WebP images, read in order of name as (1, H, W) or (3, H, W) in [-1, 1] by
    ``mode``; ``size`` resizes them to squares. ``scale`` maps the range of all numbers to [-1, 1]
    ("range"), or each coordinate to mean 0 and variance 1 ("standard"). A data set larger than
    ``limit_mb`` as float32 is refused before it is read, as are pickles, NaN and ragged rows.
    """
    place = Path(path)
    rows = _read(place, key, mode, size, limit_mb * MB)
    data = _SCALED[scale](place, _samples(place, rows))

    def sample(n: int, generator: Generator) -> Tensor:
        return data[torch.randint(len(data), (n,), generator=generator)]

    event = tuple(data.shape[1:])
    pixels = event[1:] if len(event) == 3 and event[0] == 1 else event
    image = pixels if len(pixels) == 2 and min(pixels) > 1 else None
    return Target(event, sample, data=data, image=image)


_READERS: dict[str, Callable[[Path, str, int], np.ndarray]] = {
    ".npy": npy,
    ".npz": npz,
    ".parquet": parquet,
}


def _read(path: Path, key: str, mode: str, size: int | None, limit: int) -> np.ndarray:
    try:
        if path.is_dir():
            return folder(path, mode, size, limit)
        if path.suffix.lower() not in _READERS:
            kinds = f"{', '.join(_READERS)} or a folder of images"
            raise refuse(path, f"'{path.suffix}' is not a format it reads", f"give {kinds}")
        return _READERS[path.suffix.lower()](path, key, limit)
    except FileNotFoundError as error:
        raise refuse(path, f"no such file in {path.absolute().parent}", "check path") from error
    except PermissionError as error:
        raise refuse(path, "it may not be read", "check its permissions") from error


def _samples(path: Path, rows: np.ndarray) -> Tensor:
    """(N, *event) float32 with at least one sample, one coordinate and no NaN or Inf."""
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim == 0 or rows.size == 0:
        raise refuse(path, f"it has shape {rows.shape}, no samples", "give one row a sample")
    with np.errstate(over="ignore"):  # beyond float32 is Inf, which is refused below
        data = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    wrong = int((~data.isfinite()).flatten(1).any(1).sum())
    if wrong:
        raise refuse(path, f"{wrong} of {len(data)} rows have NaN or Inf", "remove those rows")
    return data


def _to_range(path: Path, data: Tensor) -> Tensor:
    low, high = data.min().double(), data.max().double()
    if low == high:
        raise refuse(path, f"all its numbers are {float(low):g}", "use scale=none")
    return (2 * (data.double() - low) / (high - low) - 1).float()


def _to_standard(path: Path, data: Tensor) -> Tensor:
    x = data.double()
    std = x.std(0, correction=0)
    return ((x - x.mean(0)) / torch.where(std > 0, std, 1.0)).float()


_SCALED: dict[str, Callable[[Path, Tensor], Tensor]] = {
    "none": lambda path, data: data,
    "range": _to_range,
    "standard": _to_standard,
}

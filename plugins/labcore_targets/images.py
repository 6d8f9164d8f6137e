"""A folder of images as an array; sizes are checked before any pixel is decoded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from labcore import LabError
from labcore_targets.limits import refuse, within

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}
MODES = {"gray": "L", "rgb": "RGB"}


def folder(path: Path, mode: str, size: int | None, limit: int) -> np.ndarray:
    """The images of a folder in order of name, (N, 1 or 3, H, W) float32 in [-1, 1]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise LabError(
            "target 'file': reading images needs Pillow; pip install 'labcore[images]'"
        ) from error
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in FORMATS and p.is_file())
    if not names:
        raise refuse(path, "no image in this folder", f"it takes {', '.join(FORMATS)}")
    pictures: list[np.ndarray] = []
    for name in names:
        pictures.append(_picture(Image, name, MODES[mode], size, limit))
        if pictures[-1].shape != pictures[0].shape:
            raise refuse(
                name,
                f"its pixels are {pictures[-1].shape}, those of {names[0].name} are "
                f"{pictures[0].shape}",
                "give size= to resize all of them",
            )
        within(path, len(names) * pictures[0].size, limit)
    return np.stack(pictures).astype(np.float32) / 127.5 - 1


def _picture(Image: Any, path: Path, mode: str, size: int | None, limit: int) -> np.ndarray:
    """One image as (C, H, W) bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                within(path, len(mode) * image.width * image.height, limit)
                image = image.convert(mode)
                if size is not None:
                    image = image.resize((size, size), Image.Resampling.LANCZOS)
                pixels = np.asarray(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refuse(path, "too many pixels, it may be a bomb", "remove it") from error
    except (OSError, ValueError, SyntaxError) as error:
        line = str(error).splitlines()[0][:120]
        raise refuse(path, f"not a readable image ({line})", "remove it") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

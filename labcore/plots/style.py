"""How every figure looks: sizes, colours, markers, and names a reader can take in."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib

from labcore.stats import bare

COLUMN, PAGE = 3.25, 6.75
"""Widths in inches of one column and of the text of a two-column paper."""

GREY = "0.45"
MARKERS = "os^Dv<P>ph*"
LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
COLOURS = (0, 3, 2, 4, 1, 9, 5)  # of seaborn's "colorblind", without pale, grey and pink ones

RC: Mapping[Any, Any] = {
    **{"font.family": ["STIXGeneral", "DejaVu Sans"], "mathtext.fontset": "stix"},
    **{"font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "figure.titlesize": 9},
    **{"legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8},
    **{"axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.axisbelow": True, "axes.titlepad": 4.0, "axes.labelpad": 2.5},
    **{"grid.linewidth": 0.4, "grid.color": "0.9", "hatch.linewidth": 0.5},
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4},
    **{"ytick.minor.width": 0.4, "xtick.major.size": 2.5, "ytick.major.size": 2.5},
    **{"xtick.minor.size": 1.5, "ytick.minor.size": 1.5},
    **{"lines.linewidth": 1.1, "lines.markersize": 3.6, "patch.linewidth": 0.6},
    **{"figure.dpi": 200, "savefig.dpi": 200, "figure.constrained_layout.h_pad": 0.03},
    **{"figure.constrained_layout.w_pad": 0.03, "legend.frameon": False},
    **{"svg.hashsalt": "labcore", "svg.fonttype": "path", "pdf.fonttype": 42},
}


def paper() -> AbstractContextManager[None]:
    """The style, for the time a figure is made or written."""
    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    del defaults["backend"]  # not ours to change, and not put back afterwards
    return matplotlib.rc_context({**defaults, **RC})


@dataclass(frozen=True)
class Look:
    color: tuple[float, float, float]
    marker: str
    line: Any


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A colour, marker and line for each label: 7 colours, then other lines; 77 unlike pairs."""
    import seaborn

    palette = seaborn.color_palette("colorblind")
    colours = [palette[i] for i in COLOURS]
    return {
        label: Look(
            colours[i % len(colours)],
            MARKERS[i % len(MARKERS)],
            LINES[i // len(colours) % len(LINES)],
        )
        for i, label in enumerate(dict.fromkeys(labels))
    }


def escape(text: str) -> str:
    """Text drawn as it is written: no mathematics by `$`, no label hidden by a leading `_`."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def short_names(labels: Iterable[str]) -> dict[str, str]:
    """The shortest form that no other label shares: name, name(options that tell it apart),
    name(options), plugin:name(options)."""
    labels = list(dict.fromkeys(labels))
    telling = _telling(labels)
    forms: tuple[Callable[[str], str], ...] = (bare, telling.__getitem__, _without_plugin, str)
    counts = [Counter(form(label) for label in labels) for form in forms]
    return {
        label: next(
            form(label)
            for form, count in zip(forms, counts, strict=True)
            if count[form(label)] == 1
        )
        for label in labels
    }


def _telling(labels: Iterable[str]) -> dict[str, str]:
    """Each label with the options alone that not all labels of its name have."""
    options = {label: _options(label) for label in labels}
    names: dict[str, list[list[str]]] = {}
    for label, own in options.items():
        names.setdefault(bare(label), []).append(own)
    shared = {name: set(each[0]).intersection(*each) for name, each in names.items()}
    told = {
        label: ", ".join(o for o in own if o not in shared[bare(label)])
        for label, own in options.items()
    }
    return {label: bare(label) + (f"({own})" if own else "") for label, own in told.items()}


def _options(label: str) -> list[str]:
    """`option=value` of a label `name(option=value, ..)`; values may have brackets of their own,
    which a value that was cut (`..#1a2b3c`) need not close."""
    inside = label.partition("(")[2].removesuffix(")")
    found, depth = [""], 0
    for piece in re.split(r"([(\[{]|[)\]}]|\.\.#[0-9a-f]{6}|, )", inside):
        if piece == ", " and depth == 0:
            found.append("")
            continue
        depth = 0 if piece.startswith("..#") else depth + (piece in "([{") - (piece in ")]}")
        found[-1] += piece
    return found


def _without_plugin(label: str) -> str:
    return re.sub(r"^[^:(]*:", "", label)


def plain(value: float) -> str:
    """A count or a coordinate without trailing zeros: 20, 0.5, 1e-05."""
    return f"{value:g}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def with_error(value: float, half: float) -> str:
    """`−1.02 ± 0.05`; the half-width is rounded up."""
    return f"{signed(value)} ± {max(math.ceil(100 * half - 1e-9), 1) / 100:.2f}"


def short_number(value: float) -> str:
    """Two digits: 0.013, 1.3e−5."""
    last = 0.2 * 10.0 ** math.floor(math.log10(abs(value))) if value else 0.0
    return mean_and_half(value, last)[0]


def mean_and_half(mean: float, half: float) -> tuple[str, str]:
    """`0.0132`, `± 0.0004` or `1.3e−5`, `± 0.2e−5`: as many digits as the half-width allows."""
    power, size = 0, max(abs(mean), half) if half < math.inf else abs(mean)
    if size and not 1e-3 <= size < 1e4:
        power = math.floor(math.log10(size))
    exponent = f"e{power}" if power else ""
    known = half / 10.0**power
    digits = 0 if known == 0 else -math.floor(math.log10(known)) + (f"{known:e}"[0] == "1")
    places = min(max(digits, 0), 6)
    both = (round(v, places) + 0.0 for v in (mean / 10.0**power, known))  # no minus before zero
    shown = [f"{v:.{places}f}{exponent}" for v in both]
    return shown[0].replace("-", "−"), f"± {shown[1]}".replace("-", "−")

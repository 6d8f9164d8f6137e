"""Processes by name, as they are and drawn at random, on which faults show and twins pass."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from labcore import Process
from labcore_linear import (
    cld,
    diag_vp,
    edm,
    ou,
    rectified_flow,
    rotating,
    sigma_t,
    sub_vp,
    trigonometric,
    ve,
    vp,
    vp_cosine,
)

PROCESSES: dict[str, Callable[..., Process]] = {
    "vp": vp,
    "vp_cosine": vp_cosine,
    "sub_vp": sub_vp,
    "ve": ve,
    "sigma_t": sigma_t,
    "edm": edm,
    "flow": rectified_flow,
    "trigonometric": trigonometric,
    "diag": diag_vp,
    "ou": ou,
    "cld": cld,
    "rotating": rotating,
}


def sized(process: Process, d: int) -> Process:
    """A process for data of any shape, bound to d coordinates."""
    return process if process.event_shape else replace(process, event_shape=(d,))


def drawn(name: str, g: np.random.Generator, least: int = 1, most: int = 5) -> Process:
    """The process of that name with parameters at random, on data of ``least`` to ``most``
    coordinates (two where the family says so)."""
    d = int(g.integers(least, most + 1))
    uniform = g.uniform
    match name:
        case "vp" | "sub_vp":
            made = PROCESSES[name](b0=uniform(0.05, 0.5), b1=uniform(8, 25))
        case "ve":
            made = ve(sigma_min=uniform(0.01, 0.05), sigma_max=uniform(5, 50))
        case "sigma_t":
            made = sigma_t(sigma=uniform(5, 40))
        case "edm":
            made = edm(T=uniform(5, 80))
        case "diag":
            made = diag_vp(d=d, b0=(0.1, uniform(0.1, 0.3)), b1=(20.0, uniform(10, 30)))
        case "ou":
            made = ou(d=max(d, 2), seed=int(g.integers(1000)))
        case "rotating":
            made = rotating(d=max(d, 2), omega=uniform(1, 5))
        case _:
            made = PROCESSES[name]()
    return sized(made, d)

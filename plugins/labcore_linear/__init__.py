"""Linear forward processes and time grids."""

import labcore
from labcore_linear.diagonal import diag_vp
from labcore_linear.gaussian_path import gaussian_path, rectified_flow, trigonometric
from labcore_linear.grids import (
    beta_quantile,
    cosine,
    exponential,
    karras,
    log_snr,
    polyexponential,
    polynomial,
    quadratic,
    times,
    uniform,
)
from labcore_linear.langevin import cld
from labcore_linear.numerical import numerical_process
from labcore_linear.optimised import align_your_steps, equal_error
from labcore_linear.ou import ornstein_uhlenbeck, ou
from labcore_linear.rotating import rotating
from labcore_linear.snr import time_of_log_snr
from labcore_linear.ve import edm, sigma_t, variance_exploding, ve
from labcore_linear.vp import sub_vp, variance_preserving, vp, vp_cosine

__all__ = [
    "gaussian_path",
    "numerical_process",
    "ornstein_uhlenbeck",
    "time_of_log_snr",
    "variance_exploding",
    "variance_preserving",
]


@labcore.hookimpl
def register_processes() -> list[labcore.Entry]:
    return [
        vp,
        vp_cosine,
        sub_vp,
        ve,
        sigma_t,
        edm,
        rectified_flow,
        trigonometric,
        diag_vp,
        ou,
        cld,
        rotating,
    ]


@labcore.hookimpl
def register_grids() -> list[labcore.Entry]:
    return [
        uniform,
        quadratic,
        cosine,
        log_snr,
        karras,
        exponential,
        polynomial,
        polyexponential,
        beta_quantile,
        align_your_steps,
        equal_error,
        times,
    ]

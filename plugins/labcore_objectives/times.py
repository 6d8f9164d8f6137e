"""Where in [t_eps, T] an objective looks: times, and what each one counts for.

    uniform      t uniform on [t_eps, T]: the objective is the mean over t
    log_normal   ln sigma ~ N(-1.2, 1.2^2), sigma = exp(-log_snr/2) within the process's range:
                 another objective, that of Karras et al. (2022), table 1
    importance   the objective of "uniform", drawn with density q(t) ~ w(t) and each sample counted
                 1/q(t): less variance where the weight w varies (Song et al. 2021b)
    levels       n times of equally spaced log-SNR (NCSN);  steps  n equally spaced times (DDPM)

``stratified`` draws one point in each of B equal parts of probability (low discrepancy: Kingma et
al. 2021): unbiased, and a batch covers all noise levels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

import labcore
from labcore import Process

Times = Callable[[int, Generator], tuple[Tensor, Tensor]]
"""(n, generator) -> t (n,) float64 and what each counts for, (n,), of mean one."""

Weight = Callable[[Tensor], Tensor]
NODES = 4097


def unit(n: int, generator: Generator, stratified: bool) -> Tensor:
    """n numbers uniform on (0, 1), float64, in random order."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    if not stratified:
        return u
    order = torch.randperm(n, generator=generator)
    return (order + u) / n


def uniform(process: Process, stratified: bool = True) -> Times:
    """t uniform on [t_eps, T]."""

    def times(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u = unit(n, generator, stratified)
        return process.t_eps + (process.T - process.t_eps) * u, torch.ones_like(u)

    return times


def log_normal(process: Process, stratified: bool = True) -> Times:
    """ln sigma ~ N(-1.2, 1.2^2), cut to the process's range."""
    nodes = _nodes(process)
    log_sigma = -process.log_snr(nodes) / 2
    normal = torch.distributions.Normal(-1.2, 1.2)
    low, high = normal.cdf(log_sigma[[0, -1]])

    def times(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u = unit(n, generator, stratified)
        wanted = normal.icdf(low + (high - low) * u)
        return interpolate(wanted, log_sigma, nodes), torch.ones_like(u)

    return times


def importance(process: Process, weight: Weight, stratified: bool = True) -> Times:
    """Density ~ weight(t), each sample counted by the mean of the weight over its own weight."""
    nodes = _nodes(process)
    w = weight(nodes).clamp_min(1e-30)
    mass = torch.cat([w.new_zeros(1), torch.cumulative_trapezoid(w, nodes)])
    mean = mass[-1] / (nodes[-1] - nodes[0])

    def times(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u = unit(n, generator, stratified)
        t = interpolate(u * mass[-1], mass, nodes)
        return t, mean / interpolate(t, nodes, w)

    return times


def discrete(process: Process, n: int, spacing: str, stratified: bool = True) -> Times:
    """One of ``n`` times: of equally spaced log-SNR ("levels"), or equally spaced ("steps")."""
    ends = torch.tensor([process.t_eps, process.T], dtype=torch.float64)
    if spacing == "steps":
        levels = torch.linspace(float(ends[0]), float(ends[1]), n, dtype=torch.float64)
    else:
        nodes = _nodes(process)
        snr = -process.log_snr(nodes)
        wanted = torch.linspace(float(snr[0]), float(snr[-1]), n, dtype=torch.float64)
        levels = interpolate(wanted, snr, nodes).clamp(*ends.tolist())

    def times(many: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u = unit(many, generator, stratified)
        return levels[(u * n).long().clamp_max(n - 1)], torch.ones_like(u)

    return times


def chosen(process: Process, times: str, weight: Weight, stratified: bool) -> Times:
    """Times by name; InvalidOption for one that is unknown."""
    known: dict[str, Callable[[], Times]] = {
        "uniform": lambda: uniform(process, stratified),
        "log_normal": lambda: log_normal(process, stratified),
        "importance": lambda: importance(process, weight, stratified),
    }
    if times not in known:
        raise labcore.InvalidOption(f"objective: no times '{times}'; there are {', '.join(known)}")
    return known[times]()


def _nodes(process: Process) -> Tensor:
    """Times from t_eps to T, close at the data."""
    share = torch.linspace(0, 1, NODES, dtype=torch.float64)
    return process.t_eps * (process.T / process.t_eps) ** share


def interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear y(x) through increasing ``xs``, constant beyond its ends."""
    i = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    share = ((x - xs[i - 1]) / (xs[i] - xs[i - 1])).clamp(0, 1)
    return ys[i - 1] + share * (ys[i] - ys[i - 1])

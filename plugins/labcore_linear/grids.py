"""Time grids: n + 1 float64 times from T down to t_eps, both ends exact.

All but ``times`` are functions of i/n alone, so the grid of 2n steps holds that of n steps. Those
in terms of noise work for every process through its log-SNR, with sigma = exp(-log_snr/2), the
ratio of noise to signal (sigma(t) itself for edm), averaged over coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

import labcore
from labcore_linear.snr import time_of_log_snr


def _grid(
    name: str,
    process: labcore.Process,
    n: int,
    t_eps: float | None,
    times: Callable[[Tensor, float, float], Tensor],
) -> Tensor:
    """times(i/n, T, t_eps) for 0 < i < n between exact ends, checked."""
    steps = _steps(name, n)
    T, end = process.T, _end(name, process, t_eps)
    inner = times(torch.arange(1, steps, dtype=torch.float64) / steps, T, end)
    ends = torch.tensor([T, end], dtype=torch.float64)
    ts = torch.cat([ends[:1], inner, ends[1:]])
    return labcore.check_grid(ts, process, steps, f"grid '{name}'")


def _steps(name: str, n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise labcore.InvalidGrid(
            f"grid '{name}': the number of steps is {n!r}; give a whole number, at least 1"
        )
    return int(n)


def _end(name: str, process: labcore.Process, t_eps: float | None) -> float:
    end = process.t_eps if t_eps is None else t_eps
    if not 0 < end < process.T:
        raise labcore.InvalidGrid(
            f"grid '{name}': t_eps is {end}, it must lie between 0 and T={process.T:g} "
            f"(both excluded); this process's default is {process.t_eps:g}"
        )
    return end


@labcore.grid(cite="Song et al. (2021) arXiv:2011.13456")
def uniform(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Equal steps in t."""
    return _grid("uniform", process, n, t_eps, lambda r, T, end: T + r * (end - T))


@labcore.grid(cite="Song, Meng & Ermon (2021) arXiv:2010.02502, appendix D.2")
def quadratic(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Equal steps in sqrt(t): shorter steps near the data."""

    def times(r: Tensor, T: float, end: float) -> Tensor:
        return (math.sqrt(T) + r * (math.sqrt(end) - math.sqrt(T))).square()

    return _grid("quadratic", process, n, t_eps, times)


@labcore.grid(cite="Chebyshev points; Trefethen (2013), ch. 2")
def cosine(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Equal steps of an angle, t = t_eps + (T - t_eps)(1 + cos(pi i/n))/2: short at both ends."""

    def times(r: Tensor, T: float, end: float) -> Tensor:
        return end + (T - end) * torch.cos(math.pi / 2 * r).square()

    return _grid("cosine", process, n, t_eps, times)


@labcore.grid(cite="Lu et al. (2022) arXiv:2206.00927, sec. 3.4")
def log_snr(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Equal steps in log-SNR."""

    def times(r: Tensor, T: float, end: float) -> Tensor:
        first, last = _levels(process, T, end)
        return time_of_log_snr(process, first + r * (last - first), end)

    return _grid("log_snr", process, n, t_eps, times)


@labcore.grid(cite="Karras et al. (2022) arXiv:2206.00364, eq. 5")
def karras(
    process: labcore.Process, n: int, *, t_eps: float | None = None, rho: float = 7.0
) -> Tensor:
    """Equal steps in sigma^(1/rho), sigma = exp(-log_snr/2); rho = 7 is the paper's.

    The paper appends sigma = 0 to n - 1 such steps; here all n lead to t_eps.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise labcore.InvalidGrid(f"grid 'karras': rho is {rho}, it must be positive; try rho=7")

    def times(r: Tensor, T: float, end: float) -> Tensor:
        first, last = (torch.exp(-level / (2 * rho)) for level in _levels(process, T, end))
        return time_of_log_snr(process, -2 * rho * (first + r * (last - first)).log(), end)

    return _grid("karras", process, n, t_eps, times)


@labcore.grid(cite="k-diffusion (Crowson 2022), get_sigmas_exponential, in t")
def exponential(process: labcore.Process, n: int, *, t_eps: float | None = None) -> Tensor:
    """Equal steps in log t. On edm, where sigma = t, that is log_snr."""

    def times(r: Tensor, T: float, end: float) -> Tensor:
        return torch.exp(math.log(T) + r * (math.log(end) - math.log(T)))

    return _grid("exponential", process, n, t_eps, times)


@labcore.grid(cite="Zhang & Chen (2023) arXiv:2204.13902, power of t")
def polynomial(
    process: labcore.Process, n: int, *, t_eps: float | None = None, rho: float = 3.0
) -> Tensor:
    """Equal steps in t^(1/rho): rho 1 is uniform, 2 quadratic, and larger tends to exponential."""
    _positive("polynomial", "rho", rho)

    def times(r: Tensor, T: float, end: float) -> Tensor:
        return (T ** (1 / rho) + r * (end ** (1 / rho) - T ** (1 / rho))).pow(rho)

    return _grid("polynomial", process, n, t_eps, times)


@labcore.grid(cite="k-diffusion (Crowson 2022), get_sigmas_polyexponential")
def polyexponential(
    process: labcore.Process, n: int, *, t_eps: float | None = None, rho: float = 2.0
) -> Tensor:
    """Log sigma falls by the shares 1 - (1 - i/n)^rho: 1 is log_snr, more is slow at the data."""
    _positive("polyexponential", "rho", rho)

    def times(r: Tensor, T: float, end: float) -> Tensor:
        first, last = _levels(process, T, end)
        return time_of_log_snr(process, last + (1 - r).pow(rho) * (first - last), end)

    return _grid("polyexponential", process, n, t_eps, times)


@labcore.grid(cite="Lee et al. (2024) arXiv:2407.12173, with alpha = beta = 0.6")
def beta_quantile(
    process: labcore.Process,
    n: int,
    *,
    t_eps: float | None = None,
    alpha: float = 0.6,
    beta: float = 0.6,
) -> Tensor:
    """Quantiles of a Beta(alpha, beta) law on [t_eps, T]: below 1, shorter steps at both ends."""
    from scipy.special import betaincinv

    _positive("beta_quantile", "alpha", alpha)
    _positive("beta_quantile", "beta", beta)

    def times(r: Tensor, T: float, end: float) -> Tensor:
        return end + (T - end) * torch.from_numpy(betaincinv(alpha, beta, (1 - r).numpy()))

    return _grid("beta_quantile", process, n, t_eps, times)


def _positive(name: str, key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise labcore.InvalidGrid(f"grid '{name}': {key} is {value}; give a number above 0")


def _levels(process: labcore.Process, T: float, end: float) -> Tensor:
    return process.log_snr(torch.tensor([T, end], dtype=torch.float64))


@labcore.grid(cite="given by the user")
def times(
    process: labcore.Process, n: int, *, t_eps: float | None = None, times: list[float]
) -> Tensor:
    """The listed times themselves, n + 1 of them, from T down to t_eps."""
    steps = _steps("times", n)
    if len(times) != steps + 1:
        raise labcore.InvalidGrid(
            f"grid 'times': it lists {len(times)} times, which make {len(times) - 1} steps, and "
            f"{n} steps are asked for; ask for as many as it has"
        )
    ts = torch.tensor(times, dtype=torch.float64)
    labcore.check_grid(ts, process, steps, "grid 'times'")
    wanted = {"T": (0, process.T), "t_eps": (-1, times[-1] if t_eps is None else t_eps)}
    for key, (i, value) in wanted.items():
        if times[i] != value:
            raise labcore.InvalidGrid(
                f"grid 'times': t[{i}] is {times[i]:.6g} and {key} is {value:.6g}; "
                "list times from exactly T down to exactly t_eps"
            )
    return ts

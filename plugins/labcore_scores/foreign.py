"""Scores that others trained: diffusers folders and state dicts, read and never run.

A table of betas gives alpha_k^2 = prod_{j<=k} (1 - beta_j), sigma_k^2 = 1 - alpha_k^2, and step k
lies at t = (k+1)/N of the process ``from_scheduler``. Under any scalar process x_t = a x0 + s z
the network of a folder is asked at the step, whole or not, of the same signal-to-noise ratio:

    score(x, t) = -eps(y, k) / s,    y = alpha_k x / a,    alpha_k / sigma_k = a / s
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import labcore
from labcore import (
    PARAMETERISATIONS,
    At,
    InvalidOption,
    Model,
    Process,
    Scalar,
    Score,
    ScoreError,
    StoreError,
    Target,
)

READINGS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""What diffusers calls a prediction, and what the lab does."""

SLACK = 1e-4
"""Relative overlap of log-SNR ranges that rounding may take."""


@labcore.process(gives=("scalar",), cite="Ho, Jain & Abbeel (2020) arXiv:2006.11239, eq. 4")
def from_scheduler(*, path: str = "") -> Process:
    """Variance preserving, by the table of betas in a diffusers folder; without one, DDPM's.

    beta is constant between steps, -N log(1 - beta_k), so that step k is met exactly at (k+1)/N.
    """
    config = scheduler_config(Path(path)) if path else {"num_train_timesteps": 1000}
    rates = -torch.log1p(-betas(config))
    N = len(rates)
    sums = torch.cat([rates.new_zeros(1), rates.cumsum(0)])

    def beta(t: Tensor) -> Tensor:
        return N * rates[(t * N).long().clamp(0, N - 1)]

    def B(t: Tensor) -> Tensor:
        k = (t * N).long().clamp(0, N - 1)
        return sums[k] + (t * N - k) * rates[k]

    def Q(t: Tensor, s: Tensor) -> Scalar:
        return Scalar(-torch.expm1(B(s) - B(t)))

    return Process(
        A=lambda t: Scalar(-beta(t) / 2),
        G=lambda t: Scalar(beta(t).sqrt()),
        Phi=lambda t, s: Scalar(torch.exp((B(s) - B(t)) / 2)),
        Sigma=lambda t: Q(t, torch.zeros_like(t)),
        closed_Q=Q,
        T=1.0,
        t_eps=1 / N,
    )


@labcore.score(needs=("scalar",), cite="diffusers (von Platen et al. 2022)")
def from_diffusers(process: Process, target: Target, *, path: str) -> Score:
    """The UNet2DModel of a diffusers folder under its scheduler, as a score of any scalar process.

    ``path`` is a pipeline's folder (unet, scheduler) or one that has both configurations. Its
    weights must be safetensors. Needs ``pip install labcore[diffusers]``.
    """
    config = scheduler_config(Path(path))
    said = config.get("prediction_type", "epsilon")
    if said not in READINGS:
        raise InvalidOption(
            f"score 'from_diffusers': {path} predicts '{said}'; known are {', '.join(READINGS)}"
        )
    net, reading = unet(Path(path)), PARAMETERISATIONS[READINGS[said]]
    image = _image(net, target.event, path)
    passed = torch.log1p(-betas(config)).cumsum(0)
    log_snr = passed - torch.log(-torch.expm1(passed))  # of the steps 0..N-1, falling
    slack = SLACK * float(log_snr[0] - log_snr[-1])

    def step(wanted: Tensor) -> Tensor:
        """The step of a log-SNR, linear between steps."""
        if bool(((wanted > log_snr[0] + slack) | (wanted < log_snr[-1] - slack)).any()):
            raise ScoreError(
                f"score 'from_diffusers': its network knows log-SNR from {log_snr[-1]:.4g} to "
                f"{log_snr[0]:.4g}, asked was {wanted.reshape(-1)[0]:.4g}; end the grid at a "
                "larger t_eps, or take the process from_scheduler(path=...)"
            )
        flat = wanted.reshape(-1)
        k = torch.searchsorted(-log_snr, -flat).clamp(1, len(log_snr) - 1)
        share = (log_snr[k - 1] - flat) / (log_snr[k - 1] - log_snr[k])
        return (k - 1 + share.clamp(0, 1)).reshape(wanted.shape)

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        wanted = process.log_snr(t)
        alpha, sigma = torch.sigmoid(wanted).sqrt(), torch.sigmoid(-wanted).sqrt()
        one = Scalar(torch.ones(1, dtype=torch.float64))
        at = At(Scalar(alpha.reshape(-1)), Scalar(sigma.reshape(-1)), one, wanted)
        L = process.Sigma(t).chol
        y = (at.L @ (L.inv @ x)).float()  # alpha_k / a = sigma_k / s
        levels = step(wanted).float().reshape(-1).expand(len(x))
        F = net(y.reshape(-1, *image), levels).sample.reshape(x.shape)
        return -(L.inv.T @ reading.eps(F, y, at).to(x))

    return score


@labcore.score()
def from_state_dict(
    process: Process,
    target: Target,
    *,
    path: str,
    network: str,
    reading: Literal["eps", "score", "x0", "v", "edm"] = "eps",
    time: Literal["log_snr", "t"] = "log_snr",
    data_std: float = 1.0,
    key: str = "",
) -> Score:
    """A registered network with the weights of a .pt, .pth or .safetensors file.

    ``reading``, ``time`` and ``data_std`` are as labcore.Model explains them; ``key`` names the
    weights where the file holds several things. A pickle that would run code is refused.
    """
    weights = read_state_dict(Path(path), key)
    registry = labcore.load_registry()
    named = labcore.read_use(network).resolve("network", registry)
    net = registry.get("network", named.name)(process.event(target.event), **dict(named.options))
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise StoreError(
            f"score 'from_state_dict': {path} does not fit {named} ({said}); give the options it "
            "was trained with"
        ) from error
    net.eval().requires_grad_(False)
    return Model(net, process, reading, data_std, time)


def read_state_dict(path: Path, key: str = "") -> dict[str, Tensor]:
    """The tensors by name in a file; StoreError where it holds anything else."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            held: Any = load(path.read_bytes())
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
        held = held[key] if key else held
        if not isinstance(held, dict) or not all(map(torch.is_tensor, held.values())):
            inside = ", ".join(map(str, held)) if isinstance(held, dict) else type(held).__name__
            raise ValueError(f"it holds {inside[:200]}, no tensors by name; name them by key=")
    except Exception as error:  # whatever a file that others made can do to a reader
        said = " ".join(str(error).split())[:200]
        raise StoreError(
            f"score 'from_state_dict': {path} cannot be read as weights ({said}); save "
            "net.state_dict() with torch.save, or as safetensors"
        ) from error
    return held


def scheduler_config(path: Path) -> dict[str, Any]:
    """The scheduler's configuration in a diffusers folder; StoreError where there is none."""
    inner = path / "scheduler" / "scheduler_config.json"
    file = inner if inner.exists() else path / "scheduler_config.json"
    try:
        config = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"'{path}': no scheduler can be read there ({type(error).__name__}: {file}); give "
            "the folder of a diffusers pipeline"
        ) from error
    if config.get("rescale_betas_zero_snr") or "num_train_timesteps" not in config:
        raise InvalidOption(
            f"'{path}': {config.get('_class_name', 'its scheduler')} has no table of betas below "
            "1; folders of DDPM, DDIM and their kin can be read"
        )
    return config


def betas(config: dict[str, Any]) -> Tensor:
    """beta_0 .. beta_{N-1} in float64, by the schedules that diffusers names."""
    N = int(config["num_train_timesteps"])
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    schedule = config.get("beta_schedule", "linear")
    j = torch.arange(N, dtype=torch.float64)
    share = j / max(N - 1, 1)
    if config.get("trained_betas") is not None:
        table = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif schedule == "linear":
        table = start + (end - start) * share
    elif schedule == "scaled_linear":
        table = (math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * share).square()
    elif schedule == "squaredcos_cap_v2":
        curve = torch.cos((torch.arange(N + 1).double() / N + 0.008) / 1.008 * math.pi / 2) ** 2
        table = (1 - curve[1:] / curve[:-1]).clamp_max(0.999)
    else:
        raise InvalidOption(
            f"scheduler: no beta_schedule '{schedule}'; known are linear, scaled_linear and "
            "squaredcos_cap_v2, or give trained_betas"
        )
    if len(table) != N or not bool(((table > 0) & (table < 1)).all()):
        raise InvalidOption(f"scheduler: its betas must be {N} numbers between 0 and 1")
    return table


def unet(path: Path) -> Any:
    """The UNet2DModel of a diffusers folder, from its safetensors alone."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise labcore.Unavailable(
            "score 'from_diffusers': diffusers is not installed; pip install labcore[diffusers]"
        ) from error
    inner = path / "unet" if (path / "unet").is_dir() else path
    try:
        net = UNet2DModel.from_pretrained(
            inner, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise StoreError(
            f"score 'from_diffusers': no UNet2DModel can be read from {inner} ({said}); save it "
            "with save_pretrained, as safetensors"
        ) from error
    return net.eval().requires_grad_(False)


def _image(net: Any, event: tuple[int, ...], path: str) -> tuple[int, int, int]:
    side = net.config.sample_size
    high, wide = (side, side) if isinstance(side, int) else side
    image = int(net.config.in_channels), int(high), int(wide)
    if math.prod(image) != math.prod(event):
        raise InvalidOption(
            f"score 'from_diffusers': {path} makes images of shape {image}, the target has "
            f"{tuple(event)}; use a target of that size"
        )
    return image

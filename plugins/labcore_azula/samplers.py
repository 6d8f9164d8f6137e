"""The samplers of azula.sample, each as it was published.

Orders are those its docstrings and their papers state, evaluations those of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_azula import runs

NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Order = Annotated[int, Ge(1), Le(4)]
WHOSE = "azula (Rozet 2024)"


def entry(fn: Any, cite: str, **traits: Any) -> Entry:
    """``fn`` as azula's class of the same name, with the traits all of them share."""
    shared = {
        "library": "azula",
        "needs": ("scalar",),
        "grid": "lab",
        "dtype": "state",
        "end": "t_eps",
    }
    made: Entry = labcore.sampler(**{**shared, **traits, "cite": f"{cite}; {WHOSE}"})(fn)
    return made


def multistep(name: str, doc: str, cite: str) -> Entry:
    """A sampler of ``order`` past values; its first steps have fewer of them."""

    def sample(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, order: Order = 2
    ) -> Iterator[Tensor]:
        yield from runs.at_once(name, process, score, x, ts, order=order)

    sample.__doc__ = doc
    return entry(sample, cite, name=name, order=2, evals=1, stochastic=False, noise="none")


def plain(name: str, doc: str, cite: str, order: int, evals: int, **traits: Any) -> Entry:
    """A one-step sampler without options."""

    def sample(
        process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
    ) -> Iterator[Tensor]:
        yield from runs.one_by_one(name, process, score, x, ts, noise)

    sample.__doc__ = doc
    return entry(sample, cite, name=name, order=order, evals=evals, **traits)


def DDIMSampler(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, eta: NonNegative = 0.0
) -> Iterator[Tensor]:
    """DDIM with the share ``eta`` (not its square, as in the paper) of DDPM's variance."""
    yield from runs.one_by_one("DDIMSampler", process, score, x, ts, noise, eta=eta)


def ItoSampler(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: NonNegative = 1.0,
    temperature: Annotated[float, Gt(0)] = 1.0,
) -> Iterator[Tensor]:
    """The reverse SDE with rate ``eta``, its score held over a step."""
    options: dict[str, Any] = {"eta": eta, "temperature": temperature}
    yield from runs.one_by_one("ItoSampler", process, score, x, ts, noise, **options)


def PCSampler(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    corrections: Annotated[int, Ge(0)] = 1,
    delta: Share = 0.01,
) -> Iterator[Tensor]:
    """``corrections`` noisy contractions towards E[x_0 | x_t] at t, then DDIM's step to s."""
    streams = tuple(f"corrector {k}" for k in range(corrections))
    options: dict[str, Any] = {"corrections": corrections, "delta": delta}
    yield from runs.one_by_one("PCSampler", process, score, x, ts, noise, streams, **options)


def pc_evals(corrections: int, delta: float) -> int:
    return corrections + 1


STILL: dict[str, Any] = {"stochastic": False, "noise": "none"}
DRAWN: dict[str, Any] = {"stochastic": True, "noise": "lab", "draws": "torch"}

DDIM = "Song, Meng, Ermon (2021) arXiv:2010.02502"
SONG = "Song et al. (2021) arXiv:2011.13456"
DDPM = "Ho et al. (2020) arXiv:2006.11239"
DEIS = "Zhang & Chen (2023) arXiv:2204.13902"
DPM = "Lu et al. (2022) arXiv:2206.00927"
DPMPP = "Lu et al. (2022) arXiv:2211.01095"
DPM3 = "Zheng et al. (2023) arXiv:2310.13268"

ENTRIES = [
    plain("DDPMSampler", "DDPM's ancestral step.", DDPM, 1, 1, **DRAWN),
    entry(DDIMSampler, DDIM, order=1, evals=1, stochastic=False, noise="lab", draws="torch"),
    plain("EulerSampler", "Euler's step in sigma/alpha.", "Euler (1768)", 1, 1, **STILL),
    plain("HeunSampler", "Heun's step in sigma/alpha.", "Heun (1900)", 2, 2, **STILL),
    entry(ItoSampler, SONG, order=1, evals=1, **DRAWN),
    multistep("zABSampler", "Adams-Bashforth on eps in sigma/alpha.", DEIS),
    multistep("vABSampler", "Adams-Bashforth on the flow's velocity, eps - x0.", DEIS),
    multistep("zEABSampler", "Exponential Adams-Bashforth on eps in log sigma/alpha.", DPM),
    multistep("xEABSampler", "Exponential Adams-Bashforth on x0 in log sigma/alpha.", DPMPP),
    multistep("REABSampler", "Rosenbrock-type exponential Adams-Bashforth.", DPM3),
    entry(PCSampler, SONG, order=None, evals=2, evals_of=pc_evals, **DRAWN),
]

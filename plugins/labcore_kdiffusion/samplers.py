"""The samplers of k_diffusion.sampling with fixed steps, each as it was published.

Orders are those their names and papers state, evaluations those of their papers a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_kdiffusion import runs
from labcore_kdiffusion.library import sampling

NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Order = Annotated[int, Ge(1), Le(4)]

EDM = "Karras et al. (2022) arXiv:2206.00364, Algorithm 2"
DPM = "Lu et al. (2022) arXiv:2206.00927"
DPMPP = "Lu et al. (2022) arXiv:2211.01095"
SONG = "Song et al. (2021) arXiv:2011.13456"
WHOSE = "k-diffusion (Crowson 2022)"


def entry(fn: Any, name: str, cite: str, order: float, evals: int, **traits: Any) -> Entry:
    """``fn`` as k-diffusion's function ``name``, with the traits all of them share."""
    shared = {
        "library": "k-diffusion",
        "needs": ("scalar",),
        "grid": "lab",
        "dtype": "state",
        "end": "t_eps",
    }
    about = {"order": order, "evals": evals, "cite": f"{cite}; {WHOSE}"}
    made: Entry = labcore.sampler(**{"name": name, **shared, **about, **traits})(fn)
    return made


def with_churn(name: str, doc: str, **about: Any) -> Entry:
    """A method of Algorithm 2: an ODE step after noise is added to raise the level."""

    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        s_churn: NonNegative = 0.0,
        s_tmin: NonNegative = 0.0,
        s_tmax: NonNegative | None = None,
        s_noise: NonNegative = 1.0,
    ) -> Iterator[Tensor]:
        of = runs.prepared(process, score, x, ts, noise)
        top = math.inf if s_tmax is None else s_tmax
        fn = getattr(sampling(), name)
        yield from runs.churned(of, fn, s_churn, s_tmin=s_tmin, s_tmax=top, s_noise=s_noise)

    sample.__doc__ = (
        f"{doc}. With s_churn > 0 it may ask for levels above the grid's first, where there is no "
        "score: give an s_tmax below it."
    )
    return entry(sample, name, stochastic=False, noise="lab", draws="torch", **about)


def with_ancestry(name: str, doc: str, **about: Any) -> Entry:
    """An ODE step to a level below the next one, and noise back up to it."""

    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        eta: Share = 1.0,
        s_noise: NonNegative = 1.0,
    ) -> Iterator[Tensor]:
        of = runs.prepared(process, score, x, ts, noise)
        fn, z = getattr(sampling(), name), of.noise_sampler
        yield from runs.step_by_step(of, fn, eta=eta, s_noise=s_noise, noise_sampler=z)

    sample.__doc__ = doc
    return entry(sample, name, stochastic=True, noise="lab", draws="argument", **about)


def sample_lms(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, *, order: Order = 4
) -> Iterator[Tensor]:
    """Linear multistep in sigma, started through orders 1, 2, ..; weights by quadrature."""
    of = runs.prepared(process, score, x, ts, noise)
    yield from runs.at_once(of, sampling().sample_lms, order=order)


def sample_dpmpp_2m(
    process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """DPM-Solver++(2M)."""
    of = runs.prepared(process, score, x, ts, noise)
    yield from runs.at_once(of, sampling().sample_dpmpp_2m)


def sample_dpmpp_sde(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: Share = 1.0,
    s_noise: NonNegative = 1.0,
    r: Annotated[float, Gt(0), Le(1)] = 0.5,
) -> Iterator[Tensor]:
    """DPM-Solver++ (stochastic): two ancestral stages, the first at a share r of the step."""
    of = runs.prepared(process, score, x, ts, noise)
    options = {"eta": eta, "s_noise": s_noise, "r": r, "noise_sampler": of.noise_sampler}
    yield from runs.step_by_step(of, sampling().sample_dpmpp_sde, **options)


def sample_dpmpp_2m_sde(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: NonNegative = 1.0,
    s_noise: NonNegative = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Tensor]:
    """DPM-Solver++(2M) SDE."""
    of = runs.prepared(process, score, x, ts, noise)
    options: dict[str, Any] = {"eta": eta, "s_noise": s_noise, "solver_type": solver_type}
    fn = sampling().sample_dpmpp_2m_sde
    yield from runs.at_once(of, fn, noise_sampler=of.noise_sampler, **options)


def sample_dpmpp_3m_sde(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: NonNegative = 1.0,
    s_noise: NonNegative = 1.0,
) -> Iterator[Tensor]:
    """DPM-Solver++(3M) SDE."""
    of = runs.prepared(process, score, x, ts, noise)
    options = {"eta": eta, "s_noise": s_noise, "noise_sampler": of.noise_sampler}
    yield from runs.at_once(of, sampling().sample_dpmpp_3m_sde, **options)


def sample_dpm_fast(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    eta: Share = 0.0,
    s_noise: NonNegative = 1.0,
) -> Iterator[Tensor]:
    """DPM-Solver-fast on its own grid, equal steps in log sigma between the grid's ends.

    Its states are those of its own times; on the grid log_snr they are the lab's.
    """
    yield from runs.fast(runs.prepared(process, score, x, ts, noise), eta, s_noise)


STILL: dict[str, Any] = {"stochastic": False, "noise": "none"}
DRAWN: dict[str, Any] = {"stochastic": True, "noise": "lab", "draws": "argument"}

ENTRIES = [
    with_churn("sample_euler", "Euler's step in sigma", cite=EDM, order=1, evals=1),
    with_churn("sample_heun", "Heun's step in sigma", cite=EDM, order=2, evals=2),
    with_churn(
        "sample_dpm_2", "The midpoint rule in sigma", cite=f"{DPM}; {EDM}", order=2, evals=2
    ),
    with_ancestry(
        "sample_euler_ancestral", "Ancestral, Euler's step.", cite=SONG, order=1, evals=1
    ),
    with_ancestry(
        "sample_dpm_2_ancestral", "Ancestral, dpm_2's step.", cite=DPM, order=2, evals=2
    ),
    with_ancestry(
        "sample_dpmpp_2s_ancestral",
        "Ancestral, DPM-Solver++(2S)'s step.",
        cite=DPMPP,
        order=2,
        evals=2,
    ),
    entry(sample_lms, "sample_lms", "Adams-Bashforth", order=4, evals=1, **STILL),
    entry(sample_dpmpp_2m, "sample_dpmpp_2m", DPMPP, order=2, evals=1, **STILL),
    entry(sample_dpmpp_sde, "sample_dpmpp_sde", DPMPP, order=2, evals=2, **DRAWN),
    entry(sample_dpmpp_2m_sde, "sample_dpmpp_2m_sde", DPMPP, order=2, evals=1, **DRAWN),
    entry(sample_dpmpp_3m_sde, "sample_dpmpp_3m_sde", DPMPP, order=3, evals=1, **DRAWN),
    entry(
        sample_dpm_fast,
        "sample_dpm_fast",
        DPM,
        order=3,
        evals=3,
        extra=-2,
        grid="own",
        stochastic=False,
        noise="lab",
        draws="argument",
    ),
]

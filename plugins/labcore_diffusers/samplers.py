"""The schedulers of diffusers, each as it was published.

Orders are those their names and papers state, evaluations those of their papers a step. A name is
that of the library's class, with what is not its default after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from torch import Tensor

import labcore
from labcore import Entry, Noise, Process, Score
from labcore_diffusers import edm, flow, in_levels, runs
from labcore_diffusers.runs import LAST, LEADING, PLAIN, Run, Tables

WHOSE = "diffusers (von Platen et al. 2022)"
DDIM = "Song, Meng, Ermon (2021) arXiv:2010.02502"
DDPM = "Ho et al. (2020) arXiv:2006.11239"
DPM = "Lu et al. (2022) arXiv:2206.00927"
DPMPP = "Lu et al. (2022) arXiv:2211.01095"
DEIS = "Zhang & Chen (2023) arXiv:2204.13902"
UNIPC = "Zhao et al. (2023) arXiv:2302.04867"
SA = "Xue et al. (2023) arXiv:2305.14267"
PNDM = "Liu et al. (2022) arXiv:2202.09778"
EDM = "Karras et al. (2022) arXiv:2206.00364"
FLOW = "Lipman et al. (2023) arXiv:2210.02747"
SONG = "Song et al. (2021) arXiv:2011.13456"
CROWSON = "k-diffusion (Crowson 2022)"

STILL: dict[str, Any] = {"stochastic": False, "noise": "none"}
DRAWN: dict[str, Any] = {"stochastic": True, "noise": "lab", "draws": "torch"}
TREE: dict[str, Any] = {"stochastic": True, "noise": "lab", "draws": "attribute"}
ROUNDED: dict[str, Any] = {"dtype": "float32"}

Share = Annotated[float, Ge(0), Le(1)]
Walk = Callable[[Run], Iterator[Tensor]]


def entry(fn: Any, name: str, order: float | None, cite: str, **traits: Any) -> Entry:
    """``fn`` as diffusers' scheduler ``name``, with the traits all of them share."""
    shared = {
        "library": "diffusers",
        "needs": ("scalar",),
        "grid": "lab",
        "dtype": "float32 tables",
        "end": "t_eps",
    }
    about = {"name": name, "order": order, "evals": 1, "cite": f"{cite}; {WHOSE}"}
    made: Entry = labcore.sampler(**{**shared, **about, **traits})(fn)
    return made


def plain(name: str, doc: str, order: float, cite: str, walk: Walk, **traits: Any) -> Entry:
    """A scheduler without options of its own."""

    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        tables: Tables = "config",
    ) -> Iterator[Tensor]:
        yield from walk(runs.prepared(process, score, x, ts, noise, tables))

    sample.__doc__ = doc
    return entry(sample, name, order, cite, **traits)


def in_sigmas(
    name: str, suffix: str, doc: str, order: float, cite: str, config: Any, **traits: Any
) -> Entry:
    """A multistep or single-step scheduler under a configuration, or one that depends on N."""

    def walk(run: Run) -> Iterator[Tensor]:
        return runs.in_sigmas(run, name, config(run.steps) if callable(config) else config)

    return plain(f"{name}{suffix}", doc, order, cite, walk, **traits)


def by_ddim(name: str) -> Entry:
    config = {**LEADING, **PLAIN, "set_alpha_to_one": False}

    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        eta: Share = 0.0,
        tables: Tables = "config",
    ) -> Iterator[Tensor]:
        run = runs.prepared(process, score, x, ts, noise, tables)
        yield from runs.in_table(run, name, 0, config, eta=eta)

    sample.__doc__ = "DDIM: deterministic at eta=0, DDPM's step at eta=1."
    return entry(sample, name, 1, DDIM, stochastic=False, noise="lab", draws="torch")


def by_ddpm(name: str) -> Entry:
    def sample(
        process: Process,
        score: Score,
        x: Tensor,
        ts: Tensor,
        noise: Noise,
        *,
        variance_type: Literal["fixed_small", "fixed_large"] = "fixed_small",
        tables: Tables = "config",
    ) -> Iterator[Tensor]:
        run = runs.prepared(process, score, x, ts, noise, tables)
        config = {**PLAIN, "timestep_spacing": "leading", "variance_type": variance_type}
        yield from runs.in_table(run, name, 1, config)

    sample.__doc__ = "DDPM's ancestral step, of the posterior's variance or of beta."
    return entry(sample, name, 1, DDPM, **DRAWN)


def SASolverScheduler(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    tau: Annotated[float, Ge(0)] = 1.0,
    tables: Tables = "config",
) -> Iterator[Tensor]:
    """SA-Solver: stochastic Adams of two values, noise rate ``tau``, each step corrected later."""
    run = runs.prepared(process, score, x, ts, noise, tables)
    yield from runs.in_sigmas(run, "SASolverScheduler", {"tau_func": lambda t: tau})


def ScoreSdeVeScheduler(
    process: Process,
    score: Score,
    x: Tensor,
    ts: Tensor,
    noise: Noise,
    *,
    correct_steps: Annotated[int, Ge(0)] = 1,
) -> Iterator[Tensor]:
    """Song et al.'s predictor-corrector for VE; without ``correct_steps`` the predictor alone."""
    yield from edm.sde_ve(runs.prepared(process, score, x, ts, noise, "config"), correct_steps)


def ve_evals(correct_steps: int) -> int:
    return 1 + correct_steps


def levels(name: str, doc: str, order: float, cite: str, **traits: Any) -> Entry:
    return plain(name, doc, order, cite, lambda run: in_levels.in_levels(run, name), **traits)


def stages(name: str, doc: str, cite: str, own_noise: bool = False, **traits: Any) -> Entry:
    def walk(run: Run) -> Iterator[Tensor]:
        return in_levels.in_two_stages(run, name, own_noise)

    return plain(name, doc, 2, cite, walk, **{"evals": 2, **traits})


def own(
    name: str, suffix: str, doc: str, data: float, sign: float, config: Any, **traits: Any
) -> Entry:
    """A scheduler of EDM's form on its own grid."""
    attribute = traits.get("draws") == "attribute"

    def walk(run: Run) -> Iterator[Tensor]:
        return edm.on_own_levels(run, name, data, sign, attribute, **config)

    return plain(f"{name}{suffix}", doc, 2, DPMPP, walk, grid="own", **traits)


def multistep() -> Iterator[Entry]:
    name, none = "DPMSolverMultistepScheduler", ""
    for suffix, order in (("-1", 1), (none, 2), ("-3", 3)):
        of = {**LAST, "solver_order": order}
        doc = f"DPM-Solver++({order}M)."
        yield in_sigmas(name, suffix, doc, order, DPMPP, of, **STILL, **ROUNDED)
    for kind, doc, cite, drawn in (
        ("dpmsolver", "DPM-Solver, multistep", DPM, STILL),
        ("sde-dpmsolver", "SDE-DPM-Solver, multistep", DPMPP, DRAWN),
        ("sde-dpmsolver++", "SDE-DPM-Solver++, multistep", DPMPP, DRAWN),
    ):
        for order in (2, 3) if kind != "sde-dpmsolver" else (2,):
            of = {**LAST, "solver_order": order, "algorithm_type": kind}
            said = f"{doc}, order {order}."
            yield in_sigmas(name, f"-{kind}-{order}", said, order, cite, of, **drawn, **ROUNDED)
    for order in (1, 2, 3):
        of, suffix = {"solver_order": order}, none if order == 2 else f"-{order}"
        doc = f"DEIS in log rho, {order} values."
        yield in_sigmas("DEISMultistepScheduler", suffix, doc, order, DEIS, of, **STILL)
    for order in (1, 2, 3):
        of, suffix = {**LAST, "solver_order": order}, none if order == 2 else f"-{order}"
        doc = f"UniPC-{order}, B(h) = e^h - 1: of order {order + 1} with its corrector."
        yield in_sigmas("UniPCMultistepScheduler", suffix, doc, order + 1, UNIPC, of, **STILL)


def lone(order: int, kind: str, steps: int) -> dict[str, Any]:
    """lower_order_final as the scheduler would set it itself, with a warning."""
    uneven = {"lower_order_final": steps % order != 0}
    return {**LAST, **uneven, "solver_order": order, "algorithm_type": kind}


def singlestep() -> Iterator[Entry]:
    name = "DPMSolverSinglestepScheduler"
    for kind, cite in (("dpmsolver++", DPMPP), ("dpmsolver", DPM)):
        for order in (2, 3):
            of = partial(lone, order, kind)
            shown = "" if kind == "dpmsolver++" else f"-{kind}"
            suffix = f"{shown}-{order}" if order != 2 or shown else ""
            doc = f"Single-step {kind}, a step of order {order} over {order} of the grid's."
            yield in_sigmas(name, suffix, doc, order, cite, of, **STILL)


COGVIDEOX = {**LEADING, **PLAIN, "set_alpha_to_one": False, "snr_shift_scale": 1.0}
PRK = "PNDM: three pseudo Runge-Kutta steps of four evaluations, then four values of eps."
PLMS = "PNDM's linear multistep alone, started by averaging eps at both ends of a step."

ENTRIES = [
    by_ddim("DDIMScheduler"),
    by_ddim("DDIMParallelScheduler"),
    by_ddpm("DDPMScheduler"),
    by_ddpm("DDPMParallelScheduler"),
    *multistep(),
    *singlestep(),
    entry(SASolverScheduler, "SASolverScheduler", 2, SA, **DRAWN),
    plain("PNDMScheduler", PRK, 2, PNDM, lambda r: runs.pndm(r, False), extra=9, **STILL),
    plain("PNDMScheduler-plms", PLMS, 2, PNDM, lambda r: runs.pndm(r, True), extra=1, **STILL),
    plain("IPNDMScheduler", "iPNDM of four values of eps.", 4, PNDM, runs.ipndm, **STILL),
    plain(
        "CogVideoXDDIMScheduler",
        "DDIM, in the form of CogVideoX.",
        1,
        DDIM,
        lambda run: runs.in_table(run, "CogVideoXDDIMScheduler", 0, COGVIDEOX),
        **STILL,
    ),
    plain(
        "CogVideoXDPMScheduler",
        "SDE-DPM-Solver++(2M), in the form of CogVideoX.",
        2,
        DPMPP,
        runs.cogvideox_dpm,
        **DRAWN,
    ),
    levels("EulerDiscreteScheduler", "Euler's step in sigma.", 1, EDM, **STILL, **ROUNDED),
    levels(
        "EulerAncestralDiscreteScheduler",
        "Ancestral, Euler's step.",
        1,
        f"{SONG}; {CROWSON}",
        **DRAWN,
        **ROUNDED,
    ),
    levels("LMSDiscreteScheduler", "Adams-Bashforth in sigma, four values.", 4, CROWSON, **STILL),
    stages("HeunDiscreteScheduler", "Heun's step in sigma.", EDM, **STILL),
    stages("KDPM2DiscreteScheduler", "The midpoint rule in sigma.", f"{DPM}; {EDM}", **STILL),
    stages("KDPM2AncestralDiscreteScheduler", "Ancestral, the midpoint rule.", DPM, **DRAWN),
    stages("DPMSolverSDEScheduler", "DPM-Solver++ (stochastic).", DPMPP, True, **TREE),
    entry(
        ScoreSdeVeScheduler,
        "ScoreSdeVeScheduler",
        None,
        SONG,
        **{**DRAWN, "evals": 2, "evals_of": ve_evals, "coupled": True, "grid": "own"},
    ),
    plain(
        "EDMEulerScheduler",
        "Euler's step, EDM's form.",
        1,
        EDM,
        edm.edm_euler,
        **STILL,
        **ROUNDED,
    ),
    own(
        "EDMDPMSolverMultistepScheduler",
        "",
        "DPM-Solver++(2M), EDM's form.",
        0.5,
        1.0,
        {},
        **STILL,
    ),
    own(
        "EDMDPMSolverMultistepScheduler",
        "-sde-dpmsolver++",
        "SDE-DPM-Solver++(2M), EDM's form.",
        0.5,
        1.0,
        {"algorithm_type": "sde-dpmsolver++"},
        **DRAWN,
    ),
    own(
        "CosineDPMSolverMultistepScheduler",
        "",
        "SDE-DPM-Solver++(2M) on equal steps in log sigma, Stable Audio's form.",
        1.0,
        -1.0,
        {},
        **TREE,
    ),
    plain(
        "FlowMatchEulerDiscreteScheduler",
        "Euler's step in the flow's own time, r = sigma/(alpha + sigma).",
        1,
        FLOW,
        lambda run: flow.in_flow(run, "FlowMatchEulerDiscreteScheduler"),
        **STILL,
        **ROUNDED,
    ),
    plain(
        "MiniMaxH3Scheduler",
        "Euler's step in the flow's own time, as a blend of z and x_0.",
        1,
        FLOW,
        lambda run: flow.in_flow(run, "MiniMaxH3Scheduler", -1.0),
        **STILL,
    ),
    plain(
        "LTXEulerAncestralRFScheduler",
        "Ancestral in the flow's own time: Euler's step to r_s^2/r_t, and noise up to r_s.",
        1,
        f"{SONG}; {FLOW}",
        lambda run: flow.in_flow(run, "LTXEulerAncestralRFScheduler"),
        **DRAWN,
        **ROUNDED,
    ),
]

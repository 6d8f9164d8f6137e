"""The nine hooks of the lab, one a kind of entry. Each returns a list of entries.

A plugin is a module (or object) with any of these functions, each marked ``@labcore.hookimpl``,
named by an entry point in the group ``labcore``.
"""

from __future__ import annotations

import pluggy

from labcore.entry import Entry

hookspec = pluggy.HookspecMarker("labcore")
hookimpl = pluggy.HookimplMarker("labcore")


@hookspec
def register_processes() -> list[Entry]:  # type: ignore[empty-body]
    """Linear forward processes: (**options) -> Process."""


@hookspec
def register_targets() -> list[Entry]:  # type: ignore[empty-body]
    """Data laws: (**options) -> Target."""


@hookspec
def register_scores() -> list[Entry]:  # type: ignore[empty-body]
    """Scores of a target under a process: (process, target, **options) -> Score."""


@hookspec
def register_networks() -> list[Entry]:  # type: ignore[empty-body]
    """Architectures: (event, **options) -> torch.nn.Module."""


@hookspec
def register_objectives() -> list[Entry]:  # type: ignore[empty-body]
    """Training objectives: (process, **options) -> loss."""


@hookspec
def register_grids() -> list[Entry]:  # type: ignore[empty-body]
    """Time grids: (process, n, *, t_eps, **options) -> (n+1,) float64 from T down to t_eps."""


@hookspec
def register_samplers() -> list[Entry]:  # type: ignore[empty-body]
    """Samplers: (process, score, x, ts, noise, **options) -> iterator of x at ts[1:]."""


@hookspec
def register_metrics() -> list[Entry]:  # type: ignore[empty-body]
    """Metrics: (outcome, **options) -> float or {name: float}."""


@hookspec
def register_reporters() -> list[Entry]:  # type: ignore[empty-body]
    """Followers of a study: (**options) -> callable that is handed each Event."""


HOOK_OF = {
    "process": "register_processes",
    "target": "register_targets",
    "score": "register_scores",
    "network": "register_networks",
    "objective": "register_objectives",
    "grid": "register_grids",
    "sampler": "register_samplers",
    "metric": "register_metrics",
    "reporter": "register_reporters",
}
"""The hook that registers each kind of entry."""

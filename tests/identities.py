"""What identities between samplers are tested with: a score, structures, turned noise, a distance.

Two runs that are one formula in exact arithmetic differ by rounding, which a sampler may amplify.
They are compared at every step by the largest difference over the largest entry of the state.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from labcore import Diag, Entry, LinOp, Mat, Noise, Process, Score, ScoreWith, counted
from labcore.noise import Recorded, initial
from labcore.seeds import generator
from labcore_samplers import register_samplers

F64, ROWS, EPS = torch.float64, 6, 2.0**-52
MODES = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
SPREAD = 0.3

FIXED: dict[str, Entry] = {
    entry.name: entry
    for entry in register_samplers()
    if not entry.traits.get("coupled") and "channel" not in entry.traits.get("needs", ())
}
"""Every registered sampler that steps along the grid, on data of any structure."""

OPTIONS: dict[str, dict[str, Any]] = {
    "edm_churn": {"S_churn": 8.0},
    "restart": {"S_min": 0.1, "S_max": 5.0},
}


def rotation(angle: float) -> Tensor:
    a = torch.tensor(angle, dtype=F64)
    c, s = a.cos(), a.sin()
    return torch.stack([c, -s, s, c]).reshape(2, 2)


def mixture(process: Process, turn: Tensor | None = None) -> ScoreWith:
    """Three round Gaussians in the plane, turned, under a scalar process: all that is known."""
    modes = MODES if turn is None else MODES @ turn.T

    def law(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = process.Phi(t, torch.zeros_like(t)).param
        v = a**2 * SPREAD + process.Sigma(t).param
        delta = a * modes - x[:, None]
        return delta, v, WEIGHTS.log() - delta.square().sum(-1) / (2 * v)

    def score(x: Tensor, t: Tensor) -> Tensor:
        delta, v, logits = law(x, t)
        return (logits.softmax(1)[..., None] * delta).sum(1) / v

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        _, v, logits = law(x, t)
        return logits.logsumexp(1) - v.log()

    def reverse(x: Tensor, t: Tensor, s: Tensor, z: Tensor, u: Tensor) -> Tensor:
        chosen = (law(x, t)[2].softmax(1).cumsum(1) < u[:, None]).sum(1).clamp(max=2)
        ratio, Q = process.Phi(t, s).param, process.Q(t, s).param
        a = process.Phi(s, torch.zeros_like(s)).param
        v, m = a**2 * SPREAD + process.Sigma(s).param, a * modes[chosen]
        both = ratio**2 * v + Q
        return m + v * ratio / both * (x - ratio * m) + (v * Q / both).sqrt() * z

    return ScoreWith(score, log_prob=log_prob, reverse=reverse)


@dataclass(frozen=True)
class Draws(Noise):
    """Draws by the order in which they are first asked, turned but where they choose."""

    source: Recorded
    turn: Tensor | None = None

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        z = self.source.draw(t, s, stream, parts)
        if self.turn is None or stream.startswith(("accept", "component")):
            return z
        return tuple(part @ self.turn.T for part in z)


def draws(turn: Tensor | None = None, event: tuple[int, ...] = (2,)) -> Noise:
    known: dict[int, Tensor] = {}

    def give(m: int) -> Tensor:
        if m not in known:
            g = generator("identities", m)
            known[m] = torch.randn(ROWS, *event, generator=g, dtype=F64)
        return known[m]

    return Draws(Recorded(give), turn)


def start(process: Process, event: tuple[int, ...] = (2,)) -> Tensor:
    return process.prior().chol @ initial([0], ROWS, event, dtype=F64)


def run(
    sampler: Entry, process: Process, score: Score, x: Tensor, ts: Tensor, noise: Noise, **how: Any
) -> Tensor:
    """All states of one run, (n, B, *event)."""
    options = {**OPTIONS.get(sampler.name, {}), **how}
    with torch.inference_mode():
        states = sampler(process, counted(score, len(x)), x, ts, noise, **options)
        return torch.stack(list(states))


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference of a step's states over their largest entry, over all steps."""
    a, b = a.flatten(1), b.flatten(1)
    return float(((a - b).abs().amax(1) / b.abs().amax(1)).max())


def lifted(process: Process, structure: Any) -> Process:
    """A scalar process with its operators in a richer structure, on (2,)."""
    like: LinOp = {
        "diag": Diag(torch.ones(1, 2, dtype=F64)),
        "dense": Mat(torch.eye(2, dtype=F64)[None]),
    }[structure]

    def over(f: Callable[..., LinOp]) -> Callable[..., LinOp]:
        return lambda *times: f(*times).lift(like)

    return replace(
        process,
        A=over(process.A),
        G=over(process.G),
        Phi=over(process.Phi),
        Sigma=over(process.Sigma),
        closed_Q=over(process.Q),
        structure=structure,
        event_shape=(2,),
    )


def amplification(
    sampler: Entry, process: Process, score: ScoreWith, x: Tensor, ts: Tensor, **how: Any
) -> float:
    """How much larger relative errors of the states and scores come out: the conditioning.

    Measured with errors of 1e-9 in the start, in what every score call is given and in what it
    gives. Arithmetic of unit roundoff u makes such errors of u, whatever the order of operations.
    """
    size, g = 1e-9, generator("amplification")

    def shaken(v: Tensor) -> Tensor:
        sign = torch.randint(2, v.shape, generator=g, dtype=v.dtype) * 2 - 1
        return v * (1 + size * sign)

    off = replace(score, score=lambda x, t: shaken(score(shaken(x), t)))
    plain = run(sampler, process, score, x, ts, draws(), **how)
    return far(run(sampler, process, off, shaken(x), ts, draws(), **how), plain) / size

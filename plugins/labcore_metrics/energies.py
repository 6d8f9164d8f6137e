"""Two laws known up to their partition functions, compared by what does not need those.

With f = log p + a and g = log q + b for unknown constants a and b, x ~ p and y ~ q,

    jeffreys   E_x[f - g] - E_y[f - g] = KL(p|q) + KL(q|p)              (Jeffreys 1946)
    kl         E_x[f - g] + log E_x exp(g - f) = KL(p|q)                (Zwanzig 1954)
    fisher     E_x |grad f - grad g|^2                                  (Hyvarinen 2005)
    spread     sqrt(Var_x[f - g]), zero only where p = q; kl ~ spread^2/2 where it is small

All four stay as they are when a constant is added to either. kl trusts that x has been wherever q
has mass, jeffreys that y is from q: of chains that have lost a mode neither can know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import labcore
from labcore_metrics.checks import fail
from labcore_metrics.fisher import parts_of

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Comparison:
    """The numbers of the module with a standard error each, by name."""

    value: dict[str, float]
    error: dict[str, float]


def compare_energies(f: LogProb, g: LogProb, x: Tensor, y: Tensor) -> Comparison:
    """Compare f, of the law of x (n, *event), with g, of that of y (m, *event), n and m >= 2.

    f and g give log-densities up to a constant, (n,), by torch operations.
    """
    fx, df = _with_gradient(f, x)
    gx, dg = _with_gradient(g, x)
    with torch.no_grad():
        off_x, off_y = fx - gx, (f(y) - g(y)).double()
    off = (df - dg).flatten(1).square().sum(1)
    ratio = (-(off_x - off_x.mean())).exp()  # centred: the constant cancels
    centred = (off_x - off_x.mean()).square()
    spread = float(centred.mean().sqrt())
    value = {
        "jeffreys": float(off_x.mean() - off_y.mean()),
        "kl": float(ratio.mean().log()),
        "fisher": float(off.mean()),
        "spread": spread,
    }
    error = {
        "jeffreys": math.hypot(_error(off_x), _error(off_y)),
        "kl": _error(off_x - off_x.mean() + ratio / ratio.mean()),
        "fisher": _error(off),
        "spread": _error(centred) / max(2 * spread, 1e-300),
    }
    return Comparison(value, error)


def _with_gradient(f: LogProb, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        z = x.detach().clone().requires_grad_(True)
        value = f(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach().double(), gradient.double()


def _error(values: Tensor) -> float:
    """Standard error of the mean."""
    return float(values.std() / math.sqrt(len(values)))


@labcore.metric(
    better="lower",
    minimum=2,
    floor=False,
    needs=("mixture",),
    cite="Jeffreys (1946); Zwanzig (1954); Hyvarinen (2005)",
    sees="the energy of the score, and through jeffreys whether the samples follow it",
)
def energy_fit(
    outcome: labcore.Outcome, *, n: Annotated[int, Field(ge=2)] = 2000
) -> dict[str, float]:
    """The score's energy at t_eps beside the exact log-density, without partition functions.

    ``jeffreys`` KL both ways, ``kl`` that of the truth from the energy's law, ``fisher`` and
    ``spread`` (see labcore_metrics.energies), on up to ``n`` exact points and samples of the cell,
    which jeffreys takes for samples of the energy: those of a Metropolis chain are.
    """
    process, score = parts_of(energy_fit, outcome)
    log_prob = labcore.counted(score, 1).model.log_prob
    if log_prob is None or process.structure == "channel" or outcome.target.mixture is None:
        raise fail(
            energy_fit,
            "the score has no energy, the state more channels than the data, or the target is no "
            "mixture; use trained_energy on a mixture under a process without added channels",
        )
    t = torch.tensor(process.t_eps, dtype=torch.float64)
    law = labcore.state_law(process, outcome.target.mixture, t, outcome.target.event)
    x = law.sample(min(n, len(outcome.samples)), outcome.generator("energy_fit"))
    y = outcome.samples[:n].double()
    found = compare_energies(
        lambda z: law.log_prob(z.flatten(1)), lambda z: log_prob(z, t), x.reshape_as(y), y
    )
    return found.value

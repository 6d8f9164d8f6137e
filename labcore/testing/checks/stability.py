"""Stability: what a run makes of a deviation, for each number of steps and each mode.

For Gaussian data of variance v in every direction, C_t = v Phi E E^T Phi^T + Sigma(t), E the
embedding of data in states. A deviation at T ends as J times it. The exact probability flow has
J = C_s^1/2 Q C_t^-1/2 with Q orthogonal, and reverse SDEs contract more, so that

    amplification = | C_s^-1/2 J C_t^1/2 |  <= 1   in the limit of small steps

for every process and every v. A number of steps is stable where no mode from v = 1e-3 to 1e3 is
amplified by more than LEVEL.
"""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor

from labcore.certificates import Check
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.checks.drawn import finite
from labcore.testing.models import quadratic
from labcore.testing.probe import F64, Fixed

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FINER = (256, 512, 1024)
MODES = 12
LEVEL = 2.0


class Modes:
    """One batch of deviations: MODES variances, a row for each direction of the state."""

    def __init__(self, case: Case) -> None:
        self.case, self.D, process = case, case.D, case.process
        self.variances = torch.logspace(-3, 3, MODES, dtype=F64)
        d = torch.Size(case.data_event).numel()
        basis = torch.eye(d, dtype=F64).reshape(d, *case.data_event)
        self._lift = process.embed(basis).reshape(d, -1).T
        self._known: dict[float, Tensor] = {}
        self.rows = MODES * self.D

    def law(self, t: Tensor) -> Tensor:
        """C_t of each mode, (MODES, D, D)."""
        process = self.case.process
        Phi = process.Phi(t, torch.zeros_like(t)).dense(self.case.event)[0] @ self._lift
        Sigma = process.Sigma(t).dense(self.case.event)[0]
        return self.variances[:, None, None] * (Phi @ Phi.T) + Sigma

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        time = float(t.reshape(-1)[0])
        if time not in self._known:
            self._known[time] = torch.linalg.inv(self.law(t.reshape(-1)[0]))
        flat = x.reshape(MODES, -1, self.D)
        return -(flat @ self._known[time]).reshape(x.shape)

    def start(self) -> Tensor:
        eye = torch.eye(self.D, dtype=F64).expand(MODES, self.D, self.D)
        return eye.reshape(self.rows, *self.case.event)

    def amplification(self, ts: Tensor) -> Tensor:
        """For each mode, (MODES,)."""
        silent = Silent(self.case.event, self.rows)
        J = self.case.end(self.start(), ts, silent, self.score)
        J = J.reshape(MODES, self.D, self.D).mT
        before = torch.linalg.cholesky(self.law(ts[0]))
        after = torch.linalg.cholesky(self.law(ts[-1]))
        white = torch.linalg.solve_triangular(after, J @ before, upper=False)
        bad = ~white.isfinite().all(-1).all(-1)
        white = torch.where(bad[:, None, None], torch.zeros_like(white), white)
        norm = torch.linalg.matrix_norm(white, ord=2)
        return torch.where(bad, torch.full_like(norm, inf), norm)


class Silent(Fixed):
    """Draws of zero."""

    def fresh(self, key: tuple[float, float, str, int]) -> Tensor:
        return torch.zeros(self._shape, dtype=F64)


def stability(case: Case) -> Check:
    """Amplification over steps and modes, and the largest stable step of this process."""
    why = _why_not(case)
    if why:
        return skipped(why)
    modes = Modes(case)
    counts = [n for n in COUNTS if n >= case.least]
    found = {n: modes.amplification(quadratic(case.process, n)) for n in counts}
    for n in FINER:
        if float(found[max(found)].max()) <= LEVEL:
            break
        found[n] = modes.amplification(quadratic(case.process, n))
    least = _least_stable(found)
    figures: dict[str, Any] = {
        "steps": list(found),
        "variances": modes.variances.tolist(),
        "amplification": [[finite(v) for v in a.tolist()] for a in found.values()],
    }
    if least is None:
        return _never(case, found, modes, figures)
    low = max((n for n in found if n < least), default=least)
    least = _bisect(modes, low, least)
    figures["stable from"] = least
    h = float((quadratic(case.process, least)[:-1] - quadratic(case.process, least)[1:]).max())
    figures["largest step"] = h
    worst = max(float(a.max()) for n, a in found.items() if n < least) if least > 1 else 1.0
    before = f"; below, deviations grow up to {worst:.1g} times" if least > case.least else ""
    return passed(
        f"stable in every mode from {least} steps on, of length {h:.2g} at most{before}",
        figures=figures,
        plots=(_plot(found, modes),),
    )


def _why_not(case: Case) -> str:
    if case.coupled:
        return "its steps follow a tolerance"
    if "log_p_t" in case.entry.needs:
        return "it accepts or refuses: no step of it is linear"
    if "reverse" in case.entry.needs:
        return "it draws from the exact law: nothing is integrated"
    return ""


def _least_stable(found: dict[int, Tensor]) -> int | None:
    """The least tried number of steps from which on all that were tried are stable."""
    stable = None
    for n in sorted(found, reverse=True):
        if not float(found[n].max()) <= LEVEL:
            break
        stable = n
    return stable


def _bisect(modes: Modes, low: int, high: int) -> int:
    while high - low > 1:
        mid = (low + high) // 2
        a = float(modes.amplification(quadratic(modes.case.process, mid)).max())
        low, high = (low, mid) if a <= LEVEL else (mid, high)
    return high


def _never(case: Case, found: dict[int, Tensor], modes: Modes, figures: dict[str, Any]) -> Check:
    """Unstable at the finest grid: a fault where an order is declared and it does not fall."""
    last = sorted(found)[-2:]
    worst = [float(found[n].max()) for n in last]
    at = float(modes.variances[int(found[last[-1]].argmax())])
    told = f"{worst[-1]:.2g} times at {last[-1]} steps, in modes of variance {at:.2g}"
    if case.order is not None and not worst[-1] < 0.7 * worst[0]:
        raise Broken(
            f"deviations grow {told}, and no less with more steps",
            "the method is unstable (roots of the multistep formula, or a wrong sign)",
        )
    why = "its steps do not shrink with the grid" if case.order is None else "still falling"
    return passed(f"deviations grow {told}: {why}", figures=figures, plots=(_plot(found, modes),))


def _plot(found: dict[int, Tensor], modes: Modes) -> dict[str, Any]:
    return {
        "kind": "region",
        "title": "Amplification of a deviation",
        "xlabel": "steps",
        "ylabel": "variance of the mode",
        "zlabel": "amplification",
        "xscale": "log",
        "yscale": "log",
        "x": list(found),
        "y": modes.variances.tolist(),
        "z": [[finite(float(found[n][j])) for n in found] for j in range(MODES)],
        "level": LEVEL,
    }

"""A problem that is not linear, and its solution by methods that no sampler of the lab is.

The data are three Gaussians, so that the score is exact and bends. The probability flow is solved
by scipy's DOP853 to 1e-12. The reverse SDE is solved on a given Brownian path by a method of three
stages, strong order 1.5 and order 3 where the noise is small, in 256 steps:

    H1 = x                                           u = -t, h > 0, f the reverse drift,
    H2 = x + h/2 f1 + 9/10 N,   H3 = x + h (2 f2 - f1) + 12/5 N,    N = G A/h
    x' = x + h (f1 + 4 f2 + f3)/6 + int G dW

Kutta's rule of order 3, its stages moved by the space-time area A = int (W - W_0) du. The numbers
b = (9/10, 12/5) solve sum alpha b = 1 and sum alpha b^2 = 3/2, Roessler's conditions (2010, SIAM
J. Numer. Anal. 48, (6.5)) for order 1.5 with additive noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from labcore.errors import SamplerError
from labcore.linop import Event
from labcore.noise import Noise, brownian, counting
from labcore.processes import Process
from labcore.scores import Score
from labcore.seeds import derive, generator
from labcore.targets import Mixture, state_law
from labcore.testing.audit import Sampler, default_data, final
from labcore.testing.gaussians import mixture_score
from labcore.testing.models import even_in_log, heart, uneven_in_log

F64 = torch.float64


def three_modes(d: int = 2, seed: int = 0) -> Mixture:
    """Three Gaussians of full covariances, some two deviations apart."""
    g = generator("three modes", d, seed)
    means = 1.1 * torch.randn(3, d, generator=g, dtype=F64) / math.sqrt(max(d, 2) / 2)
    M = torch.randn(3, d, d, generator=g, dtype=F64)
    covs = 0.35 * torch.eye(d, dtype=F64) + 0.15 * M @ M.mT / d
    return Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=F64), means, covs)


class Path(Noise):
    """One Brownian path a stream on a fine grid, read in steps between any of its times."""

    def __init__(self, ts: Tensor, event: Event, seed: int, rows: int) -> None:
        self.ts, self._event, self._seed, self._rows = ts, event, seed, rows
        self._index = {t: i for i, t in enumerate(ts.tolist())}
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def sums(self, stream: str) -> tuple[Tensor, Tensor]:
        """W and its integral over u = -t, from the first time to each, (N+1, B, *event)."""
        if stream not in self._sums:
            fine = brownian(self.ts, self._event, [self._seed], self._rows, dtype=F64)
            W = torch.zeros(len(self.ts), self._rows, *self._event, dtype=F64)
            Z = W.clone()
            for i, (t, s) in enumerate(pairwise(self.ts.tolist())):
                h = t - s
                z, k = fine.levy(t, s, stream)
                W[i + 1] = W[i] + math.sqrt(h) * z
                Z[i + 1] = Z[i] + h * W[i] + h**1.5 * (z / 2 + k / math.sqrt(12))
            self._sums[stream] = W, Z
        return self._sums[stream]

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        i, j = self._index.get(t), self._index.get(s)
        if i is None or j is None:
            raise SamplerError(f"noise: {t} to {s} is no step of the grid")
        W, Z = self.sums(stream)
        h = t - s
        z = (W[j] - W[i]) / math.sqrt(h)
        if parts == 1:
            return (z,)
        area = (Z[j] - Z[i] - h * W[i]) / h**1.5
        return z, math.sqrt(12) * (area - z / 2)


@dataclass(frozen=True, eq=False)
class Problem:
    """A mixture on a process, from t to s of its heart, with starts of the exact law.

    ``linear`` puts the audit's Gaussian in place of the mixture. Another ``lot`` is the same
    problem on other starts and paths.
    """

    process: Process
    seed: int = 0
    linear: bool = False
    lot: int = 0

    @cached_property
    def event(self) -> Event:
        return tuple(self.process.event_shape or (2,))

    @cached_property
    def state(self) -> Event:
        return tuple(self.process.event(self.event))

    @cached_property
    def data(self) -> Mixture:
        d = math.prod(self.event)
        return default_data(d, self.seed) if self.linear else three_modes(d, self.seed)

    @cached_property
    def score(self) -> Score:
        return mixture_score(self.process, self.data, self.event)

    def law(self, t: float) -> Mixture:
        return state_law(self.process, self.data, t, self.event)

    @property
    def drawn(self) -> int:
        """The seed of starts and paths."""
        return derive("lot", self.lot, self.seed) if self.lot else self.seed

    def start(self, rows: int) -> Tensor:
        """(rows, *state) of the exact law at the first time."""
        g = generator("nonlinear start", self.drawn)
        x = self.law(heart(self.process)[0]).sample(rows, g)
        return x.reshape(rows, *self.state)

    @cached_property
    def flow(self) -> Tensor:
        """The states at the last time of 64 starts on the probability flow, by DOP853."""
        from scipy.integrate import solve_ivp

        x = self.start(64)
        t, s = heart(self.process)

        def slope(log_t: float, flat: Any) -> Any:
            time = torch.tensor(math.exp(log_t), dtype=F64)
            x = torch.as_tensor(flat).reshape(-1, *self.state)
            pull = self.process.GG(time) @ self.score(x, time)
            return (float(time) * (self.process.A(time) @ x - 0.5 * pull)).flatten().numpy()

        with torch.inference_mode():
            ends = (math.log(t), math.log(s))
            found = solve_ivp(slope, ends, x.flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-13)
        return torch.as_tensor(found.y[:, -1]).reshape(x.shape)

    @cached_property
    def path(self) -> Path:
        """A Brownian path on 256 steps for each of 4096 rows."""
        return Path(even_in_log(self.process, 256), self.state, self.drawn, 4096)

    @cached_property
    def _reverse(self) -> dict[float, Tensor]:
        return {}

    def reverse(self, lam: float) -> Tensor:
        """The last states of the reverse SDE of rate lam on the path."""
        if lam not in self._reverse:
            self._reverse[lam] = self.solve(self.path, self.start(4096), lam)
        return self._reverse[lam]

    def solve(self, path: Path, x: Tensor, lam: float) -> Tensor:
        """The reverse SDE of rate lam on the path, by the module's method."""
        ts = path.ts
        times = torch.stack([ts[:-1], (ts[:-1] + ts[1:]) / 2, ts[1:]], 1).flatten()
        score = mixture_score(self.process, self.data, self.event, times)
        n, D = len(times), math.prod(self.state)
        A = self.process.A(times).dense(self.state).expand(n, D, D).mT
        GG = self.process.GG(times).dense(self.state).expand(n, D, D).mT * (1 + lam**2) / 2
        G = self.process.G(times).dense(self.state).expand(n, D, D).mT * lam
        W, Z = (v.flatten(2) for v in path.sums(""))
        y = x.flatten(1)
        with torch.inference_mode():
            for i in range(len(ts) - 1):
                h = float(ts[i] - ts[i + 1])
                dW, area = W[i + 1] - W[i], (Z[i + 1] - Z[i] - h * W[i]) / h

                def f(m: int, y: Tensor, i: int = 3 * i) -> Tensor:
                    s = score(y.reshape(x.shape), times[i + m]).flatten(1)
                    return s @ GG[i + m] - y @ A[i + m]

                N = area @ G[3 * i + 1]
                f1 = f(0, y)
                f2 = f(1, y + h / 2 * f1 + 0.9 * N)
                f3 = f(2, y + h * (2 * f2 - f1) + 2.4 * N)
                noise = dW @ G[3 * i + 2] - area @ (G[3 * i + 2] - G[3 * i])
                y = y + h * (f1 + 4 * f2 + f3) / 6 + noise
        return y.reshape(x.shape)

    def run(self, sampler: Sampler, ts: Tensor, rows: int, noise: Noise) -> Tensor:
        """The last state of a run on the mixture from the exact law."""
        x = self.start(rows)
        with torch.inference_mode():
            return final(sampler(self.process, self.score, x, ts, noise), x)

    def draws(self, sampler: Sampler) -> int:
        """How many noise vectors it draws in 8 steps."""
        noise = counting(self.state, rows=2)
        self.run(sampler, uneven_in_log(self.process, 8), 2, noise)
        return len(noise.draws)

    def flow_error(self, sampler: Sampler) -> Callable[[int], float]:
        """n steps -> the root mean square distance from the flow's last states, over 64 rows."""

        def error(n: int) -> float:
            ts = uneven_in_log(self.process, n)
            end = self.run(sampler, ts, 64, counting(self.state, rows=64))
            return float((end - self.flow).square().mean().sqrt())

        return error

    def rate(self, sampler: Sampler) -> float | None:
        """The constant lam with which it follows the path: noise lam G dW in its step's limit.

        Read off tiny single steps at five times; None where it is another one at each, or where
        the response is no multiple of G.
        """
        t, s = heart(self.process)
        found = []
        D = math.prod(self.state)
        for time in torch.linspace(math.log(s), math.log(t), 7, dtype=F64)[1:-1].exp():
            h = 1e-7 * float(time)
            ts = torch.stack([time, time - h])
            x = torch.zeros(1 + D, *self.state, dtype=F64)
            unit = torch.cat([torch.zeros(1, D, dtype=F64), torch.eye(D, dtype=F64)])
            noise = Along(unit.reshape(1 + D, *self.state))
            with torch.inference_mode():
                out = final(sampler(self.process, self.score, x, ts, noise), x).flatten(1)
            R = (out[1:] - out[0]).T / math.sqrt(h)
            G = self.process.G(time).dense(self.state)[0]
            lam = float((R * G).sum() / G.square().sum())
            if float((R - lam * G).abs().max()) > 1e-3 * float(G.abs().max()):
                return None
            found.append(lam)
        same = max(found) - min(found) < 1e-3 and found[0] > 0.01
        return round(found[0], 3) if same else None

    def distances(self, sampler: Sampler, lam: float, n: int) -> tuple[Tensor, Tensor]:
        """Of each path in n steps: the squared distance from the reverse SDE's last state (B,),
        and the difference of their moments (B, D + D^2)."""
        exact = self.reverse(lam)
        ts = self.path.ts[:: (len(self.path.ts) - 1) // n]
        end = self.run(sampler, ts, len(exact), self.path)
        return (end - exact).square().flatten(1).sum(1), moments(end) - moments(exact)


Error = tuple[float, float]


def path_errors(
    lots: Sequence[Problem], sampler: Sampler, lam: float
) -> Callable[[int], tuple[Error, Error]]:
    """n steps -> the errors (each with its relative standard error) on the path and in law, over
    the paths of all lots.

    On the path: the root mean square distance from the reverse SDE's states; in law: of the
    first and second moments, the difference of the two solutions' means over the rows.
    """

    def errors(n: int) -> tuple[Error, Error]:
        found = [lot.distances(sampler, lam, n) for lot in lots]
        square, gap = (torch.cat(of) for of in zip(*found, strict=True))
        mean, root = float(square.mean()), math.sqrt(len(square))
        bias, deviation = gap.mean(0), gap.std(0) / root
        strong = math.sqrt(mean), float(square.std()) / (2 * mean * root)
        return strong, (float(bias.norm()), float(deviation.norm() / bias.norm()))

    return errors


class Along(Noise):
    """The given values for the unnamed stream, and zeros for all else."""

    def __init__(self, z: Tensor) -> None:
        self._z = z

    def draw(self, t: float, s: float, stream: str, parts: int) -> tuple[Tensor, ...]:
        zero = torch.zeros_like(self._z)
        return (zero if stream else self._z, zero)[:parts]


def moments(x: Tensor) -> Tensor:
    """x and x x^T, (B, D + D^2)."""
    x = x.flatten(1)
    return torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1)], 1)


_problems: WeakKeyDictionary[Process, dict[tuple[int, bool, int], Problem]] = WeakKeyDictionary()


def problem(process: Process, seed: int = 0, *, linear: bool = False, lot: int = 0) -> Problem:
    """The problem of a process and a seed, made once: what it has solved is kept with it."""
    of = _problems.setdefault(process, {})
    return of.setdefault((seed, linear, lot), Problem(process, seed, linear, lot))

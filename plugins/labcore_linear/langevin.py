"""Critically damped Langevin diffusion: noise enters the velocity, the data feel only its drift.

State (x, v), two channels of every coordinate. With w = 1/sqrt(M), Gamma = 2 sqrt(M) (critical
damping) and y = w B(t|s), B the integral of beta:

    A = beta [[0, 1/M], [-1, -Gamma/M]],    G = diag(0, sqrt(2 Gamma beta))
    Phi(t,s) = exp(-y) [[1 + y, w y], [-y/w, 1 - y]]
    Sigma(t|s) = [[ q_xx, q_xv/w ], [ q_xv/w, q_vv/w^2 ]],
      q_xx = 1 - exp(-2y) (1 + 2y + 2y^2) = P(3, 2y), the regularised incomplete gamma function
      q_xv = 2 y^2 exp(-2y),    q_vv = -expm1(-2y) + 2 y (1 - y) exp(-2y)

Every entry keeps its relative precision as y -> 0, where q_xx ~ 4 y^3/3 and det ~ 4 y^4/3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import labcore
from labcore_linear.beta import linear_beta
from labcore_linear.checks import positive, span


def blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> labcore.Mat:
    """[[a, b], [c, d]] for entries () or (n,): a Mat of (1, 2, 2) or (n, 2, 2)."""
    return labcore.Mat(torch.stack([a, b, c, d], -1).reshape(-1, 2, 2))


@dataclass(frozen=True)
class Critical:
    """The operators of the module's formulas, for beta(t), B(t,s) and the mass M."""

    beta: Callable[[Tensor], Tensor]
    B: Callable[[Tensor, Tensor], Tensor]
    M: float

    @property
    def w(self) -> float:
        return 1 / math.sqrt(self.M)

    @property
    def Gamma(self) -> float:
        return 2 * math.sqrt(self.M)

    def A(self, t: Tensor) -> labcore.LinOp:
        b = self.beta(t)
        return blocks(torch.zeros_like(b), b / self.M, -b, -b * self.Gamma / self.M)

    def G(self, t: Tensor) -> labcore.LinOp:
        rate = (2 * self.Gamma * self.beta(t)).sqrt()
        zero = torch.zeros_like(rate)
        return blocks(zero, zero, zero, rate)

    def Phi(self, t: Tensor, s: Tensor) -> labcore.LinOp:
        y = self.w * self.B(t, s)
        decay = torch.exp(-y)
        return blocks(decay * (1 + y), decay * self.w * y, -decay * y / self.w, decay * (1 - y))

    def Q(self, t: Tensor, s: Tensor) -> labcore.LinOp:
        y = self.w * self.B(t, s)
        decay = torch.exp(-2 * y)
        xx = torch.special.gammainc(torch.full_like(y, 3.0), 2 * y)
        xv = 2 * y.square() * decay / self.w
        vv = (2 * y * (1 - y) * decay - torch.expm1(-2 * y)) / self.w**2
        return blocks(xx, xv, xv, vv)


@labcore.process(cite="Dockhorn, Vahdat & Kreis (2022) arXiv:2112.07068", gives=("channel",))
def cld(
    *,
    b0: float = 4.0,
    b1: float = 4.0,
    M: float = 0.25,
    gamma: float = 0.04,
    T: float = 1.0,
    t_eps: float = 1e-3,
) -> labcore.Process:
    """Critically damped Langevin, beta = b0 + (b1 - b0) t, mass M, v_0 ~ N(0, gamma M).

    Defaults are the paper's. t_eps = 1e-3 is the paper's too: the noise left on the data has
    standard deviation 0.0018, on the velocity 0.2 of its final one.
    """
    span("cld", T, t_eps)
    positive("cld", M=M, gamma=gamma)
    of = Critical(*linear_beta("cld", b0, b1, T), M)
    start = labcore.Mat(torch.tensor([[[0.0, 0.0], [0.0, gamma * M]]], dtype=torch.float64))

    def Sigma(t: Tensor) -> labcore.LinOp:
        zero = torch.zeros_like(t)
        carry = of.Phi(t, zero)
        return of.Q(t, zero) + carry @ start @ carry.T

    return labcore.Process(
        A=of.A,
        G=of.G,
        Phi=of.Phi,
        Sigma=Sigma,
        closed_Q=of.Q,
        T=T,
        t_eps=t_eps,
        structure="channel",
        channels=2,
    )

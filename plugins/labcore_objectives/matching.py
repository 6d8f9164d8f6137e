"""Score matching without a denoising target: implicit, sliced, and explicit on a Parzen density.

In the noise's units, L^T s = -eps, every one is E|L^T (s - grad log p_t)|^2 up to a constant:

    implicit   |eps|^2 - 2 tr( J L )             J = d eps / dx     (Hyvarinen 2005)
    sliced     (v^T eps)^2 - 2 v^T J L v         v ~ N(0, I)        (Song et al. 2019)
    reduced    |eps|^2 - 2 v^T J L v             the same with E (v^T eps)^2 known
    explicit   |eps + L^T grad log q|^2          q the Parzen density of the batch (Vincent 2011)

so that dsm = implicit + D in expectation, D the dimension of the state.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

import labcore
from labcore import At, LinOp, Model, Process
from labcore_objectives.denoising import Loss, Where, perturbed
from labcore_objectives.times import chosen

_BLOCK = 2**22  # numbers in the largest table of operators: 16 MB
Count = Annotated[int, Field(ge=1)]


def directional(
    model: Model, x: Tensor, at: At, level: Tensor, vs: Tensor
) -> tuple[Tensor, Tensor]:
    """eps (B, *event), and v^T J L v for each direction in vs (k, B, *event): (k, B)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        eps = model.eps_at(x, at, level)
        slopes = [_slope(eps, x, v, at.L) for v in vs]
    return eps, torch.stack(slopes)


def _slope(eps: Tensor, x: Tensor, v: Tensor, L: LinOp) -> Tensor:
    """v^T (d eps / dx) L v, (B,)."""
    (back,) = torch.autograd.grad((eps * v).sum(), x, create_graph=True)
    return (back * (L @ v)).flatten(1).sum(1)


def probes(n: int, like: Tensor, generator: Generator, kind: str = "normal") -> Tensor:
    """Random directions (n, B, *event) of identity covariance."""
    z = torch.randn((n, *like.shape), generator=generator).to(like)
    return z.sign() if kind == "rademacher" else z


def basis(like: Tensor) -> Tensor:
    """Every unit vector of the event, for each row: (D, B, *event)."""
    D = like[0].numel()
    rows = torch.eye(D).to(like).reshape(D, 1, *like.shape[1:])
    return rows.expand(D, *like.shape)


@labcore.objective(cite="Hyvarinen (2005); Hutchinson (1989) for the probes")
def ism(
    process: Process,
    *,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes_each: Count = 1,
    times: Where = "uniform",
    stratified: bool = True,
) -> Loss:
    """Implicit score matching, |eps|^2 - 2 tr(J L): the exact trace (D backward passes), or
    Hutchinson's with ``probes_each`` random signs."""
    where = chosen(process, times, torch.ones_like, stratified)

    def loss(model: Model, x0: Tensor, generator: Generator) -> Tensor:
        t, counts = where(len(x0), generator)
        at, level = model.at(t)
        x, _ = perturbed(process, x0, at, generator)
        if trace == "exact":
            eps, slopes = directional(model, x, at, level, basis(x))
            traced = slopes.sum(0)
        else:
            vs = probes(probes_each, x, generator, "rademacher")
            eps, slopes = directional(model, x, at, level, vs)
            traced = slopes.mean(0)
        return counts.to(x) * (eps.square().flatten(1).sum(1) - 2 * traced)

    return loss


@labcore.objective(cite="Song, Garg, Shi & Ermon (2019) arXiv:1905.07088")
def ssm(
    process: Process,
    *,
    reduced: bool = True,
    slices: Count = 1,
    times: Where = "uniform",
    stratified: bool = True,
) -> Loss:
    """Sliced score matching along ``slices`` normal directions, with variance reduction or not."""
    where = chosen(process, times, torch.ones_like, stratified)

    def loss(model: Model, x0: Tensor, generator: Generator) -> Tensor:
        t, counts = where(len(x0), generator)
        at, level = model.at(t)
        x, _ = perturbed(process, x0, at, generator)
        vs = probes(slices, x, generator)
        eps, slopes = directional(model, x, at, level, vs)
        size = eps.square().flatten(1).sum(1)
        if not reduced:
            size = (vs * eps).flatten(2).sum(2).square().mean(0)
        return counts.to(x) * (size - 2 * slopes.mean(0))

    return loss


@labcore.objective(cite="Vincent (2011), eq. 5; Xu, Tong & Jaakkola (2023) arXiv:2302.00670")
def esm(process: Process, *, times: Where = "uniform", stratified: bool = True) -> Loss:
    """Explicit score matching on the Parzen density of the batch: a stable target.

    The target is the mean of z over the batch's points that may have led to x_t, by their
    posterior weight: less variance than denoising, and a bias of the order of 1/B.
    """
    where = chosen(process, times, torch.ones_like, stratified)

    def loss(model: Model, x0: Tensor, generator: Generator) -> Tensor:
        t, counts = where(len(x0), generator)
        at, level = model.at(t)
        x, _ = perturbed(process, x0, at, generator)
        r = model.eps_at(x, at, level) - parzen_eps(process, x, at, x0)
        return counts.to(x) * r.square().flatten(1).sum(1)

    return loss


def parzen_eps(process: Process, x: Tensor, at: At, x0: Tensor) -> Tensor:
    """eps of the mixture of N(Phi x0_i, Sigma) at x: sum_i w_i(x) L^-1 (x - Phi x0_i)."""
    white, U = at.L_inv @ x, at.exact_L.inv @ at.exact_Phi
    widest = max(U.param[0].numel(), x[0].numel()) if U.param.ndim else x[0].numel()
    many = max(1, _BLOCK // (len(x) * widest))
    each = torch.cat([white - _carried(U, c, len(x)) for c in process.embed(x0).split(many)])
    weight = torch.softmax(-each.square().flatten(2).sum(2) / 2, 0)
    return torch.einsum("nb,nb...->b...", weight, each)


def _carried(U: LinOp, centres: Tensor, B: int) -> Tensor:
    """U_b c for every centre c and every row b: (n, B, *event)."""
    n, event = len(centres), centres.shape[1:]
    rows = centres[:, None].expand(n, B, *event).reshape(n * B, *event)
    of_rows: LinOp = U.to(rows).map(
        lambda p: p.repeat(n, *[1] * (p.ndim - 1)) if p.shape[:1] == (B,) else p
    )
    return (of_rows @ rows).reshape(n, B, *event)

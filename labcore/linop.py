"""Structured linear operators: Scalar < Diag < Mat, closed under ``+`` and ``@`` by promotion.

An operator acts on states ``x`` of shape (B, *event). Its parameters lead with a batch axis b in
{1, B}: one operator a sample, or one for all, or one a point of a time grid.

    Scalar  a (), (b,)            x -> a x
    Diag    d (b, *event)         x -> d * x                  coordinate by coordinate
    Mat     M (b, *rest, m, m)    x -> sum_j M_ij x_j         on the first event axis

``rest`` is empty when all remaining coordinates share one matrix (a dense d x d matrix on event
(d,), or an m x m block on channels), or gives one matrix to each remaining coordinate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, overload

import torch
from torch import Tensor

from labcore.factors import Factor, Number
from labcore.roots import cholesky, inverse, root, symmetric_root

Event = tuple[int, ...]


class LinOp(ABC):
    """A batch of linear operators on events; ``param`` holds their numbers.

    ``rank`` is the place in the order of promotion: Scalar 0, Diag 1, Mat 2.
    """

    param: Tensor
    rank: ClassVar[int]

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """op x, shape (B, *event)."""

    @abstractmethod
    def lift(self, like: LinOp) -> LinOp:
        """The same operator in the structure of ``like``, whose rank is at least ours."""

    @abstractmethod
    def compose(self, other: Any) -> LinOp:
        """self @ other, for an operator of the same structure."""

    @property
    @abstractmethod
    def T(self) -> LinOp:
        """Transpose."""

    @property
    @abstractmethod
    def inv(self) -> LinOp:
        """Inverse; a singular operator gives infinities or NaN."""

    @property
    @abstractmethod
    def chol(self) -> LinOp:
        """Lower triangular L with L L^T = op, for a positive semi-definite op.

        Raises InvalidProcess when an eigenvalue is negative.
        """

    @property
    @abstractmethod
    def sqrt(self) -> LinOp:
        """The symmetric R with R R = op, for a symmetric positive semi-definite op."""

    @abstractmethod
    def logdet(self, event: Event) -> Tensor:
        """log |det op| on the given event, (b,)."""

    @abstractmethod
    def trace(self, event: Event) -> Tensor:
        """tr op on the given event, (b,)."""

    def dense(self, event: Event) -> Tensor:
        """The full matrices on the flattened event, (b, D, D): the oracle every test may use."""
        D, b = prod(event), self.param.shape[:1].numel()
        basis = torch.eye(D, dtype=self.param.dtype, device=self.param.device)
        rows = basis.reshape(D, *event)
        if b == 1:
            return self.apply(rows).reshape(1, D, D).mT
        return torch.stack([self.apply(e.expand(b, *event)).reshape(b, D) for e in rows], -1)

    def accumulate(self, base: Tensor, x: Tensor) -> Tensor:
        """base += op x, in place and fused where the structure allows; returns ``base``."""
        return base.add_(self.apply(x))

    def added(self, base: Tensor, x: Tensor) -> Tensor:
        """base + op x, a new tensor."""
        return base + self.apply(x)

    def per_step(self, x: Tensor) -> list[Any]:
        """One operator a grid point, cast to ``x`` once: what a sampler's loop zips over.

        They have ``@``, ``accumulate`` and ``added`` on states and nothing else.
        """
        return self.to(x).unbatch()

    @property
    def factors(self) -> list[float] | None:
        """One number a batch entry, where the operator is no more than that; None elsewhere."""
        return None

    def terms(self, x: Tensor) -> list[Any]:
        """``per_step`` for sums alone: they have ``accumulate`` and ``added`` and nothing else."""
        return self.per_step(x)

    def unbatch(self) -> list[LinOp]:
        """One operator a batch entry."""
        if self.param.ndim == 0:
            return [self]
        return [type(self)(p) for p in self.param.split(1)]  # type: ignore[call-arg]

    def map(self, f: Callable[[Tensor], Tensor]) -> Any:
        """The same structure with f(parameters)."""
        return type(self)(f(self.param))  # type: ignore[call-arg]

    def to(self, x: Tensor) -> Any:
        """The same operator in the dtype and on the device of ``x``."""
        return self.map(lambda p: p.to(x))

    def __getitem__(self, i: int) -> Any:
        """The operator of batch entry (grid point) ``i``, to be shared by all samples."""
        return self.map(lambda p: p[i : i + 1] if i != -1 else p[-1:])

    @overload
    def __matmul__(self, other: LinOp) -> LinOp: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            return self.apply(other)
        left, right = promote(self, other)
        return left.compose(right)

    def __add__(self, other: LinOp) -> LinOp:
        left, right = promote(self, other)
        return left.plus(right)

    def plus(self, other: Any) -> LinOp:
        """self + other, for an operator of the same structure."""
        return self.map(lambda p: p + other.param)

    def __sub__(self, other: LinOp) -> LinOp:
        return self + (-1.0) * other

    def __neg__(self) -> LinOp:
        return (-1.0) * self

    def __rmul__(self, c: float | Tensor) -> LinOp:
        """c op, for a number, a 0-d tensor or one factor a batch entry (b,)."""
        factor = torch.as_tensor(c, dtype=self.param.dtype, device=self.param.device)
        if factor.ndim == 0:
            return self.map(lambda p: factor * p)
        return Scalar(factor) @ self

    __mul__ = __rmul__


def promote(a: LinOp, b: LinOp) -> tuple[LinOp, LinOp]:
    """Both operators in the richer structure of the two."""
    if a.rank == b.rank:
        return a, b
    return (a.lift(b), b) if a.rank < b.rank else (a, b.lift(a))


def _lead(a: Tensor, ndim: int) -> Tensor:
    """(b,) -> (b, 1, .., 1) with ndim axes; () stays."""
    return a if a.ndim == 0 else a.reshape(-1, *[1] * (ndim - 1))


@dataclass(frozen=True, eq=False)
class Scalar(LinOp):
    """a times the identity; ``param`` is a, of shape () or (b,)."""

    param: Tensor
    rank: ClassVar[int] = 0

    def apply(self, x: Tensor) -> Tensor:
        return _lead(self.param.to(x), x.ndim) * x

    def accumulate(self, base: Tensor, x: Tensor) -> Tensor:
        return base.addcmul_(_lead(self.param.to(x), x.ndim), x)

    def __rmul__(self, c: float | Tensor) -> Scalar:
        p = self.param
        return Scalar(torch.as_tensor(c, dtype=p.dtype, device=p.device) * p)

    __mul__ = __rmul__

    def lift(self, like: LinOp) -> LinOp:
        return _LIFT_SCALAR[like.rank](self, like)

    def compose(self, other: Scalar) -> Scalar:
        return Scalar(self.param * other.param)

    @property
    def T(self) -> Scalar:
        return self

    @property
    def inv(self) -> Scalar:
        return Scalar(1 / self.param)

    @property
    def chol(self) -> Scalar:
        return Scalar(root(self.param))

    @property
    def sqrt(self) -> Scalar:
        return self.chol

    def logdet(self, event: Event) -> Tensor:
        return prod(event) * self.param.reshape(-1).abs().log()

    def trace(self, event: Event) -> Tensor:
        return prod(event) * self.param.reshape(-1)

    @property
    def factors(self) -> list[float]:
        return self.param.reshape(-1).tolist()

    def terms(self, x: Tensor) -> list[Any]:
        return list(map(Number, self.factors))

    def unbatch(self) -> list[LinOp]:
        return [Scalar(a) for a in self.param.reshape(-1).unbind()]

    def per_step(self, x: Tensor) -> list[Any]:
        return [Factor(a) for a in self.param.to(x).reshape(-1).unbind()]

    def __getitem__(self, i: int) -> Scalar:
        return Scalar(self.param[i])


@dataclass(frozen=True, eq=False)
class Diag(LinOp):
    """One factor a coordinate; ``param`` is d, of shape (b, *event)."""

    param: Tensor
    rank: ClassVar[int] = 1

    def apply(self, x: Tensor) -> Tensor:
        return self.param.to(x) * x

    def accumulate(self, base: Tensor, x: Tensor) -> Tensor:
        return base.addcmul_(self.param.to(x), x)

    def per_step(self, x: Tensor) -> list[Any]:
        return [Factor(d) for d in self.param.to(x).split(1)]

    def lift(self, like: LinOp) -> LinOp:
        return self if like.rank == 1 else Mat(torch.diag_embed(self.param.movedim(1, -1)))

    def compose(self, other: Diag) -> Diag:
        return Diag(self.param * other.param)

    @property
    def T(self) -> Diag:
        return self

    @property
    def inv(self) -> Diag:
        return Diag(1 / self.param)

    @property
    def chol(self) -> Diag:
        return Diag(root(self.param))

    @property
    def sqrt(self) -> Diag:
        return self.chol

    def _full(self, event: Event) -> Tensor:
        return self.param.expand(-1, *event).flatten(1)

    def logdet(self, event: Event) -> Tensor:
        return self._full(event).abs().log().sum(1)

    def trace(self, event: Event) -> Tensor:
        return self._full(event).sum(1)


@dataclass(frozen=True, eq=False)
class Mat(LinOp):
    """A matrix on the first event axis; ``param`` is M, of shape (b, *rest, m, m)."""

    param: Tensor
    rank: ClassVar[int] = 2

    def apply(self, x: Tensor) -> Tensor:
        M = self.param.to(x)
        if M.ndim > 3:
            return (M @ x.movedim(1, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, 1)
        if M.shape[0] == 1 and x.ndim == 2:
            return x @ M[0].T
        if M.shape[0] == 1:  # one product; a broadcast matmul would be one small product a sample
            return torch.einsum("ij,bj...->bi...", M[0], x)
        return (M @ x.reshape(*x.shape[:2], -1)).reshape(x.shape)

    def lift(self, like: LinOp) -> LinOp:
        return self

    def compose(self, other: Mat) -> Mat:
        A, B = _align(self.param, other.param)
        return Mat(A @ B)

    def plus(self, other: Mat) -> Mat:
        A, B = _align(self.param, other.param)
        return Mat(A + B)

    @property
    def T(self) -> Mat:
        return Mat(self.param.mT)

    @property
    def inv(self) -> Mat:
        return Mat(inverse(self.param))

    @property
    def chol(self) -> Mat:
        return Mat(cholesky(self.param))

    @property
    def sqrt(self) -> Mat:
        return Mat(symmetric_root(self.param))

    def _spread(self, per_matrix: Tensor, event: Event) -> Tensor:
        """Sum one number a matrix over the coordinates that the matrix serves."""
        rest = event[1:]
        given = per_matrix.shape[1:] or (1,) * len(rest)
        b = per_matrix.shape[0]
        return per_matrix.reshape(b, *given).expand(-1, *rest).reshape(b, prod(rest)).sum(1)

    def logdet(self, event: Event) -> Tensor:
        return self._spread(torch.linalg.slogdet(self.param)[1], event)

    def trace(self, event: Event) -> Tensor:
        return self._spread(self.param.diagonal(dim1=-2, dim2=-1).sum(-1), event)


def _scalar_to_diag(a: Scalar, like: LinOp) -> LinOp:
    p = a.param.to(like.param)
    return Diag(_lead(p.reshape(-1), like.param.ndim).expand(-1, *like.param.shape[1:]))


def _scalar_to_mat(a: Scalar, like: LinOp) -> LinOp:
    p, m = a.param.to(like.param), like.param.shape[-1]
    eye = torch.eye(m, dtype=p.dtype, device=p.device)
    return Mat(_lead(p.reshape(-1), like.param.ndim) * eye)


_LIFT_SCALAR: dict[int, Callable[[Scalar, LinOp], LinOp]] = {
    0: lambda a, like: a,
    1: _scalar_to_diag,
    2: _scalar_to_mat,
}


def _align(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Give a (b, m, m) matrix the missing ``rest`` axes of the other."""
    ndim = max(A.ndim, B.ndim)

    def widen(M: Tensor) -> Tensor:
        return M.reshape(M.shape[0], *[1] * (ndim - M.ndim), *M.shape[1:])

    return widen(A), widen(B)

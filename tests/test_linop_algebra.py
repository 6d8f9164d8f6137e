"""Structured operators agree with dense matrices, whatever is combined with whatever."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labcore import Diag, InvalidProcess, LinOp, Mat, Scalar

F64 = torch.float64
EVENTS = [(3,), (2,), (1,), (2, 4), (3, 2, 2)]
KINDS = ["number", "scalar", "diag", "shared", "rest"]
B = 4


@dataclass(frozen=True)
class Case:
    """An operator and its dense matrices (b, D, D), written out from the parameters."""

    op: LinOp
    dense: Tensor


def case(kind: str, event: tuple[int, ...], b: int, seed: int, positive: bool = False) -> Case:
    g = torch.Generator().manual_seed(seed)
    m, rest = event[0], event[1:]
    D = torch.Size(event).numel()

    def draw(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=g, dtype=F64)
        return x.abs() + 0.1 if positive else x

    if kind in ("number", "scalar"):
        a = draw() if kind == "number" else draw(b)
        return Case(Scalar(a), a.reshape(-1, 1, 1) * torch.eye(D, dtype=F64))
    if kind == "diag":
        d = draw(b, *event)
        return Case(Diag(d), torch.diag_embed(d.reshape(b, D)))
    M = torch.randn(b, *(rest if kind == "rest" else ()), m, m, generator=g, dtype=F64)
    if positive:
        M = M @ M.mT + 0.1 * torch.eye(m, dtype=F64)
    R = torch.Size(rest).numel()
    blocks = (M if kind == "rest" else M.reshape(b, *[1] * len(rest), m, m)).expand(b, *rest, m, m)
    dense = torch.zeros(b, m, R, m, R, dtype=F64)
    for r, matrix in enumerate(blocks.reshape(b, R, m, m).unbind(1)):
        dense[:, :, r, :, r] = matrix
    return Case(Mat(M), dense.reshape(b, D, D))


def vectors(event: tuple[int, ...], seed: int = 99) -> Tensor:
    return torch.randn(B, *event, generator=torch.Generator().manual_seed(seed), dtype=F64)


def times(dense: Tensor, x: Tensor) -> Tensor:
    return (dense @ x.flatten(1).unsqueeze(-1)).reshape(x.shape)


events = st.sampled_from(EVENTS)
kinds = st.sampled_from(KINDS)
batches = st.sampled_from([1, B])
seeds = st.integers(0, 2**31)
cases = st.tuples(kinds, batches, seeds)
quick = settings(max_examples=150, deadline=None)


@quick
@given(events, cases)
def test_one_operator_agrees_with_its_dense_matrix(event, made):
    kind, b, seed = made
    c = case(kind, event, b, seed)
    x = vectors(event)
    torch.testing.assert_close(c.op.dense(event), c.dense)
    torch.testing.assert_close(c.op @ x, times(c.dense, x))
    base = vectors(event, 5)
    total = base + times(c.dense, x)
    torch.testing.assert_close(c.op.added(base, x), total)
    assert c.op.accumulate(base, x) is base
    torch.testing.assert_close(base, total)
    torch.testing.assert_close(c.op.T.dense(event), c.dense.mT)
    torch.testing.assert_close((-c.op).dense(event), -c.dense)
    torch.testing.assert_close(c.op.trace(event), c.dense.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(c.op.logdet(event), torch.linalg.slogdet(c.dense)[1])


@quick
@given(events, cases)
def test_inverse_root_and_factor_of_a_positive_operator(event, made):
    kind, b, seed = made
    c = case(kind, event, b, seed, positive=True)
    x = vectors(event)
    torch.testing.assert_close(c.op.inv @ (c.op @ x), x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(c.op.chol.dense(event), torch.linalg.cholesky(c.dense))
    root = c.op.sqrt.dense(event)
    torch.testing.assert_close(root, root.mT)
    torch.testing.assert_close(root @ root, c.dense)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_the_inverse_of_an_operator_that_is_not_symmetric(kind, event):
    op = case(kind, event, B, 7).op + Scalar(torch.tensor(6.0, dtype=F64))
    wanted = torch.linalg.inv(op.dense(event))
    torch.testing.assert_close(op.inv.dense(event), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(KINDS, KINDS)))
@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("batch", [(1, 1), (1, B), (B, 1), (B, B)], ids=str)
def test_two_operators_of_any_structures_add_and_compose(left, right, event, batch):
    a, b = case(left, event, batch[0], 1), case(right, event, batch[1], 2)
    x = vectors(event)
    torch.testing.assert_close((a.op @ b.op).dense(event), a.dense @ b.dense)
    torch.testing.assert_close((a.op + b.op).dense(event), a.dense + b.dense)
    torch.testing.assert_close((a.op - b.op).dense(event), a.dense - b.dense)
    torch.testing.assert_close((a.op @ b.op) @ x, times(a.dense @ b.dense, x))
    richer = max(KINDS.index(left), KINDS.index(right))
    wanted = [Scalar, Scalar, Diag, Mat, Mat][richer]
    assert type(a.op @ b.op) is wanted
    assert type(a.op + b.op) is wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_a_factor_is_a_number_a_tensor_or_one_a_batch_entry(kind, event):
    c = case(kind, event, B, 3)
    factors = torch.tensor([0.5, -2.0, 3.0, 0.0], dtype=F64)
    torch.testing.assert_close((2.5 * c.op).dense(event), 2.5 * c.dense)
    torch.testing.assert_close((c.op * factors[0]).dense(event), 0.5 * c.dense)
    torch.testing.assert_close((factors[1] * c.op).dense(event), -2.0 * c.dense)
    torch.testing.assert_close((factors * c.op).dense(event), factors[:, None, None] * c.dense)


@pytest.mark.parametrize("kind", ["scalar", "diag", "shared", "rest"])
def test_one_operator_is_picked_out_of_a_grid(kind):
    event = (2, 4)
    c, x = case(kind, event, B, 4), vectors(event)
    for i in (0, 2, -1):
        torch.testing.assert_close(c.op[i] @ x, times(c.dense[i], x))
    for op, dense in zip(c.op.unbatch(), c.dense, strict=True):
        torch.testing.assert_close(op @ x, times(dense, x))
    for op, dense in zip(c.op.per_step(x.float()), c.dense, strict=True):
        y, base = times(dense, x).float(), torch.ones_like(x, dtype=torch.float32)
        torch.testing.assert_close(op @ x.float(), y, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(op.added(base, x.float()), 1 + y, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(op.accumulate(base, x.float()), 1 + y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_follow_the_dtype_of_the_state(kind):
    event = (3, 2, 2)
    c, x = case(kind, event, B, 6), vectors(event)
    assert (c.op @ x.float()).dtype == torch.float32
    base = x.float()
    assert c.op.accumulate(base, x.float()).dtype == torch.float32
    assert c.op.to(x.float()).param.dtype == torch.float32


@settings(max_examples=100, deadline=None)
@given(events, st.tuples(cases, cases, cases))
def test_the_algebra_is_associative_and_distributes(event, three):
    a, b, c = (case(kind, event, n, seed).op for kind, n, seed in three)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(((a @ b) @ c).dense(event), (a @ (b @ c)).dense(event), **close)
    torch.testing.assert_close((a @ (b + c)).dense(event), (a @ b + a @ c).dense(event), **close)
    torch.testing.assert_close((a @ b).T.dense(event), (b.T @ a.T).dense(event), **close)
    n = max(a.dense(event).shape[0], b.dense(event).shape[0])
    total = (a.logdet(event) + b.logdet(event)).expand(n)
    torch.testing.assert_close((a @ b).logdet(event), total, rtol=1e-7, atol=1e-7)


def semidefinite(m: int, rank: int, b: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(m + rank)
    V = torch.randn(b, m, rank, generator=g, dtype=F64)
    return V @ V.mT


@pytest.mark.parametrize(("m", "rank"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (6, 4)])
def test_a_semidefinite_operator_has_a_lower_triangular_factor(m, rank):
    S = semidefinite(m, rank)
    L = Mat(S).chol.param
    torch.testing.assert_close(L @ L.mT, S, rtol=1e-7, atol=1e-7)
    assert torch.equal(L, L.tril())
    assert bool((L.diagonal(dim1=1, dim2=2) >= 0).all())


def test_the_noiseless_position_of_a_langevin_start_has_a_factor():
    S = torch.tensor([[[0.0, 0.0], [0.0, 0.09]]], dtype=F64)
    expected = torch.tensor([[[0.0, 0.0], [0.0, 0.3]]], dtype=F64)
    torch.testing.assert_close(Mat(S).chol.param, expected)


@pytest.mark.parametrize(
    "op",
    [
        Scalar(torch.tensor([1.0, -1e-9], dtype=F64)),
        Diag(torch.tensor([[1.0, -0.1]], dtype=F64)),
        Mat(torch.diag_embed(torch.tensor([[1.0, -0.1]], dtype=F64))),
        Mat(torch.diag_embed(torch.tensor([[1.0, 1.0, -0.1]], dtype=F64))),
        Mat(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]], dtype=F64)),
        Mat(torch.tensor([[[0.0, 1.0], [1.0, 1.0]]], dtype=F64)),
    ],
    ids=["scalar", "diag", "block", "dense", "indefinite", "zero pivot"],
)
def test_a_negative_eigenvalue_is_refused(op):
    for factor in ("chol", "sqrt"):
        with pytest.raises(InvalidProcess, match="positive semi-definite"):
            getattr(op, factor)


@pytest.mark.parametrize("m", [2, 3])
def test_the_inverse_of_a_singular_operator_is_not_finite(m):
    singular = Mat(torch.zeros(1, m, m, dtype=F64)).inv.param
    assert not bool(torch.isfinite(singular).any())
    assert Scalar(torch.tensor(0.0, dtype=F64)).inv.param.isinf()


@pytest.mark.parametrize("kind", ["scalar", "diag", "shared", "rest"])
def test_no_grid_points_make_no_numbers(kind):
    op = case(kind, (3, 2, 2), 0, 8).op
    assert op.logdet((3, 2, 2)).shape == op.trace((3, 2, 2)).shape == (0,)

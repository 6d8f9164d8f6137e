"""torchsde's methods on the reverse SDE: contract, orders, the library's own integrator."""

from collections.abc import Iterator
from itertools import pairwise
from math import sqrt

import pytest
import torch
import torchsde
from torch import Tensor

import labcore
from labcore import Entry, InvalidOption, Process
from labcore.noise import Noise, brownian, initial
from labcore.scores import counted
from labcore.testing import (
    audit,
    default_data,
    gaussian_score,
    quadratic,
    strong_order,
    vp,
)
from labcore_torchsde import register_samplers

FIXED = {entry.name: entry for entry in register_samplers() if not entry.traits.get("coupled")}
ITO = ("euler", "milstein", "srk")


@pytest.fixture(params=list(FIXED))
def entry(request: pytest.FixtureRequest) -> Entry:
    return FIXED[request.param]


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A field that is not affine, so that no term of an order condition vanishes."""
    return -x + 0.5 * torch.sin(2 * x)


def even(process: Process, n: int) -> Tensor:
    return torch.linspace(1.0, 0.1, n + 1, dtype=torch.float64)


def test_the_strong_order_on_a_bent_field_is_the_declared_one(entry: Entry) -> None:
    measured = strong_order(entry, vp(0.1, 2.0), bent, even, (1,), steps=(16, 32, 64, 128), n=2000)
    assert measured.slope == pytest.approx(entry.traits["strong"], abs=0.2)


class Library(torch.nn.Module):
    """The reverse SDE of VP with rate lam as torchsde documents an SDE, in u = -t."""

    noise_type = "additive"

    def __init__(self, sde_type: str, lam: float) -> None:
        super().__init__()
        self.sde_type, self.lam = sde_type, lam

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        b = 0.1 - 19.9 * u
        return 0.5 * b * x + (1 + self.lam**2) / 2 * b * bent(x, -u)

    def g(self, u: Tensor, x: Tensor) -> Tensor:
        b = 0.1 - 19.9 * u
        return self.lam * b.sqrt() * torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)


class Path(torchsde.BaseBrownian):
    """W and U = int W over a step, from the lab's noise, in the form torchsde documents."""

    dtype, device, levy_area_approximation = torch.float64, torch.device("cpu"), "foster"

    def __init__(self, noise: Noise, shape: tuple[int, int], area: bool) -> None:
        self.noise, self._shape, self.area = noise, shape, area

    shape = property(lambda self: self._shape)

    def __repr__(self) -> str:
        return "Path"

    def __call__(self, u0, u1=None, return_U=False, return_A=False):  # type: ignore
        h = float(u1 - u0)
        if not self.area:
            W = sqrt(h) * self.noise(-u0, -u1)
            return (W, torch.zeros(*self.shape, self.shape[1]).double()) if return_A else W
        z, k = self.noise.levy(-u0, -u1)
        return sqrt(h) * z, h**1.5 * (z / 2 + k / sqrt(12))


@pytest.mark.parametrize("lam", [1.0, 0.5])
def test_the_steps_are_those_of_torchsdes_own_integrator(entry: Entry, lam: float) -> None:
    """On equal steps of 2^-4, which sdeint takes exactly, and with a dense diffusion matrix."""
    ts = torch.linspace(1.0, 0.25, 13, dtype=torch.float64)
    x = initial([5], 3, (2,), dtype=torch.float64)
    ours = list(entry(vp(), bent, x, ts, brownian(ts, (2,), [1], 3, dtype=x.dtype), lam=lam))
    sde = Library("ito" if entry.name in ITO else "stratonovich", lam)
    noise = brownian(ts, (2,), [1], 3, dtype=x.dtype)
    theirs = torchsde.sdeint(
        sde,
        x,
        -ts[[0, -1]],
        bm=Path(noise, (3, 2), entry.name == "srk"),
        method=entry.name,
        dt=2.0**-4,
    )
    assert torch.allclose(ours[-1], theirs[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "evals", "extra"),
    [("euler", 1, 0), ("heun", 2, 0), ("srk", 2, 0), ("reversible_heun", 1, 1)],
)
def test_no_point_is_evaluated_twice(name: str, evals: int, extra: int) -> None:
    points: list[tuple[float, int]] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        points.append((float(t), hash(x.numpy().tobytes())))
        return bent(x, t)

    ts = quadratic(vp(), 9)
    x = initial([0], 2, (2,))
    for _ in FIXED[name](vp(), watched, x, ts, brownian(ts, (2,), [0], 2)):
        pass
    assert len(points) == len(set(points)) == 9 * evals + extra


def dense() -> Process:
    """dX = -X/2 dt + G dW with G G^T = S dense, on [0, 3]: everything in closed form."""
    S = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)

    def over(t: Tensor, M: Tensor) -> labcore.Mat:
        return labcore.Mat(t.reshape(-1, 1, 1) * M)

    eye = torch.eye(2, dtype=torch.float64)
    return Process(
        A=lambda t: over(-0.5 * torch.ones_like(t), eye),
        G=lambda t: over(torch.ones_like(t), torch.linalg.cholesky(S)),
        Phi=lambda t, s: over(torch.exp(-(t - s) / 2), eye),
        Sigma=lambda t: over(-torch.expm1(-t), S),
        T=3.0,
        t_eps=0.01,
        structure="dense",
        event_shape=(2,),
    )


def test_a_dense_diffusion_gives_the_exact_law(entry: Entry) -> None:
    """128 steps leave the error of the method's order; noise in wrong directions leaves 0.1."""
    process = dense()
    law = audit(entry, process, quadratic(process, 128), default_data(2))
    assert law.w2 < (0.02 if entry.traits["order"] == 1 else 1e-3)


def test_without_noise_it_is_the_probability_flow() -> None:
    ts = quadratic(vp(), 6)
    x = initial([0], 3, (2,), dtype=torch.float64)
    noise = brownian(ts, (2,), [0], 3, dtype=torch.float64)
    got = list(FIXED["euler"](vp(), bent, x, ts, noise, lam=0.0))
    v, y = labcore.velocity(vp(), bent), x
    for (t, s), state in zip(pairwise(ts), got, strict=True):
        y = y + (s - t) * v(t, y)
        assert torch.allclose(state, y, atol=1e-14)


def test_the_srk_pair_of_evaluations_beats_euler_by_far_at_equal_cost() -> None:
    score = gaussian_score(vp(), default_data(2), (2,))
    w2 = {}
    for name, steps in (("euler", 128), ("srk", 64)):
        ts = quadratic(vp(), steps)
        metered = counted(score, 1)
        noise = brownian(ts, (2,), [0], 1, dtype=torch.float64)
        for _ in FIXED[name](vp(), metered, torch.zeros(1, 2).double(), ts, noise):
            pass
        assert metered.nfe == 128
        w2[name] = audit(FIXED[name], vp(), ts, default_data(2)).w2
    assert w2["srk"] < w2["euler"] / 10


def test_a_negative_noise_rate_is_refused(entry: Entry) -> None:
    with pytest.raises(InvalidOption, match="lam=-1"):
        entry.bind({"lam": -1.0})


def test_states_are_handed_out_one_at_a_time(entry: Entry) -> None:
    ts = quadratic(vp(), 4)
    x = initial([0], 3, (2,))
    states = entry(vp(), bent, x, ts, brownian(ts, (2,), [0], 3))
    assert isinstance(states, Iterator)
    first = next(states)
    kept = first.clone()
    for _ in states:
        pass
    assert torch.equal(first, kept)

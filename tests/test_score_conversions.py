"""The five faces of one score: closed forms, round trips, and what the meter counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from labcore import (
    Process,
    Score,
    ScoreError,
    counted,
    eps_from_score,
    reverse_drift,
    score_from_energy,
    score_from_eps,
    score_from_v,
    score_from_x0,
    v_from_score,
    velocity,
    x0_from_score,
)
from labcore.noise import initial
from labcore.testing import default_data, gaussian_score
from labcore_linear import cld, diag_vp, edm, ou, rectified_flow, sigma_t, sub_vp, vp

F64 = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "sub_vp": sub_vp(),
    "sigma_t": sigma_t(),
    "edm": edm(),
    "flow": rectified_flow(),
    "diag": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}
each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
shares = pytest.mark.parametrize("share", [0.02, 0.3, 1.0], ids=["late", "middle", "T"])


def event_of(process: Process) -> tuple[int, ...]:
    return tuple(process.event(process.event_shape or (2,)))


def setting(process: Process, share: float) -> tuple[Score, Tensor, Tensor]:
    """The exact score of Gaussian data, states of the right size and one time for all."""
    event = process.event_shape or (2,)
    score = gaussian_score(process, default_data(2), event)
    x = process.prior().chol @ initial([0], 7, event_of(process), dtype=F64)
    return score, x, torch.tensor(share * process.T, dtype=F64)


@each
@shares
@pytest.mark.parametrize(
    ("there", "back"),
    [
        (eps_from_score, score_from_eps),
        (x0_from_score, score_from_x0),
        (v_from_score, score_from_v),
    ],
    ids=["eps", "x0", "v"],
)
def test_there_and_back_is_the_score(
    process: Process, share: float, there: Any, back: Any
) -> None:
    score, x, t = setting(process, share)
    torch.testing.assert_close(back(process, there(process, score))(x, t), score(x, t), **CLOSE)


@each
@shares
def test_the_networks_of_a_single_datum_are_what_they_were_trained_for(
    process: Process, share: float
) -> None:
    """x_t = Phi x0 + L z: then x0 is the clean state, eps is z and v is Phi z - L x0."""
    _, _, t = setting(process, share)
    event, zero = event_of(process), torch.zeros_like(t)
    z = initial([1], 5, event, dtype=F64)
    datum = torch.tensor([1.5, -0.5], dtype=F64).expand(5, 2)
    Phi, Sigma = process.Phi(t, zero), process.Sigma(t)
    clean, x = process.embed(datum), process.perturb(datum, t, z)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -(Sigma.inv @ (x - Phi @ clean))

    torch.testing.assert_close(eps_from_score(process, score)(x, t), z, **CLOSE)
    torch.testing.assert_close(x0_from_score(process, score)(x, t), clean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(score(x, t), -(Sigma.chol.inv.T @ z), **CLOSE)
    v = Phi @ z - Sigma.chol @ clean
    torch.testing.assert_close(v_from_score(process, score)(x, t), v, **CLOSE)


@shares
def test_the_scalar_forms_are_those_of_the_papers(share: float) -> None:
    """VP: s = -eps/sigma (Song 2021), v = alpha eps - sigma x0 (Salimans & Ho 2022); EDM:
    s = (D - x)/sigma^2 (Karras 2022, eq. 3)."""
    score, x, t = setting(vp(), share)
    alpha = math.exp(-(0.1 * float(t) + 19.9 * float(t) ** 2 / 2) / 2)
    sigma = math.sqrt(1 - alpha**2)
    eps = -sigma * score(x, t)
    x0 = (x - sigma * eps) / alpha
    torch.testing.assert_close(eps_from_score(vp(), score)(x, t), eps, **CLOSE)
    torch.testing.assert_close(x0_from_score(vp(), score)(x, t), x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        v_from_score(vp(), score)(x, t), alpha * eps - sigma * x0, rtol=1e-7, atol=1e-7
    )
    score, x, t = setting(edm(), share)
    D = x0_from_score(edm(), score)(x, t)
    torch.testing.assert_close(score(x, t), (D - x) / t**2, **CLOSE)


@each
@shares
def test_tweedie_is_the_posterior_mean_of_gaussian_data(process: Process, share: float) -> None:
    """E[x0 | x_t] by linear regression of the state at 0 on the state at t."""
    score, x, t = setting(process, share)
    data, event = default_data(2), event_of(process)
    D, zero = math.prod(event), torch.zeros_like(t)
    basis = process.embed(torch.eye(2, dtype=F64).reshape(2, *(process.event_shape or (2,))))
    lift = basis.reshape(2, -1).T
    mean, cov = lift @ data.means[0], lift @ data.covs[0] @ lift.T
    Phi = process.Phi(t, zero).dense(event)[0]
    total = Phi @ cov @ Phi.T + process.Sigma(t).dense(event)[0]
    gain = cov @ Phi.T @ torch.linalg.inv(total)
    wanted = mean + (x.reshape(-1, D) - Phi @ mean) @ gain.T
    got = x0_from_score(process, score)(x, t).reshape(-1, D)
    if process.structure == "channel":  # v_0 is noise: Sigma(t) carries it, so x0's v part is 0
        wanted[:, 2:] = 0.0
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@each
def test_times_may_be_shared_or_one_a_sample(process: Process) -> None:
    score, x, _ = setting(process, 0.5)
    times = torch.linspace(0.1, 0.9, len(x), dtype=F64) * process.T
    for convert in (eps_from_score, x0_from_score, v_from_score):
        field = convert(process, score)
        together = field(x, times)
        alone = torch.cat([field(x[i : i + 1], t) for i, t in enumerate(times)])
        torch.testing.assert_close(together, alone, **CLOSE)


@each
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_drift_is_the_reverse_equation(process: Process, lam: float) -> None:
    """A x - (1 + lam^2)/2 G G^T s, with dense matrices; lam = 0 is the velocity."""
    score, x, t = setting(process, 0.4)
    event = event_of(process)
    A, G = process.A(t).dense(event)[0], process.G(t).dense(event)[0]
    flat, s = x.flatten(1), score(x, t).flatten(1)
    wanted = flat @ A.T - (1 + lam**2) / 2 * s @ (G @ G.T).T
    got = reverse_drift(process, score, lam)(t, x)
    torch.testing.assert_close(got.flatten(1), wanted, **CLOSE)
    if lam == 0:
        torch.testing.assert_close(velocity(process, score)(t, x), got, rtol=0, atol=0)


@each
def test_the_velocity_transports_the_law(process: Process) -> None:
    """Continuity equation for Gaussians: dm/dt and dC/dt of the exact law are those of the
    affine field v(x) = v(m) + J (x - m): m' = v(m), C' = J C + C J^T."""
    from labcore.targets import state_law

    score, _, t = setting(process, 0.5)
    event, data = event_of(process), default_data(2)
    D, h = math.prod(event), 1e-4 * process.T
    laws = [state_law(process, data, t + k * h, process.event_shape or (2,)) for k in (-1, 0, 1)]
    rate_m = (laws[2].means[0] - laws[0].means[0]) / (2 * h)
    rate_C = (laws[2].covs[0] - laws[0].covs[0]) / (2 * h)
    m, C = laws[1].means[0], laws[1].covs[0]
    x = torch.cat([m[None], m + torch.eye(D, dtype=F64)]).reshape(-1, *event)
    v = velocity(process, score)(t, x).flatten(1)
    J = (v[1:] - v[0]).T
    torch.testing.assert_close(v[0], rate_m, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(J @ C + C @ J.T, rate_C, rtol=1e-4, atol=1e-4)


def test_an_energy_gives_its_negative_gradient() -> None:
    """E = |x - t|^4 / 4: s = -|x - t|^2 (x - t), under inference mode too."""

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return (x - t).square().sum(1).square() / 4

    x, t = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    wanted = -(x - 0.5).square().sum(1, keepdim=True) * (x - 0.5)
    with torch.inference_mode():
        got = score_from_energy(energy)(x, t)
    torch.testing.assert_close(got, wanted)
    leaf = x.clone().requires_grad_()
    assert not score_from_energy(energy)(leaf, t).requires_grad
    assert leaf.grad is None


@each
def test_single_precision_is_kept(process: Process) -> None:
    score, x, t = setting(process, 0.5)
    for convert in (eps_from_score, x0_from_score, v_from_score):
        single = convert(process, score)(x.float(), t)
        assert single.dtype == torch.float32
        double = convert(process, score)(x, t)
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


def test_the_meter_counts_rows() -> None:
    """Two copies of the batch in one call cost two; half a batch costs a half."""
    meter = counted(lambda x, t: -x, 8)
    t = torch.tensor(0.5)
    for rows, total in ((8, 1.0), (16, 3.0), (4, 3.5), (0, 3.5)):
        meter(torch.zeros(rows, 2), t)
        assert meter.nfe == total


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, t: x[:, :1],
        lambda x, t: x[:1],
        lambda x, t: x.sum(1),
        lambda x, t: x.double(),
        lambda x, t: x.reshape(-1),
    ],
    ids=["a column", "one row", "no event", "float64", "flat"],
)
def test_what_would_broadcast_silently_is_refused(wrong: Score) -> None:
    with pytest.raises(ScoreError, match=r"it returned .* it must return grad log p_t\(x\)"):
        counted(wrong, 4)(torch.zeros(4, 2), torch.tensor(0.5))

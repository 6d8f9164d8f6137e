"""Readings of a network's output: inverse to each other, the papers' coefficients where scalar."""

import math

import pytest
import torch
from torch import Tensor

from labcore import InvalidOption
from labcore.kernels import exact_kernel, perturbation_kernel
from labcore.models import Model
from labcore.parameterisations import PARAMETERISATIONS
from labcore_linear import cld, diag_vp, edm, ou, rotating, vp

PROCESSES = {f.name: f() for f in (vp, edm, diag_vp, ou, rotating, cld)}


def some(process: str, rows: int = 5) -> tuple[Tensor, Tensor]:
    made = PROCESSES[process]
    g = torch.Generator().manual_seed(0)
    event = made.event(made.event_shape or (2,))
    x, eps = torch.randn(2, rows, *event, generator=g, dtype=torch.float64)
    return x, eps


def free(y: Tensor, c: Tensor) -> Tensor:
    return y


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("process", PROCESSES)
def test_every_reading_and_its_inverse(process: str, shared: bool) -> None:
    made = PROCESSES[process]
    x, eps = some(process)
    t = torch.tensor(0.3) if shared else torch.linspace(0.1, 0.9, 5)
    at, _ = Model(free, made, dtype=torch.float64).at(t.double() * made.T)
    for name, reading in PARAMETERISATIONS.items():
        if name == "edm" and process == "cld":  # its c is singular: no inverse
            continue
        back = reading.eps(reading.output(eps, x, at), x, at)
        assert torch.allclose(back, eps, atol=1e-9), name


@pytest.mark.parametrize("process", ["vp", "edm", "diag_vp", "ou", "rotating", "cld"])
def test_every_reading_is_the_same_score_at_its_exact_output(process: str) -> None:
    made = PROCESSES[process]
    x, eps = some(process)
    t = torch.tensor(0.4 * made.T, dtype=torch.float64)
    at, _ = Model(free, made, dtype=torch.float64).at(t)
    wanted = -(made.Sigma(t).chol.inv.T @ eps)
    for name, reading in PARAMETERISATIONS.items():
        if name == "edm" and process == "cld":
            continue
        F = reading.output(eps, x, at)
        model = Model(lambda y, c, F=F: F, made, name, dtype=torch.float64)  # type: ignore[arg-type]
        assert torch.allclose(model(x, t), wanted, rtol=1e-9, atol=1e-9), name


def test_edm_has_the_coefficients_of_the_paper() -> None:
    sigma, std = 1.7, 0.5
    at, level = Model(free, edm(), "edm", data_std=std, dtype=torch.float64).at(
        torch.tensor(sigma, dtype=torch.float64)
    )
    both = sigma**2 + std**2
    assert float(at.K.param) == pytest.approx(std**2 / both, rel=1e-12)
    assert float(at.c.param) == pytest.approx(sigma * std / math.sqrt(both), rel=1e-12)
    assert float(at.whiten.param) == pytest.approx(1 / math.sqrt(both), rel=1e-12)
    assert float(level) == pytest.approx(math.log(sigma) / 4, rel=1e-12)


def test_the_zero_network_under_edm_is_exact_on_gaussian_data() -> None:
    std = 0.8
    for process in (vp(), cld(), ou()):
        model = Model(lambda y, c: 0 * y, process, "edm", data_std=std, dtype=torch.float64)
        event = process.event(process.event_shape or (2,))
        x = torch.randn(4, *event, generator=torch.Generator().manual_seed(1)).double()
        t = torch.tensor(0.3 * process.T, dtype=torch.float64)
        Phi, Sigma = process.Phi(t, 0 * t).dense(event)[0], process.Sigma(t).dense(event)[0]
        d = torch.Size(process.event_shape or (2,)).numel()
        lift = process.embed(torch.eye(d).double().reshape(d, *(process.event_shape or (2,))))
        E = lift.reshape(d, -1).T
        law = std**2 * Phi @ E @ E.T @ Phi.T + Sigma
        wanted = -torch.linalg.solve(law, x.flatten(1).T).T.reshape(x.shape)
        assert torch.allclose(model(x, t), wanted, rtol=1e-9, atol=1e-10)


def test_an_energy_is_its_score_integrated() -> None:
    process = vp()
    model = Model(
        lambda y, c: y.flatten(1).square().sum(1).cos(), process, "energy", dtype=torch.float64
    )
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(2)).double()
    t = torch.tensor(0.4, dtype=torch.float64)
    h, e = 1e-5, torch.eye(2).double()
    finite = torch.stack(
        [(model.log_prob(x + h * d, t) - model.log_prob(x - h * d, t)) / (2 * h) for d in e], 1
    )
    with torch.inference_mode():
        assert torch.allclose(model(x, t), finite, atol=1e-8)
    with pytest.raises(InvalidOption, match="no energy"):
        Model(free, process).energy(x, t)


@pytest.mark.parametrize("process", ["cld", "ou", "rotating"])
def test_the_table_is_the_process_at_any_time(process: str) -> None:
    made = PROCESSES[process]
    low = math.log(made.t_eps / made.T)
    u = torch.rand(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    t = made.T * torch.cat([(low * u).exp(), torch.tensor([1.0, made.t_eps / made.T])])
    table, exact = perturbation_kernel(made)(t), exact_kernel(made)(t)
    assert torch.allclose(table[2], exact[2], rtol=1e-8, atol=1e-6)
    for got, wanted in zip(table[:2], exact[:2], strict=True):
        rows = torch.linalg.vector_norm(wanted.param, dim=-1, keepdim=True)
        assert float(((got.param - wanted.param).abs() / rows).max()) < 1e-7

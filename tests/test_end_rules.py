"""How a run ends: at t_eps, at the conditional mean, or at 0 along the probability flow."""

import math

import pytest
import torch

import labcore
from labcore import Process, from_mixture, use
from labcore.expand import steps_within
from labcore.parts import Parts
from labcore.run import ENDS, run_cells
from labcore.study import CHOICES
from labcore.testing import default_data, gaussian
from labcore_linear import cld, diag_vp, edm, ou, sigma_t, time_of_log_snr, vp
from labcore_samplers.heun import heun
from labcore_scores import exact

F64 = torch.float64
PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "sigma_t": sigma_t(),
    "diag_vp": diag_vp(),
    "ou": ou(),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def covariance_at_0(process: Process, end: str, t: float) -> torch.Tensor:
    """Covariance of the data after the end rule, from samples of exactly p_t, in closed form."""
    event = process.event_shape or (2,)
    d = math.prod(event)
    data = default_data(d)
    score = exact(process, from_mixture(data, event))
    law = labcore.state_law(process, data, t, event)
    x = torch.cat([law.means, law.means + torch.linalg.cholesky(law.covs[0]).T])
    shaped = x.reshape(-1, *process.event(event))
    time = torch.tensor(t, dtype=F64)
    out = process.project(ENDS[end](process, shaped, time, score(shaped, time))).flatten(1)
    J = (out[1:] - out[0]).T
    torch.testing.assert_close(out[0], data.means[0], rtol=1e-8, atol=1e-9)
    return J @ J.T - data.covs[0]


def time_of(process: Process, noise: float) -> float:
    """When the ratio of noise to signal is ``noise``."""
    level = torch.tensor([-2 * math.log(noise)], dtype=F64)
    return float(time_of_log_snr(process, level, process.t_eps))


@each_process
@pytest.mark.parametrize(("end", "power"), [("denoise", 1), ("extrapolate", 2)])
def test_error_in_law_by_the_noise_left(process: Process, end: str, power: int) -> None:
    """Tweedie's mean loses variance in proportion to Sigma, the flow to Sigma^2."""
    times = [time_of(process, noise) for noise in (0.1, 0.05)]
    sigma = [float(process.Sigma(torch.tensor([t])).trace((2,))[0]) for t in times]
    errors = [float(covariance_at_0(process, end, t).norm()) for t in times]
    slope = math.log(errors[0] / errors[1]) / math.log(sigma[0] / sigma[1])
    assert slope == pytest.approx(power, abs=0.15)


@each_process
def test_extrapolation_is_the_flow_while_the_score_stands_still(process: Process) -> None:
    """For data N(0, c I), c large, the flow scales y = x / Phi by sqrt(c / (c + Sigma))."""
    d = math.prod(process.event_shape or (2,))
    c, t = 100.0, torch.tensor(time_of(process, 0.5), dtype=F64)
    data = gaussian(torch.zeros(d), c * torch.eye(d))
    event = process.event_shape or (2,)
    x = torch.ones(1, *process.event(event), dtype=F64)
    got = process.extrapolate(x, t, exact(process, from_mixture(data, event))(x, t)).flatten(1)
    Phi = process.Phi(t, torch.zeros_like(t)).dense(process.event(event))[0]
    y = (torch.linalg.inv(Phi) @ x.flatten(1).T).T
    noise = torch.linalg.inv(Phi) @ process.Sigma(t).dense(process.event(event))[0]
    noise = noise @ torch.linalg.inv(Phi).T / c
    series = y - 0.5 * y @ noise.T
    torch.testing.assert_close(got, series, rtol=1e-4, atol=1e-6)


def test_a_coordinate_without_noise_is_carried_back_alone() -> None:
    """CLD starts with noise on the velocity: Sigma(t|0), not Sigma(t), is what is undone."""
    process = cld()
    t = torch.tensor(1e-3, dtype=F64)
    x, score = torch.ones(1, 2, 1, dtype=F64), torch.full((1, 2, 1), 2.0, dtype=F64)
    zero = torch.zeros_like(t)
    Phi = process.Phi(t, zero).dense((2, 1))[0]
    S0, St = (process.Sigma(u).dense((2, 1))[0] for u in (zero, t))
    wanted = torch.linalg.solve(Phi, x.flatten() + 0.5 * (St - Phi @ S0 @ Phi.T) @ score.flatten())
    torch.testing.assert_close(process.extrapolate(x, t, score).flatten(), wanted)


def test_every_end_but_stop_costs_one_evaluation() -> None:
    assert {"stop", *ENDS} == set(CHOICES["end"])
    study = labcore.Study(
        name="ends",
        question="what does the last call buy?",
        target=use("gaussian"),
        process="vp",
        grid="log_snr",
        sampler="samplers:heun",
        nfe=21,
        end=list(CHOICES["end"]),
        n=50,
        metrics=["energy"],
    )
    registry = labcore.load_registry()
    nfe = {}
    for cell in study.cells(registry):
        (result,) = run_cells([cell], study.metric_uses(registry), Parts(registry))
        assert result.status == "ok", result.reason
        nfe[cell.end] = result.nfe
    assert nfe == {"stop": 20, "denoise": 21, "extrapolate": 21}
    assert steps_within(heun, 20, "extrapolate") == 9

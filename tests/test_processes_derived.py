"""What the core derives from Phi and Sigma: posterior, Tweedie, log-SNR and the frozen flow."""

from dataclasses import replace

import pytest
import torch

import labcore_linear
from labcore import Process
from labcore_linear import ornstein_uhlenbeck

F64 = torch.float64
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}
MATRIX = ["ou", "cld", "rotating"]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def inside(process: Process, *shares: float) -> torch.Tensor:
    return process.T * f64(*shares)


def test_the_posterior_of_a_vp_chain_is_that_of_ddpm():
    """Ho et al. (2020), eqs. 6-7, in terms of alpha_bar at two times."""
    process = ENTRIES["vp"]()
    s, t = f64(0.1, 0.4, 0.90), f64(0.11, 0.6, 0.91)
    bar_s, bar_t = (1 - process.Sigma(u).param for u in (s, t))
    beta = 1 - bar_t / bar_s
    K, C = process.posterior(s, t)
    torch.testing.assert_close(K.param, (bar_t / bar_s).sqrt() * (1 - bar_s) / (1 - bar_t))
    torch.testing.assert_close(C.param, (1 - bar_s) / (1 - bar_t) * beta)
    zero = torch.zeros_like(s)
    on_x0 = process.Phi(s, zero).param - K.param * process.Phi(t, zero).param
    torch.testing.assert_close(on_x0, bar_s.sqrt() * beta / (1 - bar_t))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_posterior_of_clean_data_has_no_spread(name):
    process = ENTRIES[name]()
    x0 = torch.ones(1, *(process.event_shape or (2,)), dtype=F64)
    state = process.event(x0.shape[1:])
    data = process.project(
        process.posterior(0.0, process.T)[1].dense(state)[0].reshape(-1, *state)
    )
    assert float(data.abs().max()) == 0


@pytest.mark.parametrize("name", MATRIX)
def test_the_posterior_covariance_stays_positive_over_the_whole_range(name):
    process = ENTRIES[name]()
    ts = torch.logspace(0, -12, 200, dtype=F64)
    s, t = process.T * 0.7 * (1 - ts), torch.full_like(ts, process.T * 0.7)
    event = process.event(process.event_shape or (1,))
    C = process.posterior(s, t)[1]
    assert torch.equal(C.dense(event), C.T.dense(event))
    assert bool(torch.isfinite(C.chol.dense(event)).all())


@pytest.mark.parametrize("name", ENTRIES)
def test_tweedie_finds_a_single_clean_point(name):
    process = ENTRIES[name]()
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(4, *(process.event_shape or (3,)), generator=g, dtype=F64)
    z = torch.randn(4, *process.event(x0.shape[1:]), generator=g, dtype=F64)
    for t in inside(process, 0.02, 0.3):
        x = process.perturb(x0, t, z)
        score = -(process.Sigma(t).inv @ (x - process.mean(x0, t)))
        found = process.tweedie(x, t, score)
        torch.testing.assert_close(process.project(found), x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ENTRIES)
def test_log_snr_falls_at_the_rate_of_the_noise(name):
    """d log_snr/dt = -tr(Sigma^-1 G G^T)/D."""
    process = ENTRIES[name]()
    event = process.event(process.event_shape or (1,))
    t = inside(process, 0.01, 0.2, 0.7)
    h = 1e-4 * t
    slope = (process.log_snr(t + h) - process.log_snr(t - h)) / (2 * h)
    pull = process.Sigma(t).inv @ process.GG(t)
    wanted = -pull.trace(event) / torch.Size(event).numel()
    torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=0)


def test_the_frozen_flow_of_uncoupled_coordinates_is_the_ratio_of_deviations():
    process = ornstein_uhlenbeck(torch.diag(f64(-1, -3)), torch.diag(f64(1, 2)), T=2.0, t_eps=1e-3)
    s, t = f64(0.01, 0.5), f64(0.5, 2.0)
    ratio = process.Sigma(s).param / process.Sigma(t).param
    wanted = torch.diag_embed(ratio.diagonal(dim1=1, dim2=2).sqrt())
    torch.testing.assert_close(process.Psi(s, t).param, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["ou", "cld"])
def test_the_frozen_flow_composes_and_takes_one_time_or_many(name):
    process = ENTRIES[name]()
    s, t, u = inside(process, 0.01, 0.03), inside(process, 0.2)[0], inside(process, 1.0)[0]
    whole = process.Psi(s, u).param
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close((process.Psi(s, t) @ process.Psi(t, u)).param, whole, **close)
    for i in range(2):
        torch.testing.assert_close(process.Psi(s[i], u).param, whole[i : i + 1], **close)
    torch.testing.assert_close(process.Psi(u, s).inv.param, whole, **close)


def test_the_frozen_flow_stays_within_the_times_of_the_process():
    asked = []
    process = ENTRIES["cld"]()

    def A(t):
        asked.extend(t.reshape(-1).tolist())
        return process.A(t)

    watched = replace(process, A=A)
    watched.Psi(f64(0.999), f64(0.5))
    watched.Psi(f64(process.t_eps), f64(0.5))
    assert process.t_eps * (1 - 1e-9) <= min(asked)
    assert max(asked) <= 0.999 * (1 + 1e-9)

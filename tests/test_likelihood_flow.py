"""log p_t by the probability-flow ODE: the exact density within the error it states."""

import math
from functools import cache

import pytest
import torch
from torch import Generator, Tensor

from labcore import (
    InvalidOption,
    MetricError,
    Mixture,
    Process,
    ScoreWith,
    Target,
    data_law,
    from_mixture,
)
from labcore_linear import register_processes
from labcore_scores.exact import exact
from labcore_torchdiffeq.bits import bits_per_dim, of_data
from labcore_torchdiffeq.density import directions, log_prior
from labcore_torchdiffeq.likelihood import Likelihood, log_likelihood, prior_kl

PROCESSES = {entry.name: entry for entry in register_processes()}
ROWS = 24
NAMES = ["vp", "edm", "cld", "ou", "diag_vp"]


def bent() -> Mixture:
    return Mixture(
        torch.tensor([0.5, 0.3, 0.2]).double(),
        torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -1.5]]).double(),
        torch.tensor(
            [[[0.25, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.4]], [[0.5, -0.2], [-0.2, 0.2]]]
        ).double(),
    )


def gaussian() -> Mixture:
    law = bent()
    return Mixture(torch.ones(1).double(), law.means[1:2], law.covs[2:])


LAWS = {"mixture": bent, "gaussian": gaussian}


@cache
def problem(process: str, law: str) -> tuple[Process, Target, ScoreWith, Tensor, Tensor]:
    """Process, target, exact score, states at t_eps and their exact log-density."""
    made, target = PROCESSES[process](), from_mixture(LAWS[law]())
    score = exact(made, target)
    g = Generator().manual_seed(0)
    z = torch.randn(ROWS, *made.event((2,)), generator=g, dtype=torch.float64)
    x = made.perturb(target.sample(ROWS, g).double(), made.t_eps, z)
    return made, target, score, x, score.log_prob(x, torch.tensor(made.t_eps).double())


@pytest.mark.parametrize(("name", "law"), [*((n, "mixture") for n in NAMES), ("edm", "gaussian")])
def test_the_exact_score_gives_the_exact_density_to_1e_4_nats_and_says_so(
    name: str, law: str
) -> None:
    process, _, score, x, truth = problem(name, law)
    got = log_likelihood(process, score, x, log_p_t=score.log_prob, start="exact")
    error = (got.value - truth).abs()
    assert (error <= got.budget.total).all()
    assert float(got.budget.total.max()) < 1e-4
    assert torch.equal(got.budget.prior, torch.zeros(ROWS).double())
    assert torch.equal(got.variance, torch.zeros(ROWS).double())


@pytest.mark.parametrize("name", ["vp", "edm", "ou"])
def test_from_the_prior_the_error_is_the_mismatch_at_the_end_of_the_path(name: str) -> None:
    process, _, score, x, truth = problem(name, "mixture")
    known = log_likelihood(process, score, x, log_p_t=score.log_prob, rtol=1e-5, atol=1e-5)
    error = (known.value - truth).abs()
    assert (error <= known.budget.total).all()
    assert torch.allclose(error, known.budget.prior, atol=1e-4)
    unknown = log_likelihood(process, score, x, rtol=1e-5, atol=1e-5)
    assert torch.equal(unknown.value, known.value)
    assert (error <= unknown.budget.total).all()


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_the_bound_of_the_prior_is_the_kl_divergence_of_points(name: str) -> None:
    """For data at one point x0 the bound is KL( N(Phi x0, Sigma) || N(0, Sigma) ) itself."""
    process = PROCESSES[name]()
    T = torch.tensor(process.T).double()
    x0 = torch.tensor([[1.5, -0.5]]).double()
    m, var = process.mean(x0, T), float(process.Sigma(T).param)
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(m, var * torch.eye(2).double()),
        torch.distributions.MultivariateNormal(0 * m, var * torch.eye(2).double()),
    )
    assert prior_kl(process, x0) == pytest.approx(float(kl), rel=1e-9)
    cloud = log_prior(process, m + var**0.5 * torch.randn(2, 2).double())
    assert cloud.shape == (2,)


@pytest.mark.parametrize("name", NAMES)
def test_truncation_is_what_noise_at_t_eps_does_to_the_density(name: str) -> None:
    process, _, score, x, truth = problem(name, "mixture")
    got = log_likelihood(
        process, score, x, log_p_t=score.log_prob, start="exact", rtol=1e-5, atol=1e-5
    )
    moved = (truth - score.log_prob(x, torch.tensor(0.0).double())).abs()
    if name == "cld":  # the variance of its velocities grows by 3/4 from 0 to t_eps
        assert (moved <= 3 * got.budget.truncation).all()
        return
    assert (moved <= got.budget.total_at_0).all()
    assert float(got.budget.truncation.max() / moved.max()) == pytest.approx(1, rel=0.05)


def test_a_standard_normal_is_integrated_without_error_in_a_few_steps() -> None:
    """w stands still: what is left of the integrand is rounding."""
    process = PROCESSES["vp"]()
    x = torch.randn(8, 3, generator=Generator().manual_seed(1), dtype=torch.float64)
    x = x / x.square().mean().sqrt()  # so that the scale measured is one
    e = torch.tensor(process.t_eps).double()
    back = float(process.Phi(e, torch.zeros(())).inv.param)
    scale = back**2 * float((x.square()).mean())  # the variance of the data taken out

    def score(y: Tensor, t: Tensor) -> Tensor:
        a = process.Phi(t, torch.zeros_like(t)).param
        return -y / (a**2 * scale + process.Sigma(t).param)

    got = log_likelihood(process, score, x)
    a2 = float(process.Phi(e, torch.zeros(())).param) ** 2 * scale + float(process.Sigma(e).param)
    T = torch.tensor(process.T).double()
    aT2 = float(process.Phi(T, torch.zeros(())).param) ** 2 * scale + float(process.prior().param)
    x_T = x * math.sqrt(aT2 / a2)
    expected = log_prior(process, x_T) + 1.5 * math.log(aT2 / a2)
    assert torch.allclose(got.value, expected, atol=1e-11)
    assert got.nfe <= 200  # two solutions of six steps
    assert float(got.budget.ode.max()) < 1e-10


def test_a_batch_and_its_samples_alone_have_the_same_density() -> None:
    process, _, score, x, _ = problem("vp", "mixture")
    options = {"log_p_t": score.log_prob, "start": "exact", "rtol": 1e-5, "atol": 1e-5}
    whole = log_likelihood(process, score, x[:4], **options)  # type: ignore[arg-type]
    for i in (0, 3):
        alone = log_likelihood(process, score, x[i : i + 1], **options)  # type: ignore[arg-type]
        assert abs(float(alone.value - whole.value[i])) < 1e-4


def hutchinson(seed: int, probes: int) -> Likelihood:
    process, _, score, x, _ = problem("vp", "mixture")
    return log_likelihood(
        process,
        score,
        x,
        log_p_t=score.log_prob,
        start="exact",
        probes=probes,
        generator=Generator().manual_seed(seed),
        rtol=1e-5,
        atol=1e-5,
    )


def test_probes_estimate_the_trace_with_the_variance_they_state() -> None:
    truth = problem("vp", "mixture")[4]
    runs = [hutchinson(seed, 16) for seed in range(3)]
    errors = torch.stack([run.value - truth for run in runs])
    totals = torch.stack([run.budget.total for run in runs])
    assert (errors.abs() <= totals).double().mean() > 0.96
    z2 = errors.square().sum() / torch.stack([run.variance for run in runs]).sum()
    assert 0.6 < float(z2) < 1.6  # 72 errors of 15 degrees of freedom, in units of the stated
    more = hutchinson(0, 64)
    ratio = more.variance.mean() / torch.stack([run.variance for run in runs]).mean()
    assert float(ratio) == pytest.approx(0.25, rel=0.3)


def test_the_basis_as_probes_is_the_exact_trace() -> None:
    _, _, _, x, _ = problem("cld", "mixture")
    basis = directions(x, 0, None)
    assert torch.equal(basis.flatten(1), torch.eye(4).double())
    signs = directions(x, 3, Generator().manual_seed(0))
    assert signs.shape == (3, *x.shape)
    assert torch.equal(signs.square(), torch.ones_like(signs))


@pytest.mark.parametrize("name", ["vp", "cld"])
def test_the_density_of_data_is_that_of_states_with_the_rest_drawn(name: str) -> None:
    process, target, score, x, _ = problem(name, "mixture")
    assert target.mixture is not None
    e, data = process.t_eps, process.project(x)
    t = torch.tensor(e).double()
    got = of_data(
        process,
        lambda y: score.log_prob(y, t),
        data,
        t=e,
        generator=Generator().manual_seed(0),
        draws=4000,
    )
    truth = data_law(process, target.mixture, e, (2,)).log_prob(data)
    assert (((got.value - truth) / got.error.clamp_min(1e-9)).abs() < 4).all()


def test_levels_of_known_probability_have_their_own_bits() -> None:
    """A density that is constant on each cell: every draw gives -log2 P / D."""
    d, D = 0.125, 3
    P = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()

    def log_prob(y: Tensor) -> Tensor:
        level = ((y + 1) / d).round().long().clamp(0, 3)
        return (P[level] / d).log().sum(1)

    levels = torch.multinomial(P, 300, replacement=True, generator=Generator().manual_seed(2))
    k = levels.reshape(100, D)
    got = bits_per_dim(
        log_prob, d * k.double() - 1, spacing=d, generator=Generator().manual_seed(0), draws=2
    )
    assert torch.allclose(got.value, -P[k].log2().mean(1), atol=1e-12)
    assert float(got.error.max()) < 1e-12


def test_bits_of_a_normal_near_those_of_its_cells() -> None:
    """P(k) by the error function; one draw is above it on average, many are at it."""
    normal, d = torch.distributions.Normal(0.0, 0.3), 0.5
    k = torch.arange(-2, 3).double()
    x = (d * k)[:, None]
    P = normal.cdf(d * (k + 0.5)) - normal.cdf(d * (k - 0.5))

    def log_prob(y: Tensor) -> Tensor:
        return normal.log_prob(y).sum(1)

    g = Generator().manual_seed(0)
    many = bits_per_dim(log_prob, x, spacing=d, generator=g, draws=4000)
    assert (((many.value + P.log2()) / many.error).abs() < 4).all()
    one = bits_per_dim(log_prob, x.repeat(500, 1), spacing=d, generator=g)
    assert (one.value.reshape(500, 5).mean(0) > -P.log2() + 0.01).all()
    assert one.error.isinf().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probes": 1}, "at least 2"),
        ({"probes": 4}, "generator"),
        ({"start": "exact", "rtol": 1e-5, "atol": 1e-5}, "log_p_t"),
        ({"t_eps": 2.0}, "t_eps"),
        ({"method": "rk4"}, "method"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, object], said: str) -> None:
    process, _, score, x, _ = problem("vp", "mixture")
    with pytest.raises(InvalidOption, match=said):
        log_likelihood(process, score, x, **options)  # type: ignore[arg-type]


def test_a_score_without_gradient_nan_and_endless_work_are_told() -> None:
    process, _, score, x, _ = problem("vp", "mixture")
    with pytest.raises(MetricError, match="no gradient"):
        log_likelihood(process, lambda y, t: -y.detach(), x)
    with pytest.raises(MetricError, match="NaN"):
        log_likelihood(process, lambda y, t: y * math.nan, x)
    with pytest.raises(MetricError, match="used up"):
        log_likelihood(process, score, x, max_nfe=40)
    noise = Generator().manual_seed(0)

    def rough(y: Tensor, t: Tensor) -> Tensor:
        return -y * (1 + 1e-2 * torch.randn(y.shape, generator=noise, dtype=y.dtype))

    with pytest.raises(MetricError, match="loosen"):
        log_likelihood(process, rough, x)

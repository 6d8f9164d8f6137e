"""EDM's samplers and LMS agree with k-diffusion, an independent implementation, and with heun.

Where they differ:

- k-diffusion's grids end at sigma = 0 with a step of Euler's. Ours stop at t_eps > 0; that
  step is Tweedie's formula, which a study asks for with end="denoise" (tested below).
- At the first step of the grid it may churn to a level above the largest one, where the process
  has no law. Ours never does: compared with S_tmax below the first level.
- gamma = min(S_churn/N, sqrt(2) - 1) takes its N, and so counts the step to 0, which ours has not.
- sample_lms integrates its weights by adaptive quadrature to 1e-4 relative; ours are exact.
- It has no ipndm; that one is compared with diffusers.
"""

from collections.abc import Iterator

import kdiffusion
import pytest
import torch
from torch import Tensor

from labcore.noise import brownian, initial, replay
from labcore.testing import audit, default_data, gaussian_score
from labcore.testing.models import quadratic
from labcore_linear import cld, diag_vp, edm, vp
from labcore_samplers import dpm_2, edm_churn, edm_heun, heun, lms

sampling = kdiffusion.sampling()

F64, ROWS = torch.float64, 32
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EXACT = {"rtol": 1e-11, "atol": 1e-11}
MODES = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=F64)


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x] for three isotropic Gaussians of variance 0.1."""
    v = sigma.reshape(-1, 1) ** 2
    delta = MODES - x[:, None]
    weight = (-delta.square().sum(-1) / (2 * (0.1 + v))).softmax(1)
    return x + v / (0.1 + v) * (weight[..., None] * delta).sum(1)


def score(x: Tensor, t: Tensor) -> Tensor:
    return (denoise(x, t) - x) / t**2


def levels(n: int) -> Tensor:
    """Karras' levels in float64; k-diffusion gets a 0 after them where the test says so."""
    ramp = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), n, dtype=F64)
    return ramp**7


def start() -> Tensor:
    return 80 * initial([0], ROWS, (2,), dtype=F64)


def draws(n: int) -> Tensor:
    return initial([0], n * ROWS, (2,), name="draws", dtype=F64).reshape(n, ROWS, 2)


def states(sample: str, sigmas: Tensor, **options: object) -> list[Tensor]:
    """x at sigmas[1:]."""
    seen: list[Tensor] = []
    last = getattr(sampling, f"sample_{sample}")(
        denoise, start(), sigmas, callback=lambda of: seen.append(of["x"]), disable=True, **options
    )
    return [*seen[1:], last]


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (edm_heun, "heun", {}),
        (heun, "heun", {}),
        (dpm_2, "dpm_2", {}),
        *((lms, "lms", {"k": k}) for k in (1, 2, 3, 4)),
    ],
)
def test_states_are_those_of_k_diffusion(ours, theirs, options) -> None:  # type: ignore[no-untyped-def]
    sigmas = levels(25)
    named = {"order": options["k"]} if options else {}
    wanted = states(theirs, sigmas, **named)
    got = list(ours(edm(), score, start(), sigmas, replay(draws(1)), **options))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("n", [12, 24])
@pytest.mark.parametrize(
    "options",
    [
        {"S_churn": 2.0},
        {"S_churn": 1.5, "S_noise": 0.9},
        {"S_churn": 3.0, "S_tmin": 0.05, "S_noise": 1.003},
    ],
)
def test_churn_is_that_of_k_diffusion_on_the_same_noise(
    options: dict[str, float], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigmas = levels(25)[: n + 1]
    z, used = draws(25), iter(range(25))
    monkeypatch.setattr(sampling.torch, "randn_like", lambda x: z[next(used)])
    options = {**options, "S_tmax": 79.0}
    wanted = states("heun", sigmas, **{name.lower(): value for name, value in options.items()})[-1]
    # They draw at every step, churned or not; ours where the level rises.
    steps = {float(t): i for i, t in enumerate(sigmas)}

    def noise(t: Tensor, s: Tensor, stream: str = "") -> Tensor:
        assert stream == "churn"
        return z[steps[float(t)]]

    *_, got = edm_churn(edm(), score, start(), sigmas, noise, **options)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_their_last_step_to_0_is_tweedies_formula() -> None:
    sigmas = levels(25)
    wanted = states("heun", torch.cat([sigmas, torch.zeros(1, dtype=F64)]))[-1]
    *_, x = edm_heun(edm(), score, start(), sigmas, replay(draws(1)))
    denoised = edm().tweedie(x, sigmas[-1], score(x, sigmas[-1]))
    torch.testing.assert_close(denoised, wanted, **CLOSE)


@pytest.mark.parametrize("process", [edm(), vp(), diag_vp(), cld()], ids=lambda p: p.structure)
def test_churn_of_any_size_does_not_leave_the_grid(process: object) -> None:
    seen: list[float] = []
    event = process.event_shape or (2,)  # type: ignore[attr-defined]
    exact = gaussian_score(process, default_data(2), event)  # type: ignore[arg-type]

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        return exact(x, t)

    ts = torch.linspace(process.T, process.t_eps, 6, dtype=F64)  # type: ignore[attr-defined]
    state = process.event(event)  # type: ignore[attr-defined]
    z = initial([0], 6 * 4, state, dtype=F64).reshape(6, 4, *state)
    *_, x = edm_churn(process, watched, z[0], ts, replay(z), S_churn=1e6)
    assert bool(x.isfinite().all())
    assert seen[0] == max(seen) == float(ts[0])
    assert min(seen) == float(ts[-1])
    assert any(t not in ts for t in seen)


def runs() -> Iterator[tuple[str, float]]:
    yield from (("S_noise", 1.0), ("S_noise", 1.01))


@pytest.mark.parametrize("S_churn", [1e-15, 1e-14, 1e-9])
@pytest.mark.parametrize("n", [10, 40])
def test_next_to_no_churn_is_next_to_none(n: int, S_churn: float) -> None:
    """Its kick is of size sqrt(2 gamma) times the noise, gamma = S_churn/N."""
    process, x = vp(), initial([0], 4, (2,), dtype=torch.float64)
    score, ts = gaussian_score(process, default_data(2), (2,)), quadratic(process, n)
    noise = brownian(ts, (2,), [0], 4, dtype=torch.float64)
    *_, churned = edm_churn(process, score, x, ts, noise, S_churn=S_churn)
    *_, plain = edm_heun(process, score, x, ts, noise)
    assert (churned - plain).abs().max() < 10 * n * (2 * S_churn / n) ** 0.5


def test_noise_of_another_size_changes_the_law_that_is_reached() -> None:
    """At S_noise = 1 churn keeps the exact law, at 1.01 the limit is another."""
    process = vp()
    found = {
        value: [
            audit(
                edm_churn,
                process,
                torch.linspace(1, 0.02, n + 1, dtype=F64),
                default_data(2),
                options={"S_churn": 4.0, name: value},
            ).w2
            for n in (100, 200)
        ]
        for name, value in runs()
    }
    assert found[1.0][1] < found[1.0][0] / 3
    assert found[1.01][1] > 5 * found[1.0][1]

"""Objectives against each other and against dense matrices: one minimiser, told in many ways."""

import math
from dataclasses import replace

import pytest
import torch
from objectives import PROCESSES, Smooth, agrees, data, event_of, objective, replayed, smooth
from torch import Generator, Tensor

from labcore import InvalidOption, Mat, Model, Process, Target
from labcore_linear import cld, ou, vp
from labcore_objectives import matching
from labcore_objectives.matching import parzen_eps
from labcore_scores.empirical import empirical


def losses(text: str, model: Model, n: int, seed: int = 1, data_seed: int = 0) -> Tensor:
    x0 = data(model.process, n, data_seed)
    loss: Tensor = objective(text, model.process)(model, x0, Generator().manual_seed(seed))
    return loss.detach()


def dense(process: Process, model: Model, t: Tensor) -> tuple[Tensor, ...]:
    """Phi, L, Sigma and G as matrices (B, D, D)."""
    event = process.event(event_of(process))
    at, _ = model.at(t)
    ops = at.exact_Phi, at.exact_L, process.Sigma(t), process.G(t)
    D = math.prod(event)
    return tuple(op.dense(event).expand(len(t), D, D) for op in ops)


def times(M: Tensor, x: Tensor) -> Tensor:
    return (M @ x.flatten(1)[..., None])[..., 0]


@pytest.mark.parametrize("reading", ["eps", "energy"])
@pytest.mark.parametrize("process", ["vp", "diag_vp", "ou", "cld"])
def test_denoising_is_implicit_plus_the_dimension_in_expectation(
    process: str, reading: str
) -> None:
    sizes = (0.0, 1.0, 2.0)  # a loss is a parabola in the size: the same at three, the same at all
    D = math.prod(PROCESSES[process].event(event_of(PROCESSES[process])))
    for size in sizes:
        model = smooth(process, reading, size)
        a, b = losses("dsm", model, 20_000), losses("ism", model, 20_000)
        assert agrees(a - b - D, D), size


@pytest.mark.parametrize("reading", ["eps", "score", "x0", "v", "edm", "energy"])
@pytest.mark.parametrize("process", PROCESSES)
def test_what_objectives_see_is_the_models_score_in_units_of_the_noise(
    process: str, reading: str
) -> None:
    made, model = PROCESSES[process], smooth(process, reading)
    t, x, _ = replayed(made, model, data(made, 20), 1)
    _, L, *_ = dense(made, model, t)
    wanted = -times(L.mT, model(x, t).flatten(1))
    assert torch.allclose(model.eps(x, t).flatten(1), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", ["vp", "ou", "cld"])
def test_implicit_matching_has_the_trace_of_the_jacobian(process: str) -> None:
    made, model = PROCESSES[process], smooth(process, "v")
    x0 = data(made, 50)
    t, x, _ = replayed(made, model, x0, 1)
    _, L, *_ = dense(made, model, t)
    D = L.shape[-1]

    def eps(row: Tensor, time: Tensor) -> Tensor:
        return model.eps(row[None], time[None])[0]

    jacobians = [
        torch.autograd.functional.jacobian(lambda row, time=time: eps(row, time), row)
        for row, time in zip(x, t, strict=True)
    ]
    J = torch.stack(jacobians).reshape(-1, D, D)
    wanted = model.eps(x, t).flatten(1).square().sum(1) - 2 * torch.einsum("bij,bji->b", J, L)
    assert torch.allclose(losses("ism", model, 50), wanted.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "probed",
    [
        "ism(trace='hutchinson')",
        "ism(trace='hutchinson', probes_each=3)",
        "ssm",
        "ssm(slices=3)",
        "ssm(reduced=False)",
        "ssm(reduced=False, slices=2)",
    ],
)
@pytest.mark.parametrize("process", ["vp", "ou", "cld"])
def test_probes_are_the_exact_trace_in_expectation(process: str, probed: str) -> None:
    for reading in ("eps", "energy"):
        model = smooth(process, reading)
        off = losses(probed, model, 20_000) - losses("ism", model, 20_000)
        assert float(off.std()) > 0.01
        assert agrees(off, 2.0, sharp=0.1)


def test_more_probes_and_reduction_lessen_the_variance() -> None:
    model = smooth("vp")
    exact = losses("ism", model, 5_000)

    def excess(text: str) -> float:
        return float((losses(text, model, 5_000) - exact).var())

    assert excess("ssm") < 0.7 * excess("ssm(reduced=False)")
    assert excess("ssm(slices=4)") == pytest.approx(excess("ssm") / 4, rel=0.25)
    assert excess("ism(trace='hutchinson')") < excess("ssm")


@pytest.mark.parametrize("process", PROCESSES)
def test_the_parzen_target_is_the_score_of_the_batch(
    process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, model = PROCESSES[process], smooth(process)
    x0 = data(made, 40)
    t, x, _ = replayed(made, model, x0, 1)
    batch = Target(event_of(made), lambda n, g: x0[:n], data=x0)
    wanted = empirical(made, batch)(x, t)
    _, L, *_ = dense(made, model, t)
    at, _ = model.at(t)
    got = parzen_eps(made, x, at, x0)
    assert torch.allclose(-times(L.mT, wanted), got.flatten(1), rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(matching, "_BLOCK", 500)
    assert torch.allclose(got, parzen_eps(made, x, at, x0), rtol=1e-12)
    shared, _ = model.at(t[3])
    one = parzen_eps(made, x[3:4], shared, x0)
    assert torch.allclose(one, got[3:4], rtol=1e-9, atol=1e-9)


def test_explicit_matching_is_denoising_with_a_calmer_target() -> None:
    model = smooth("vp", size=0.0)
    parzen, single = losses("esm", model, 2_000), losses("dsm", model, 2_000)
    # E|z|^2 = E|E[z|x]|^2 + E tr Cov(z|x): the target that is left is the smaller part
    assert float(parzen.mean()) < 0.9 * float(single.mean())


@pytest.mark.parametrize("process", PROCESSES)
def test_the_weights_are_those_of_the_papers(process: str) -> None:
    made, model = PROCESSES[process], smooth(process, "x0")
    x0, D = data(made, 60), math.prod(made.event(event_of(made)))
    t, x, z = replayed(made, model, x0, 1)
    Phi, L, Sigma, G = dense(made, model, t)
    with torch.no_grad():
        s = model(x, t).flatten(1)
    start = made.embed(x0).flatten(1)
    wanted = -torch.linalg.solve(Sigma, (x.flatten(1) - times(Phi, start))[..., None])[..., 0]
    plain = (times(L.mT, s) + z.flatten(1)).square().sum(1)
    assert torch.allclose(losses("dsm", model, 60), plain, rtol=1e-6)
    bound = times(G.mT, s - wanted).square().sum(1)
    assert torch.allclose(losses("dsm(weight='likelihood')", model, 60), bound, rtol=1e-5)
    snr = ((2 * torch.linalg.slogdet(Phi)[1] - torch.linalg.slogdet(Sigma)[1]) / D).exp()
    edm = (1 / snr + model.data_std**2) * snr / model.data_std**2 * plain / snr
    got = losses("dsm(weight='edm')", model, 60)
    assert torch.allclose(got, edm, rtol=1e-5)
    got = losses("dsm(weight='min_snr')", model, 60)
    assert torch.allclose(got, snr.clamp(max=5) * plain / snr, rtol=1e-5)
    if made.structure == "scalar":  # lambda(sigma) |D - x0|^2, D the denoiser
        denoised = made.tweedie(x, t, s.reshape(x.shape))
        off = (denoised - x0).square().sum(1)
        sigma, d = snr.rsqrt(), model.data_std
        lam = (sigma**2 + d**2) / (sigma * d) ** 2
        assert torch.allclose(losses("dsm(weight='edm')", model, 60), lam * off, rtol=1e-5)
        assert torch.allclose(got, snr.clamp(max=5) * off, rtol=1e-5)


@pytest.mark.parametrize("weight", ["sigma2", "likelihood", "edm", "min_snr"])
def test_dense_diagonal_and_block_processes_have_the_scalar_loss_where_they_are_scalar(
    weight: str,
) -> None:
    rate = 3.0
    scalar = vp(b0=rate, b1=rate)
    eye = torch.eye(2, dtype=torch.float64)
    drift, noise = (-rate / 2 * eye).tolist(), (math.sqrt(rate) * eye).tolist()
    matrix = ou(A=drift, G=noise, T=scalar.T, t_eps=scalar.t_eps)
    text, x0 = f"dsm(weight='{weight}')", data(scalar, 200)
    one = [
        objective(text, p)(
            Model(Smooth(2), p, "edm", dtype=torch.float64), x0, Generator().manual_seed(1)
        )
        for p in (scalar, matrix)
    ]
    assert torch.allclose(one[0], one[1], rtol=1e-9, atol=1e-12)


def blocks_of(process: Process) -> Process:
    """The same scalar process on two channels, by 2 x 2 matrices."""
    eye = torch.eye(2, dtype=torch.float64)

    def lifted(t: Tensor, param: Tensor) -> Mat:
        return Mat(param.reshape(-1, 1, 1) * eye)

    return replace(
        process,
        A=lambda t: lifted(t, process.A(t).param),
        G=lambda t: lifted(t, process.G(t).param),
        Phi=lambda t, s: lifted(t, process.Phi(t, s).param),
        Sigma=lambda t: lifted(t, process.Sigma(t).param),
        closed_Q=None,
        structure="channel",
        channels=2,
    )


@pytest.mark.parametrize("text", ["dsm", "dsm(weight='likelihood')", "ism", "ssm", "esm"])
def test_channels_have_the_scalar_loss_where_they_are_scalar(text: str) -> None:
    scalar = vp()
    channels, x0 = blocks_of(scalar), data(scalar, 60)
    net = Smooth(4)
    two = Model(net, channels, "eps", dtype=torch.float64)
    # the input's variance is that of the data in one channel, of noise alone in the other
    t, *_ = replayed(channels, two, x0, 1)
    whiten = {float(time): two.at(t)[0].whiten[i] for i, time in enumerate(t)}

    def seen(y: Tensor, c: Tensor) -> Tensor:  # undo the scalar scale and apply that of channels
        x = one.at(t)[0].whiten.inv @ y
        return net(two.at(t)[0].whiten @ x, c)

    one = Model(seen, scalar, "eps", dtype=torch.float64)
    assert len(whiten) == len(t)
    state = channels.embed(x0)
    got = objective(text, channels)(two, x0, Generator().manual_seed(1))
    wanted = objective(text, scalar)(one, state, Generator().manual_seed(1))
    assert torch.allclose(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("reading", ["eps", "score", "v"])
def test_langevin_in_blocks_is_the_dense_process_of_its_matrices(reading: str) -> None:
    blocks = cld()
    zero = torch.zeros(1, dtype=torch.float64)
    state = blocks.event((1,))
    matrices = [op(zero).dense(state)[0].tolist() for op in (blocks.A, blocks.G)]
    resting = ou(A=matrices[0], G=matrices[1], T=blocks.T, t_eps=blocks.t_eps)
    start = blocks.Sigma(zero).dense(state)[0]

    def Sigma(t: Tensor) -> Mat:
        carry = resting.Phi(t, torch.zeros_like(t)).dense((2,))
        return Mat(resting.Sigma(t).dense((2,)) + carry @ start @ carry.mT)

    flat = replace(resting, Sigma=Sigma)
    x0 = data(flat, 100)[:, :1]
    net = Smooth(2)
    by_block = Model(net, blocks, reading, dtype=torch.float64)  # type: ignore[arg-type]
    t, *_ = replayed(blocks, by_block, x0, 1)

    def seen(y: Tensor, c: Tensor) -> Tensor:
        x = dense_model.at(t)[0].whiten.inv @ y
        return net((by_block.at(t)[0].whiten @ x[..., None])[..., 0], c)

    dense_model = Model(seen, flat, reading, dtype=torch.float64)  # type: ignore[arg-type]
    padded = blocks.embed(x0)[..., 0]
    for text in ("dsm", "dsm(weight='likelihood')"):
        got = objective(text, blocks)(by_block, x0, Generator().manual_seed(1))
        wanted = objective(text, flat)(dense_model, padded, Generator().manual_seed(1))
        assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-9)


def test_hybrid_matching_is_the_part_of_the_velocity() -> None:
    made, model = PROCESSES["cld"], smooth("cld", "v")
    x0 = data(made, 100)
    t, x, _ = replayed(made, model, x0, 1)
    Phi, L, Sigma, _ = dense(made, model, t)
    mean = times(Phi, made.embed(x0).flatten(1))
    wanted = -torch.linalg.solve(Sigma, (x.flatten(1) - mean)[..., None])[..., 0]
    with torch.no_grad():
        off = (model(x, t).flatten(1) - wanted)[:, 2:]  # the channels: positions, then velocities
    width = L[:, 2, 2]
    by_hand = width.square() * off.square().sum(1)
    assert torch.allclose(losses("hsm", model, 100), by_hand, rtol=1e-6)
    with pytest.raises(InvalidOption, match="needs added channels"):
        objective("hsm", PROCESSES["vp"])

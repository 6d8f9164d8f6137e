"""Scores that others trained give what their libraries give, and nothing in their files runs."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import labcore
from labcore import Model, Parts, StoreError, Target, load_registry, use

SIZE = 8


def processes(name: str, **options: Any) -> labcore.Process:
    registry = load_registry()
    return Parts(registry).process(use(name, **options).resolve("process", registry))


def entry(name: str) -> labcore.Entry:
    return load_registry().get("score", name)


def images() -> Target:
    return Target((SIZE * SIZE,), lambda n, g: torch.randn(n, SIZE * SIZE, generator=g))


def saved(folder: Path, schedule: str, predicts: str) -> tuple[Any, Any]:
    """A tiny network and its scheduler, in a folder as a pipeline leaves them."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule, prediction_type=predicts, clip_sample=False
    )
    net.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return net, scheduler


@pytest.mark.parametrize(
    ("schedule", "predicts"),
    [("linear", "epsilon"), ("scaled_linear", "v_prediction"), ("squaredcos_cap_v2", "sample")],
)
@pytest.mark.parametrize("process", ["from_scheduler", "vp", "ve"])
def test_a_folder_predicts_as_its_own_scheduler(
    schedule: str, predicts: str, process: str, tmp_path: Path
) -> None:
    net, scheduler = saved(tmp_path, schedule, predicts)
    scheduler.set_timesteps(1000)
    options = {"path": str(tmp_path)} if process == "from_scheduler" else {}
    made = processes(process, **options)
    score = entry("from_diffusers")(made, images(), path=str(tmp_path))
    ab = scheduler.alphas_cumprod.double()
    log_snr = torch.log(ab / (1 - ab))
    x0 = torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    for k in (30, 400, 800):
        y = ab[k].sqrt().float() * x0 + (1 - ab[k]).sqrt().float() * torch.randn_like(x0)
        with torch.no_grad():
            theirs = scheduler.step(net(y, k).sample, k, y)
        t = time_of(made, float(log_snr[k]))
        a = made.Phi(t, torch.zeros_like(t)).param
        x = (a / ab[k].sqrt()).float() * y.flatten(1)
        ours = made.tweedie(x, t, score(x, t))
        wanted = theirs.pred_original_sample.flatten(1)
        assert float((ours - wanted).abs().max() / wanted.abs().max()) < 1e-4
        eps = -(made.Sigma(t).chol.T @ score(x, t))
        wanted = (y - ab[k].sqrt() * theirs.pred_original_sample).flatten(1)
        wanted = wanted / (1 - ab[k]).sqrt()
        assert float((eps - wanted).abs().max() / wanted.abs().max()) < 1e-5
        if process == "from_scheduler":
            assert float(t) == pytest.approx((k + 1) / 1000, rel=1e-4)


def time_of(process: labcore.Process, wanted: float) -> Tensor:
    """The time of a log-SNR, by bisection."""
    low, high = 1e-6, process.T
    for _ in range(80):
        middle = (low + high) / 2
        above = float(process.log_snr(torch.tensor(middle, dtype=torch.float64))) > wanted
        low, high = (middle, high) if above else (low, middle)
    return torch.tensor(low, dtype=torch.float64)


def test_tables_of_betas_are_those_of_the_library(tmp_path: Path) -> None:
    from labcore_scores.foreign import betas

    diffusers = pytest.importorskip("diffusers")
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        theirs = diffusers.DDPMScheduler(beta_schedule=schedule, num_train_timesteps=100)
        ours = betas(dict(theirs.config))
        assert torch.allclose(ours.float(), theirs.betas, rtol=2e-5, atol=1e-8)
    given = betas({"num_train_timesteps": 2, "trained_betas": [0.1, 0.2]})
    assert given.tolist() == [0.1, 0.2]
    process = processes("from_scheduler")
    t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    passed = diffusers.DDPMScheduler().alphas_cumprod[[0, 499, 999]].double()
    assert torch.allclose(1 - process.Sigma(t).param, passed, rtol=1e-4)


def test_levels_that_a_folder_was_not_trained_on_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "linear", "epsilon")
    score = entry("from_diffusers")(processes("edm"), images(), path=str(tmp_path))
    x = torch.zeros(2, SIZE * SIZE)
    with pytest.raises(labcore.ScoreError, match=r"knows log-SNR from .* larger t_eps"):
        score(x, torch.tensor(1e-5, dtype=torch.float64))


def changed(folder: Path, **values: Any) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_folders_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    made = processes("vp")
    score = entry("from_diffusers")
    with pytest.raises(StoreError, match=r"no scheduler can be read.* give the folder"):
        score(made, images(), path=str(tmp_path))
    saved(tmp_path, "linear", "epsilon")
    wrong = Target((65,), lambda n, g: torch.zeros(n, 65))
    with pytest.raises(labcore.InvalidOption, match=r"makes images of shape \(1, 8, 8\)"):
        score(made, wrong, path=str(tmp_path))
    for values, said in (
        ({"beta_schedule": "exotic"}, "no beta_schedule 'exotic'; known are linear"),
        ({"prediction_type": "flow"}, "predicts 'flow'; known are epsilon"),
        ({"rescale_betas_zero_snr": True}, "has no table of betas below 1"),
        ({"trained_betas": [0.1, 2.0]}, "betas must be 1000 numbers between 0 and 1"),
    ):
        before = (tmp_path / "scheduler" / "scheduler_config.json").read_text()
        changed(tmp_path, **values)
        with pytest.raises(labcore.InvalidOption, match=said):
            score(made, images(), path=str(tmp_path))
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(before)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(StoreError, match=r"no UNet2DModel can be read .* as safetensors"):
        score(made, images(), path=str(tmp_path))


class Runs:
    """A pickle that runs code where it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("it_ran",)


@pytest.mark.parametrize("variable", ["0", "1"])
def test_a_pickle_that_runs_code_is_refused_whatever_the_environment_says(
    variable: str, tmp_path: Path
) -> None:
    torch.save({"w": torch.zeros(2), "x": Runs()}, tmp_path / "bad.pt")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"w": Runs()}))
    code = (
        "import pathlib, labcore\n"
        "from labcore_scores.foreign import read_state_dict\n"
        "for name in ('bad.pt', 'bad.pth'):\n"
        "    try:\n"
        "        read_state_dict(pathlib.Path(name))\n"
        "    except labcore.StoreError as error:\n"
        "        print('refused', name)\n"
    )
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": variable}
    run = [sys.executable, "-c", code]
    out = subprocess.run(
        run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["refused", "bad.pt", "refused", "bad.pth"]
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("kind", ["pt", "safetensors", "key"])
def test_a_state_dict_becomes_the_score_of_its_network(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    registry, process = load_registry(), processes("vp")
    torch.manual_seed(3)
    net = registry.get("network", "mlp")((2,), width=16, depth=1)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save({"ema": net.state_dict()} if kind == "key" else net.state_dict(), path)
    key = "ema" if kind == "key" else ""
    flat = Target((2,), lambda n, g: torch.zeros(n, 2))
    made = entry("from_state_dict")
    network = "mlp(width=16, depth=1)"
    score = made(process, flat, path=str(path), network=network, reading="v", key=key)
    x, t = torch.randn(4, 2), torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(score(x, t), Model(net, process, "v")(x, t))
    with pytest.raises(StoreError, match=r"does not fit .*width=8.*options it was trained with"):
        made(process, flat, path=str(path), network="mlp(width=8, depth=1)", key=key)
    if kind == "key":
        with pytest.raises(StoreError, match=r"it holds ema, no tensors by name; name them"):
            made(process, flat, path=str(path), network=network)
    with pytest.raises(StoreError, match="cannot be read as weights"):
        made(process, flat, path=str(tmp_path / "none.pt"), network=network)


def test_any_callable_is_a_score_once_its_reading_is_declared() -> None:
    """For data N(0, I) under VP the best eps of x_t is sigma x_t, at every level."""
    process = processes("vp")

    def my_eps(x: Tensor, c: Tensor) -> Tensor:
        sigma = torch.sigmoid(8 * c).sqrt()  # c = -log_snr / 8
        return sigma.reshape(-1, *[1] * (x.ndim - 1)) * x

    score = Model(my_eps, process, "eps")
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for t in (torch.tensor(0.3).double(), torch.linspace(0.1, 1, 5).double()):
        assert torch.allclose(score(x, t), -x, rtol=1e-5)

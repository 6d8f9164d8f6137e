"""Several processes train to the weights of one; mixed precision and devices are asked as said."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainings import small, train

import labcore
from labcore import InvalidOption, Parts, load_registry
from labcore.learn.devices import Alone
from labcore.learn.session import begin


def session(recipe: labcore.Recipe, devices: Alone) -> Any:
    registry = load_registry()
    return begin(recipe.resolve(registry), Parts(registry), Path("unused"), devices)


CPU = torch.device("cpu")


def gradient(made: Any) -> torch.Tensor:
    """The gradient of step 0, before it is clipped."""
    parts = range(made.devices.rank, made.recipe.shards, made.devices.world)
    for part in parts:
        made._backward(part, part == parts[-1])
    return torch.cat([p.grad.flatten() for p in made.net.parameters()])


def test_the_mean_gradient_of_the_processes_is_that_of_one() -> None:
    recipe = small(shards=4, batch=64)
    alone = gradient(session(recipe, Alone(CPU)))
    each = [gradient(session(recipe, Alone(CPU, rank, 2))) for rank in range(2)]
    assert float((sum(each) / 2 - alone).abs().max() / alone.abs().max()) < 1e-6
    assert not torch.allclose(each[0], each[1])


def test_what_processes_cannot_share_is_refused_before_the_work() -> None:
    with pytest.raises(InvalidOption, match=r"2 devices cannot share out the shards=1 parts"):
        session(small(), Alone(CPU, 0, 2))
    energy = {"objective": "nce", "reading": "energy", "network": "energy", "shards": 2}
    with pytest.raises(InvalidOption, match=r"nce.* keeps a state of its own"):
        session(small(**energy), Alone(CPU, 0, 2))


def test_two_processes_of_fabric_end_with_the_weights_of_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--target moons --process vp --network mlp(width=16,depth=1) --steps 20 --batch 32"
    command = [sys.executable, "-m", "labcore", "train", *flags.split(), "--warmup", "5"]
    several = ["--shards", "2", "--devices", "2", "--strategy", "ddp", "--folder", str(tmp_path)]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run = subprocess.run(
        [*command, *several], env=environment, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("validation loss") == 1
    recipe = small(network="mlp(width=16,depth=1)", steps=20, shards=2)
    both = train(recipe, tmp_path).net.state_dict()
    alone = train(recipe, tmp_path / "alone").net.state_dict()
    for name, value in alone.items():
        assert torch.allclose(both[name], value, rtol=1e-5, atol=1e-6), name


def test_bfloat16_calls_the_network_in_it_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    @labcore.network
    def watched(event: tuple[int, ...]) -> Any:
        inner = load_registry().get("network", "mlp")(event, width=16, depth=1)
        inner.fall.register_forward_hook(lambda m, x, y: seen.append(y.dtype))
        return inner

    parts = Parts(load_registry([watched]))
    recipe = small(network="watched", precision="bfloat16", ema=0.0)
    made = labcore.train(recipe, parts, tmp_path)
    assert torch.bfloat16 in seen
    assert {value.dtype for value in made.net.state_dict().values()} == {torch.float32}
    plain = labcore.train(small(network="watched", ema=0.0), parts, tmp_path)
    losses = [one.facts["curve"][-1][2] for one in (made, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]

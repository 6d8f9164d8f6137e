"""Networks: what they know of the noise level, how they begin, and how anyone's enters."""

import json
import math
from typing import Any

import pytest
import torch
from distributions import install, labcore_cli
from safetensors.torch import load_file
from torch import Generator, Tensor

import labcore
from labcore import InvalidOption, Model, Parts, Recipe, load_registry, read_use, train, use
from labcore_linear import cld, vp

REGISTRY = load_registry()
SMALL = {
    "mlp": ("mlp(width=16, depth=2)", (3,)),
    "convolutional": ("convolutional(width=8, depth=1)", (8, 8)),
    "unet": ("unet(width=8, levels=2, depth=1)", (8, 8)),
    "unconditional": ("unconditional(backbone='mlp(width=16)')", (3,)),
    "energy": ("energy(backbone='mlp(width=16)')", (3,)),
    "inner": ("energy(backbone='mlp(width=16)', form='inner')", (3,)),
    "images": ("energy(backbone='convolutional(width=8)')", (8, 8)),
}


def built(text: str, event: tuple[int, ...], seed: int = 0, moved: float = 0.0) -> torch.nn.Module:
    """The network with weights of ``seed``, moved from where they begin by so much noise."""
    if text.startswith("unet"):
        pytest.importorskip("diffusers")
    named = read_use(text).resolve("network", REGISTRY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = REGISTRY.get("network", named.name)(event, **dict(named.options))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(moved * torch.randn_like(parameter))
    found: torch.nn.Module = net.eval()
    return found


def inputs(event: tuple[int, ...], n: int = 5) -> Tensor:
    return torch.randn(n, *event, generator=Generator().manual_seed(1))


every = pytest.mark.parametrize(("text", "event"), SMALL.values(), ids=SMALL)


@every
def test_the_level_is_used_by_all_that_are_told_it(text: str, event: tuple[int, ...]) -> None:
    net, x = built(text, event, moved=0.1), inputs(event)
    with torch.no_grad():
        low, high = (net(x, torch.tensor(c)) for c in (-1.0, 0.7))
        told = torch.full((len(x),), 0.7)
        told[2] = -1.0
        mixed = net(x, told)
    if "unconditional" in text:
        assert torch.equal(low, high)
    else:
        assert float((low - high).abs().amax()) > 1e-2 * float(low.abs().amax())
    assert torch.allclose(mixed[[0, 1, 3, 4]], high[[0, 1, 3, 4]], atol=1e-5)
    assert torch.allclose(mixed[2], low[2], atol=1e-5)


@every
def test_rows_do_not_know_of_each_other(text: str, event: tuple[int, ...]) -> None:
    net, x, c = built(text, event, moved=0.1), inputs(event), torch.linspace(-1, 1, 5)
    with torch.no_grad():
        whole = net(x, c)
        alone = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(5)])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert whole.shape == ((5,) if "energy" in text else (5, *event))


@pytest.mark.parametrize("text", ["mlp(width=16, depth=4)", "convolutional(width=8, depth=3)"])
def test_blocks_begin_as_identities(text: str) -> None:
    event = (8, 8)
    net, x = built(text, event), inputs(event).double()
    net = net.double()
    c = torch.tensor(0.3).double()
    with torch.no_grad():
        assert torch.equal(net(x, c), net(x, -c))  # the level enters in blocks alone
        straight = net(0.3 * x[:1] + 0.7 * x[1:2], c)
        assert torch.allclose(straight, 0.3 * net(x[:1], c) + 0.7 * net(x[1:2], c), atol=1e-12)
        moved = built(text, event, moved=0.1).double()
        bent = moved(0.3 * x[:1] + 0.7 * x[1:2], c)
        assert not torch.allclose(bent, 0.3 * moved(x[:1], c) + 0.7 * moved(x[1:2], c), atol=1e-2)


@pytest.mark.parametrize("text", [SMALL[k][0] for k in ("energy", "inner")])
@pytest.mark.parametrize("process", [vp(), cld()], ids=["vp", "cld"])
def test_the_score_of_an_energy_is_its_gradient_in_full(
    text: str, process: labcore.Process
) -> None:
    event = process.event((3,))
    net = built(text, event, moved=0.1).double()
    model = Model(net, process, "energy", dtype=torch.float64)
    x, t = inputs(event).double(), torch.tensor(0.4).double()
    D, h = math.prod(event), 1e-5
    steps = h * torch.eye(D).double().reshape(D, *event)
    finite = torch.stack(
        [(model.energy(x - e, t) - model.energy(x + e, t)) / (2 * h) for e in steps], 1
    )
    assert torch.allclose(model(x, t).flatten(1), finite, rtol=1e-5, atol=1e-6)
    rough = torch.autograd.functional.jacobian(lambda y: model(y, t).sum(0), x[:1])
    J = rough.reshape(D, D)  # of a gradient: symmetric, as no free network's is
    assert torch.allclose(J, J.T, atol=1e-8)
    y = x.clone().requires_grad_(True)
    assert model(y, t).requires_grad  # a divergence can be taken through it
    assert not model(x, t).requires_grad


def test_an_energys_density_may_be_asked_before_its_score_in_inference_mode() -> None:
    net = built(*SMALL["energy"], moved=0.1)
    model, x, t = Model(net, vp(), "energy"), inputs((3,)), torch.tensor(0.4).double()
    with torch.inference_mode():
        model.log_prob(x, t)
    assert torch.isfinite(model(x, t)).all()


@pytest.mark.parametrize(
    ("text", "event", "told"),
    [
        ("convolutional", (3,), "no square image of an even side"),
        ("convolutional", (7, 7), "no square image of an even side"),
        ("convolutional(channels=3)", (8, 8), "give channels="),
        ("unet(levels=4)", (12, 12), "does not halve 3 times"),
    ],
)
def test_events_that_are_no_images_are_refused(
    text: str, event: tuple[int, ...], told: str
) -> None:
    with pytest.raises(InvalidOption, match=told):
        built(text, event)


@pytest.mark.parametrize("event", [(64,), (8, 8), (1, 8, 8), (3, 8, 8), (2, 64), (2, 3, 8, 8)])
def test_images_are_read_off_their_events(event: tuple[int, ...]) -> None:
    net, x = built("convolutional(width=8)", event, moved=0.1), inputs(event)
    far = x.clone().reshape(5, -1)
    far[:, 0] += 1.0  # the first pixel: its neighbours below feel it, one row on
    with torch.no_grad():
        felt = (net(far.reshape(x.shape), torch.tensor(0.0)) - net(x, torch.tensor(0.0))).abs()
    assert bool((felt > 0).any())
    assert felt.shape == x.shape


def test_a_module_of_anyones_is_a_network_in_a_few_lines(tmp_path: Any) -> None:
    class Gaussian(torch.nn.Module):  # a stranger's own: exact for Gaussian data, if it learns
        def __init__(self, d: int) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(d))

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return x * self.a

    @labcore.network
    def mine(event: tuple[int, ...], *, start: float = 0.0) -> torch.nn.Module:
        """One slope a coordinate."""
        net = Gaussian(event[0])
        torch.nn.init.constant_(net.a, start)
        return net

    registry = load_registry((mine,))
    parts = Parts(registry)
    recipe = Recipe(
        use("gaussian", mean=(0.0, 0.0), cov=((0.25, 0.0), (0.0, 4.0))),
        use("edm", T=1.0, t_eps=0.999),  # one noise level, near enough
        use("local:mine", start=0.5),
        use("dsm"),
        data_std=1.0,
        steps=400,
        batch=256,
        lr=0.02,
    )
    made = train(recipe, parts, tmp_path)
    # eps = sigma x / (S + sigma^2), of x / sqrt(1 + sigma^2)
    wanted = [math.sqrt(2) / (S + 1) for S in (0.25, 4.0)]
    assert made.net.a.tolist() == pytest.approx(wanted, abs=0.02)  # type: ignore[union-attr]
    again = labcore.load_trained(tmp_path / recipe.resolve(registry).key, parts)
    x, t = inputs((2,)), torch.tensor(1.0).double()
    assert torch.equal(made(x, t), again(x, t))


def test_a_network_by_an_entry_point_is_found_by_its_name() -> None:
    names = {name for name, _ in REGISTRY.all("network")}
    assert {f"networks:{n}" for n in ("mlp", "convolutional", "unet", "energy")} <= names
    assert REGISTRY.qualified("network", "mlp") == "networks:mlp"


STRANGERS = '''
"""A network and an objective of one's own."""
import labcore
import torch

class Net(torch.nn.Sequential):
    def forward(self, x, c):
        level = c.reshape(-1, 1).expand(len(x), 1)
        return super().forward(torch.cat([x, level], 1))

@labcore.network
def tiny(event, *, width: int = 8):
    """Two layers that are told the level as a number."""
    return Net(torch.nn.Linear(event[0] + 1, width), torch.nn.Tanh(),
               torch.nn.Linear(width, event[0]))

@labcore.objective
def halves(process, *, power: float = 1.0):
    """Denoising at t = T/2 alone."""
    def loss(model, x0, generator):
        t = torch.full((len(x0),), process.T / 2, dtype=torch.float64)
        z = torch.randn(x0.shape, generator=generator)
        return (model.eps(process.perturb(x0, t, z), t) - z).square().sum(1) ** power
    return loss

@labcore.hookimpl
def register_networks():
    return [tiny]

@labcore.hookimpl
def register_objectives():
    return [halves]
'''


def test_a_strangers_network_and_objective_train_from_the_command_line(tmp_path: Any) -> None:
    site, folder = tmp_path / "site", tmp_path / "scores"
    install(site, "labcore-acme", "acme = labcore_acme", labcore_acme=STRANGERS)
    done = labcore_cli(
        site, "train", "--target", "gmm_ring", "--process", "vp", "--network", "tiny(width=12)",
        "--objective", "halves", "--steps", "30", "--warmup", "5", "--folder", str(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (home,) = [path for path in folder.iterdir() if (path / "recipe.json").exists()]
    told = json.loads((home / "recipe.json").read_text())
    assert told["recipe"]["network"] == {"name": "acme:tiny", "options": {"width": 12}}
    assert told["recipe"]["objective"]["name"] == "acme:halves"
    weights = load_file(home / "weights.safetensors")
    assert sum(w.numel() for w in weights.values()) == 12 * 3 + 12 + 2 * 12 + 2

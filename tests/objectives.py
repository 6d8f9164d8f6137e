"""What the tests of objectives share: processes of every structure, and smooth models."""

import math
from typing import Any

import torch
from torch import Generator, Tensor

from labcore import Model, Process, load_registry, read_use
from labcore_linear import cld, diag_vp, edm, ou, rotating, vp

PROCESSES = {f.name: f() for f in (vp, edm, diag_vp, ou, rotating, cld)}
REGISTRY = load_registry()


def objective(text: str, process: Process) -> Any:
    """The loss that ``text`` names, as a recipe would have it."""
    named = read_use(text).resolve("objective", REGISTRY)
    return REGISTRY.get("objective", named.name)(process, **dict(named.options))


class Smooth(torch.nn.Module):
    """size * sin(W x + b + c) mixed by V: a network of float64 with a Jacobian worth its name."""

    def __init__(self, D: int, size: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        g = Generator().manual_seed(seed)
        W, V, b = (torch.randn(*s, generator=g).double() for s in ((D, 8), (8, D), (8,)))
        self.W, self.V, self.b = W / math.sqrt(D), V / math.sqrt(8), b
        self.size = torch.nn.Parameter(torch.tensor(size, dtype=torch.float64))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        inner = x.flatten(1) @ self.W + self.b + c.reshape(-1, 1)
        return self.size * (inner.sin() @ self.V).reshape(x.shape)


class SmoothEnergy(torch.nn.Module):
    """size * sum cos(W x + b + c): the energy of as smooth a score."""

    def __init__(self, D: int, size: float = 1.0) -> None:
        super().__init__()
        self.inner = Smooth(D)
        self.size = torch.nn.Parameter(torch.tensor(size, dtype=torch.float64))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        inner = x.flatten(1) @ self.inner.W + self.inner.b + c.reshape(-1, 1)
        return self.size * inner.cos().sum(1)


def event_of(process: Process) -> tuple[int, ...]:
    return process.event_shape or (2,)


def smooth(name: str, reading: str = "eps", size: float = 1.0) -> Model:
    """A smooth model of float64 under the process called ``name``."""
    process = PROCESSES[name]
    D = math.prod(process.event(event_of(process)))
    net = SmoothEnergy(D, size) if reading == "energy" else Smooth(D, size)
    return Model(net, process, reading, data_std=0.7, dtype=torch.float64)  # type: ignore[arg-type]


def data(process: Process, n: int, seed: int = 0) -> Tensor:
    """Samples of two separated lumps, float64."""
    g = Generator().manual_seed(seed)
    x = torch.randn(n, *event_of(process), generator=g, dtype=torch.float64)
    return 0.4 * x + torch.randint(0, 2, (n, *[1] * (x.ndim - 1)), generator=g) - 0.5


def replayed(process: Process, model: Model, x0: Tensor, seed: int) -> tuple[Tensor, ...]:
    """t, x_t and z as an objective with uniform, stratified times draws them from ``seed``."""
    from labcore_objectives.denoising import perturbed
    from labcore_objectives.times import uniform

    g = Generator().manual_seed(seed)
    t, _ = uniform(process)(len(x0), g)
    x, z = perturbed(process, x0, model.at(t)[0], g)
    return t, x, z


def agrees(difference: Tensor, scale: float, sharp: float = 0.05) -> bool:
    """A mean of zero within five standard errors, each smaller than ``sharp`` of ``scale``."""
    error = float(difference.std() / math.sqrt(len(difference)))
    assert error < sharp * scale, f"too few samples: error {error:.3g}, scale {scale:.3g}"
    return abs(float(difference.mean())) < 5 * error

"""Other people's samplers as plugins: what they share, and what happens where one is missing."""

import subprocess
import sys
from typing import Any

import adapted
import pytest
import torch
from click.testing import CliRunner

import labcore
from labcore import Levels, PluginError, SamplerError, Study, levels, run_cells, serving, use
from labcore.cli import cli
from labcore.noise import brownian, counting
from labcore.parts import Parts
from labcore.registry import Registry
from labcore.testing import quadratic, vp
from labcore_linear import rectified_flow, vp_cosine

LIBRARIES = ("kdiffusion", "diffusers", "azula")
F64 = torch.float64


@pytest.fixture
def none_installed(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry where none of the libraries is."""
    monkeypatch.setattr("labcore.adapt.find_spec", lambda name: None)
    return Registry(labcore.plugins.load())


def test_without_its_library_a_plugin_is_not_available_and_says_what_to_install(
    none_installed: Registry,
) -> None:
    for name in LIBRARIES:
        record = none_installed.plugin(name)
        assert record.status == "unavailable"
        assert f"pip install 'labcore[{name}]'" in record.reason
        with pytest.raises(PluginError, match=r"is not available: .*pip install"):
            none_installed.get("sampler", f"{name}:anything")
    assert none_installed.get("sampler", "ddim")
    assert {r.status for r in none_installed.records} == {"loaded", "unavailable"}


def test_the_command_line_shows_it_and_does_not_fail(
    none_installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labcore.registry.load_registry", lambda: none_installed)
    shown = CliRunner().invoke(cli, ["plugins", "--load"], standalone_mode=False)
    assert shown.return_value == 0
    (line,) = [line for line in shown.output.splitlines() if line.startswith("diffusers")]
    assert "unavailable" in line
    assert "pip install 'labcore[diffusers]'" in line


def test_listing_samplers_imports_no_library() -> None:
    code = (
        "import sys, labcore; names = [n for n, _ in labcore.load_registry().all('sampler')];"
        "print([m for m in ('diffusers', 'azula', 'k_diffusion') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


ALL = [name for library in LIBRARIES for name in adapted.names(library)]


@pytest.mark.parametrize("name", ALL)
def test_traits_say_what_is_the_labs(name: str) -> None:
    traits = adapted.entry(name).traits
    assert traits["needs"] == ("scalar",)
    assert traits["grid"] in ("lab", "own")
    assert traits["noise"] in ("lab", "none")
    assert traits.get("draws", "none") in ("argument", "attribute", "torch", "none")
    assert (traits["noise"] == "lab") == ("draws" in traits)
    assert traits["dtype"] in ("state", "float32 tables", "float32")
    assert traits["end"] == "t_eps"
    assert traits["cite"]


def test_a_study_has_theirs_beside_ours() -> None:
    if not ALL:
        pytest.skip("no library is installed")
    study = Study(
        name="beside",
        question="Whose 2M?",
        target="gmm_ring",
        process=[use("vp"), use("edm")],
        grid="log_snr",
        sampler=[use("samplers:dpmpp_2m"), *(use(n) for n in ALL if "2m" in n or "DDPM" in n)],
        nfe=[8],
        n=64,
        seed=range(2),
        metrics=["sliced_w2"],
    )
    parts = Parts(adapted.registry())
    cells = study.cells(adapted.registry())
    by_group: dict[Any, list[Any]] = {}
    for cell in cells:
        by_group.setdefault((cell.process, cell.sampler), []).append(cell)
    values: dict[tuple[str, str, int], float] = {}
    for group in by_group.values():
        for result in run_cells(group, study.metric_uses(adapted.registry()), parts):
            assert result.status == "ok", result.reason
            assert result.nfe == 8
            ((value,),) = (of.values() for of in result.values.values())
            key = (result.cell.process.name, result.cell.sampler.name, result.cell.seed)
            values[key] = value
    theirs = "kdiffusion:sample_dpmpp_2m"
    if theirs in ALL:
        for process in ("linear:vp", "linear:edm"):
            for seed in (0, 1):
                ours = values[process, "samplers:dpmpp_2m", seed]
                assert values[process, theirs, seed] == pytest.approx(ours, rel=1e-3)


def grid_of(process: Any, n: int = 9) -> Levels:
    return levels(process, quadratic(process, n))


@pytest.mark.parametrize("process", [vp(), vp_cosine(), rectified_flow()])
def test_the_time_of_a_level_is_where_the_process_has_it(process: Any) -> None:
    of = grid_of(process)
    for i, r in enumerate(of.ratio.tolist()):
        assert of.at(r) == (of.ts[i], float(of.alpha[i]), float(of.sigma[i]))
    for share in (0.1, 0.5, 0.999):
        r = float(of.ratio[3] ** (1 - share) * of.ratio[4] ** share)
        t, alpha, sigma = of.at(r)
        assert of.ts[4] <= t <= of.ts[3]
        assert sigma / alpha == pytest.approx(r, rel=1e-12)


def test_levels_of_rounding_beyond_the_ends_are_the_ends_and_no_others() -> None:
    of = grid_of(vp())
    first, last = float(of.ratio[0]), float(of.ratio[-1])
    assert of.at(first * (1 + 1e-7))[0] == of.ts[0]
    assert of.at(last * (1 - 1e-4))[0] == of.ts[-1]
    for r in (first * 1.001, last * 0.9):
        with pytest.raises(SamplerError, match="outside the grid's"):
            of.at(r)


def test_parts_of_a_step_have_the_law_of_a_brownian_motion_in_sigma() -> None:
    of, rows = grid_of(vp(), 3), 200_000
    noise = brownian(of.ts, (1,), [0], rows, dtype=F64)
    begin, end = float(of.ratio[1]), float(of.ratio[2])
    middle = (begin * end) ** 0.5
    first = of.increment(noise, begin, middle).clone()
    whole = of.increment(noise, begin, end)
    share = (begin - middle) / (begin - end)
    assert float(first.var()) == pytest.approx(1, abs=0.02)
    assert float((first * whole).mean()) == pytest.approx(share**0.5, abs=0.01)
    assert torch.equal(whole, noise(of.ts[1], of.ts[2]))


def test_draws_are_served_as_the_library_asks_for_them() -> None:
    z = torch.arange(6.0, dtype=F64).reshape(3, 2)
    x = torch.zeros(3, 2)
    before = torch.get_rng_state()
    with serving(lambda: z):
        assert torch.equal(torch.randn_like(x), z.float())
        assert torch.equal(torch.randn((3, 2), dtype=F64), z)
        assert torch.equal(torch.randn(3, 2), z.float())
        named = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        with pytest.raises(SamplerError, match="draws noise of shape"):
            torch.randn(4, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(named, torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(torch.randn(3, 2), z.float())


def test_the_noise_of_a_step_is_asked_once_whatever_its_parts() -> None:
    of = grid_of(vp(), 3)
    noise = counting((2,))
    r = of.ratio.tolist()
    for _ in range(2):
        of.increment(noise, r[0], (r[0] * r[1]) ** 0.5)
        of.increment(noise, r[0], r[1])
    assert len(noise.draws) == 2

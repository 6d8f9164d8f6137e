"""docs/libraries.md says what is so: its tables are those of the registry, and name everything."""

import re
from pathlib import Path
from typing import Any

import pytest

import labcore
from labcore.cli.entries import markdown_table

PAGE = Path(__file__).parent.parent / "docs" / "libraries.md"
PLUGINS = ("kdiffusion", "diffusers", "azula")
NOISE = {
    "argument": "the lab's, as its argument",
    "attribute": "the lab's, as its attribute",
    "torch": "the lab's, in place of torch.randn",
}


def row(name: str, entry: Any) -> str:
    """name, what it is, order, NFE a step, grid, noise and precision."""
    facts = markdown_table("sampler", [(name, entry)]).splitlines()[2].split(" | ")[:4]
    traits = entry.traits
    noise = NOISE[traits["draws"]] if "draws" in traits else "none"
    return " | ".join([*facts, traits["grid"], noise, traits["dtype"]]) + " |"


def expected(text: str, registry: labcore.Registry) -> str:
    heads = ["sampler", "what it is", "order", "NFE per step", "grid", "noise", "precision"]
    for plugin in PLUGINS:
        if registry.plugin(plugin).status != "loaded":
            pytest.skip(f"{plugin} is not available")
        rows = [row(n, e) for n, e in registry.all("sampler") if n.startswith(f"{plugin}:")]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *rows]
        pattern = rf"(<!-- {plugin} -->\n\n).*?(\n\n<!-- end of {plugin} -->)"
        table = "\n".join(lines)
        text, places = re.subn(pattern, lambda m, t=table: m[1] + t + m[2], text, flags=re.DOTALL)
        assert places == 1
    return text


def test_tables_are_those_of_the_registry() -> None:
    text = PAGE.read_text()
    made = expected(text, labcore.load_registry())
    if text != made:
        PAGE.with_suffix(".md.new").write_text(made)
        pytest.fail(
            "docs/libraries.md is out of date; libraries.md.new has the tables as they are"
        )


def left_out() -> str:
    """The page from where it says what is not adapted."""
    return PAGE.read_text().partition("## What is not adapted")[2]


def test_every_sampler_of_k_diffusion_is_adapted_or_said_not_to_be() -> None:
    pytest.importorskip("labcore_kdiffusion.library")
    import kdiffusion

    published = {n for n in dir(kdiffusion.sampling()) if n.startswith("sample_")}
    missing = published - short("kdiffusion")
    assert missing == {n for n in published if f"`{n}`" in left_out()}


def test_every_scheduler_of_diffusers_is_adapted_or_said_not_to_be() -> None:
    library = pytest.importorskip("diffusers.schedulers")
    published = {n for n in dir(library) if n.endswith("Scheduler")}
    missing = published - {n.partition("-")[0] for n in short("diffusers")}
    assert missing == {n for n in published if f"`{n}`" in left_out()}


def test_every_sampler_of_azula_is_adapted() -> None:
    library = pytest.importorskip("azula.sample")
    assert {n for n in library.__all__ if n != "Sampler"} == short("azula")


def short(plugin: str) -> set[str]:
    registry = labcore.load_registry()
    if registry.plugin(plugin).status != "loaded":
        pytest.skip(f"{plugin} is not available")
    return {e.name for n, e in registry.all("sampler") if n.startswith(f"{plugin}:")}

"""The README says what is so: its tables are those of the registry, its code runs."""

import re
from pathlib import Path

import pytest

import labcore
from labcore.cli.entries import markdown_table
from labcore.testing import check_sampler

README = Path(__file__).parent.parent / "README.md"
KINDS = {
    "processes": "process",
    "grids": "grid",
    "targets": "target",
    "scores": "score",
    "samplers": "sampler",
    "metrics": "metric",
}


def expected(text: str) -> str:
    """The README with its tables made anew."""
    registry = labcore.load_registry()
    names = [*KINDS, "end"]
    for heading, after in zip(KINDS, names[1:], strict=False):
        own = [(n, e) for n, e in registry.all(KINDS[heading]) if "library" not in e.traits]
        table = f"\n\n{markdown_table(KINDS[heading], own)}\n\n"
        pattern = rf"(<!-- {heading} -->).*?(<!-- {after} -->)"
        text = re.sub(pattern, lambda m, t=table: m[1] + t + m[2], text, flags=re.DOTALL)
    return text


def test_tables_are_those_of_the_registry() -> None:
    text = README.read_text()
    made = expected(text)
    if text != made:
        README.with_suffix(".md.new").write_text(made)
        pytest.fail("README.md is out of date; README.md.new has the tables as they are")


def test_the_plugin_in_the_readme_passes_its_check() -> None:
    (source,) = re.findall(r"```python\n(\"\"\"Adams.*?)```", README.read_text(), re.DOTALL)
    module: dict[str, object] = {"__name__": "labcore_acme"}
    exec(source, module)
    entry = module["ab2"]
    assert isinstance(entry, labcore.Entry)
    check_sampler(entry)


def test_the_study_in_the_readme_expands() -> None:
    pattern = r"```python\n(import labcore\nfrom.*?)```"
    (source,) = re.findall(pattern, README.read_text(), re.DOTALL)
    module: dict[str, object] = {"__name__": "eta"}
    exec(source, module)
    study = module["study"]
    assert isinstance(study, labcore.Study)
    assert len(study.cells(labcore.load_registry())) == 2 * 3 * 4 * 10

"""docs/differences.md names all that the libraries installed here ship, and tests that exist."""

import inspect
import re
import warnings
from pathlib import Path

import kdiffusion
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "differences.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")[1:]}
ROWS = [
    (library, line.strip("|").split("|"))
    for library, part in SECTIONS.items()
    for line in part.splitlines()
    if line.startswith("| `")
]


def named(library: str) -> set[str]:
    """The first word in code of every row."""
    return {re.findall(r"`(\w+)`", cells[0])[0] for of, cells in ROWS if of == library}


def shipped_by_diffusers() -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedulers = pytest.importorskip("diffusers.schedulers")
        base = schedulers.SchedulerMixin
        known = {name: getattr(schedulers, name, None) for name in dir(schedulers)}
    return {
        name
        for name, of in known.items()
        if inspect.isclass(of) and issubclass(of, base) and of is not base
    }


def shipped_by_k_diffusion() -> set[str]:
    return {
        name for name in dir(kdiffusion.sampling()) if name.startswith(("sample_", "get_sigmas_"))
    }


def shipped_by_azula() -> set[str]:
    sample = pytest.importorskip("azula.sample")
    base = sample.Sampler
    return {
        name
        for name, of in vars(sample).items()
        if inspect.isclass(of) and issubclass(of, base) and of is not base
    }


@pytest.mark.parametrize(
    ("library", "shipped"),
    [
        ("diffusers", shipped_by_diffusers),
        ("k-diffusion", shipped_by_k_diffusion),
        ("azula", shipped_by_azula),
    ],
)
def test_every_sampler_that_a_library_ships_is_on_the_page(library, shipped) -> None:  # type: ignore[no-untyped-def]
    assert named(library) == shipped()


def test_every_test_on_the_page_exists() -> None:
    for path, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE):
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_row_names_its_test_but_those_with_nothing_to_compare() -> None:
    for library, cells in ROWS:
        compared = len(cells) == 4
        assert compared == ("tests/" in cells[-1]), (library, cells[0])
        assert compared or len(cells) == 2


def test_the_readme_leads_to_the_page() -> None:
    assert "docs/differences.md" in (ROOT / "README.md").read_text()

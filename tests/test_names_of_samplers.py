"""Short names that several plugins have: refused with every full name, each of which works."""

import re
import runpy
from collections import defaultdict
from pathlib import Path

import pytest

import labcore
from labcore.entry import KINDS

ROOT = Path(__file__).parent.parent


def shared() -> dict[tuple[str, str], list[str]]:
    """The full names behind every short name that more than one plugin has."""
    registry, behind = labcore.load_registry(), defaultdict(list)
    for kind in KINDS:
        for full, _ in registry.all(kind):
            behind[kind, full.partition(":")[2]].append(full)
    return {key: names for key, names in behind.items() if len(names) > 1}


def test_an_ambiguous_name_is_refused_with_all_it_may_mean() -> None:
    registry, names = labcore.load_registry(), shared()
    assert {"euler", "heun", "midpoint", "rk4"} <= {short for kind, short in names}
    for (kind, short), full in names.items():
        with pytest.raises(labcore.UnknownName, match="several plugins have it") as refused:
            registry.get(kind, short)
        assert all(name in str(refused.value) for name in full)
        for name in full:
            assert registry.qualified(kind, name) == name


@pytest.mark.parametrize("script", sorted((ROOT / "studies").glob("*.py")), ids=lambda p: p.stem)
def test_studies_name_their_entries_without_doubt(script: Path) -> None:
    study = runpy.run_path(str(script)).get("study")
    if study is not None:
        assert study.cells(study.registry())


def test_the_readme_uses_no_name_that_several_plugins_have() -> None:
    text = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    for _, short in shared():
        assert not re.search(rf"(use\(|=\s*|\[)\"{re.escape(short)}\"", code), short

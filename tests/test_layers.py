"""Who may import whom, read from the source: the core is layered and plugins are strangers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [
    "errors text",
    "seeds guards roots factors",
    "linop",
    "processes",
    "bridge kernels",
    "parameterisations normals",
    "models",
    "noise scores targets grids adapt",
    "metrics entry certificates",
    "hookspecs",
    "plugins",
    "registry",
    "testing",
    "study",
    "parts",
    "learn expand",
    "measure",
    "run",
    "engine store",
    "stats",
    "plots",
    "certification traces",
    "fingerprints work stale",
    "lab dry_run gallery pages",
    "cli",
]
LEVEL = {name: i for i, names in enumerate(ORDER) for name in names.split()}
TOP = {"__init__", "__main__"}
OUTSIDE = {"labcore_", "studies", "benchmarks", "tests", "toy_lab"}


def imports(path: Path) -> list[str]:
    """Modules imported when ``path`` is; those under TYPE_CHECKING or in functions are not."""
    found: list[str] = []

    def walk(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                found.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.append(node.module)
                if node.module == "labcore":
                    found.extend(f"labcore.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Try):
                walk(node.body)

    walk(ast.parse(path.read_text()).body)
    return found


def home(path: Path) -> str:
    return path.relative_to(ROOT / "labcore").parts[0].removesuffix(".py")


CORE = sorted((ROOT / "labcore").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_imports_downwards_and_no_plugin(path: Path) -> None:
    mine = home(path)
    for module in imports(path):
        assert not any(module.startswith(name) for name in OUTSIDE), module
        parts = module.split(".")
        if parts[0] != "labcore" or len(parts) < 2 or parts[1] not in {*LEVEL, "testing"}:
            continue
        if mine == "testing":
            assert parts[1] == "testing" or LEVEL[parts[1]] <= LEVEL["registry"], module
        elif mine not in TOP:
            assert parts[1] == mine or LEVEL[parts[1]] <= LEVEL[mine], f"{mine} imports {module}"


def test_every_core_module_has_a_place_in_the_order() -> None:
    assert {home(p) for p in CORE} - {*TOP, "testing"} <= set(LEVEL)


PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_import_the_public_face_and_no_other_plugin(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    for module in imports(path):
        if module.startswith("labcore_"):
            assert module.split(".")[0] == own, module
        if module.startswith("labcore.") and module.count(".") == 1:
            import labcore

            assert module.split(".")[1] in {*labcore.__all__, "testing"}, module


def test_studies_import_labcore_alone() -> None:
    for path in (ROOT / "studies").glob("*.py"):
        assert {module.split(".")[0] for module in imports(path)} <= {
            "labcore",
            *sys.stdlib_module_names,
        }


def test_installed_entry_points_are_those_of_pyproject() -> None:
    import tomllib
    from importlib.metadata import entry_points

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed = {e.name: e.value for e in entry_points(group="labcore")}
    missing = declared["labcore"].items() - installed.items()
    assert not missing, f"install again (pip install -e .): {missing} are not installed"


def test_importing_labcore_is_free_of_heavy_packages() -> None:
    code = (
        "import sys, labcore, labcore.cli, labcore.plugins; labcore.plugins.discover();"
        "print([m for m in ('torch', 'pandas', 'seaborn', 'numpy', 'dask') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_all_resolve() -> None:
    import labcore

    for name in labcore.__all__:
        assert getattr(labcore, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = labcore.nonsense

"""With the wheel alone, no repository: the whole battery on a sampler file, and a page of it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from labcore.testing import CHECKS

ROOT = Path(__file__).parent.parent

SAMPLER = '''"""Adams-Bashforth 2 on the probability-flow ODE."""
from itertools import pairwise
import labcore

@labcore.sampler(order=2, evals=1, stochastic=False, cite="Hairer, Norsett, Wanner (1993), III.1")
def ab2(process, score, x, ts, noise):
    """x_s = x_t + h (v_t + h/(2 h_old) (v_t - v_old)), h = s - t; the first step is Euler."""
    v, old, h_old = labcore.velocity(process, score), 0.0, float("inf")
    for t, s in pairwise(ts):
        new, h = v(t, x), float(s - t)
        x = x + h * (new + h / h_old / 2 * (new - old))
        old, h_old = new, h
        yield x
'''


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with our dependencies but not our sources."""
    here = tmp_path_factory.mktemp("wheel")
    for part in ("labcore", "plugins"):
        without = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / part, here / "source" / part, ignore=without)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, here / "source")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    built = run(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index"),
        *("-w", here, here / "source"),
        cwd=here,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = here.glob("labcore-*.whl")
    shutil.rmtree(here / "source")
    venv.create(here / "venv", with_pip=False)
    python = here / "venv" / "bin" / "python"
    done = run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=here)
    assert done.returncode == 0, done.stderr
    # A path in a .pth is searched last, and the .pth of our editable install is not read there.
    (site,) = (here / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return here / "venv" / "bin"


def test_no_source_of_the_repository_is_seen(stranger: Path, tmp_path: Path) -> None:
    code = f"""
import sys, labcore, labcore_samplers
from importlib.metadata import distribution
print(labcore.__file__, labcore_samplers.__file__, distribution("labcore").locate_file(""))
assert not any(p.startswith({str(ROOT)!r}) and "site-packages" not in p for p in sys.path)
"""
    done = run(stranger / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(part.startswith(str(stranger.parent)) for part in done.stdout.split())


def test_a_15_line_file_is_certified_and_gets_a_page(stranger: Path, tmp_path: Path) -> None:
    assert len(SAMPLER.splitlines()) <= 15
    (tmp_path / "my_sampler.py").write_text(SAMPLER)
    done = run(stranger / "labcore", "check", "my_sampler.py", "--page", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "certified" in done.stdout
    (page,) = [path for path in (tmp_path / "out").glob("*.html") if "ab2" in path.name]
    text = page.read_text()
    for said in ("local:ab2", "certified", "my_sampler.py", *CHECKS, "data:image/svg+xml"):
        assert said in text, said
    assert "://" not in text  # a page is whole: nothing is loaded from elsewhere


def test_a_wrong_weight_is_refused_with_its_check(stranger: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(SAMPLER.replace("h / h_old / 2", "h / h_old / 3"))
    done = run(stranger / "labcore", "check", "wrong.py", "--checks", "order", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout
    assert "order:" in done.stdout

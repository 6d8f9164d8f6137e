"""Distributions made on the spot: a folder with a module and its .dist-info, as pip leaves it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

HEAD = """
import labcore

@labcore.sampler(order=1)
def euler(process, score, x, ts, noise, *, lam: float = 0.0):
    yield x

@labcore.metric
def gap(outcome):
    return 0.0
"""


def distribution(site: Path, name: str, points: str, version: str = "1.0", **modules: str) -> None:
    """Install modules into ``site``, with ``points`` the body of the entry-point group."""
    site.mkdir(parents=True, exist_ok=True)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[labcore]\n{dedent(points)}\n")
    for module, source in modules.items():
        (site / f"{module}.py").write_text(HEAD + dedent(source))


def python(site: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that has ``site`` on its path."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def told(site: Path, code: str, **environment: str) -> Any:
    """The JSON that the last line of a script's output holds."""
    done = python(site, code, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def install(site: Path, name: str, points: str, **modules: str) -> None:
    """Like ``distribution``, with the modules' sources exactly as given."""
    distribution(site, name, points)
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def environment(site: Path) -> dict[str, str]:
    """The environment of an interpreter that has ``site`` on its path."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def labcore_cli(site: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line with ``site`` on the path; it must leave with ``code``."""
    done = subprocess.run(
        [sys.executable, "-m", "labcore", *arguments],
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done

"""A stranger's distribution with a 15-line sampler: listed, run in a study, order-checked."""

import subprocess
import sys
from pathlib import Path

import pytest
from distributions import environment, install, labcore_cli

AB2 = '''
"""Adams-Bashforth 2 on the probability-flow ODE."""
from itertools import pairwise
import labcore

@labcore.sampler(order=2, evals=1, cite="Hairer, Norsett, Wanner (1993), III.1")
def ab2(process, score, x, ts, noise):
    """x_s = x_t + h (v_t + h/(2 h_old) (v_t - v_old)), h = s - t; the first step is Euler."""
    v, old, h_old = labcore.velocity(process, score), 0.0, float("inf")
    for t, s in pairwise(ts):
        new, h = v(t, x), float(s - t)
        x = x + h * (new + h / h_old / 2 * (new - old))
        old, h_old = new, h
        yield x

@labcore.hookimpl
def register_samplers():
    return [ab2]
'''

STUDY = """
import labcore
from labcore import use

study = labcore.Study(
    name="stranger", question="Is AB2 better than Euler at equal cost?",
    target=use("gmm_ring"), process=use("vp"), grid=use("quadratic"),
    sampler=["ab2", "samplers:euler"], nfe=[20, 40], seed=range(2), n=200,
    metrics=["sliced_w2", "moments"],
)
if __name__ == "__main__":
    study.main()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path / "site", "labcore-acme", "acme = labcore_acme", labcore_acme=AB2)
    return tmp_path / "site"


def test_it_is_listed_with_what_it_declares(site: Path) -> None:
    out = labcore_cli(site, "list", "samplers").stdout
    (line,) = [line for line in out.splitlines() if line.startswith("acme:ab2")]
    assert "order 2" in line
    assert "1 NFE/step" in line
    shown = labcore_cli(site, "show", "ab2").stdout
    assert "Hairer" in shown
    assert "the first step is Euler" in shown
    assert "acme" in labcore_cli(site, "plugins").stdout


def test_it_runs_in_a_study_beside_built_ins(site: Path, tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    store = tmp_path / "r.sqlite"
    done = labcore_cli(site, "run", str(script), "--store", str(store))
    assert "8 cells run" in done.stdout
    again = labcore_cli(site, "run", str(script), "--store", str(store))
    assert "0 cells run, 8 were there" in again.stdout
    csv = tmp_path / "rows.csv"
    labcore_cli(site, "results", str(store), "--csv", str(csv))
    rows = csv.read_text().splitlines()
    assert sum("acme:ab2" in row for row in rows) == 2 * 2 * 3
    assert any('""acme"": ""1.0""' in row for row in rows)


def check(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_its_order_is_checked_and_a_wrong_weight_is_caught(site: Path, tmp_path: Path) -> None:
    code = "import labcore_acme, labcore.testing as lt; lt.check_sampler(labcore_acme.ab2)"
    done = check(site, code)
    assert done.returncode == 0, done.stderr
    wrong = AB2.replace("h / h_old / 2", "h / h_old / 3")
    install(tmp_path / "bad", "labcore-acme", "acme = labcore_acme", labcore_acme=wrong)
    done = check(tmp_path / "bad", code)
    assert "its order in law is 1." in done.stderr
    assert "declared 2" in done.stderr

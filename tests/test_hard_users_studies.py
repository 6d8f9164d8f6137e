"""Studies as hard users write them: refused in one line, or run as they are meant."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributions import environment, labcore_cli
from test_cli import STUDY
from toy_lab import ENTRIES, study, toy_em

import labcore
from labcore import use
from labcore.errors import InvalidStudy, PluginError
from labcore.parts import Parts
from labcore.run import Result, run_cells


def cells(**changes: Any) -> list[labcore.Cell]:
    made = study(**changes)
    return made.cells(made.registry())


def test_a_study_of_a_billion_cells_is_refused_at_once() -> None:
    made = study(seed=range(10**9))
    registry = made.registry()
    begun = time.perf_counter()
    with pytest.raises(InvalidStudy, match=r"it has 4,000,000,000 cells, the limit is 1,000,000"):
        made.cells(registry)
    assert time.perf_counter() - begun < 1


def test_axes_may_be_generators_and_arrays() -> None:
    usual = [cell.key for cell in cells(steps=[4, 8], seed=range(3))]
    assert [cell.key for cell in cells(steps=(2**i for i in (2, 3)))] == usual
    assert [cell.key for cell in cells(steps=np.array([4, 8]), seed=np.arange(3))] == usual


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"where": 3}, "where=3: give a function"),
        ({"where": lambda cell: cell.stepz > 3}, "has no attribute 'stepz' on local:toy_em"),
        ({"limit": "many"}, "limit='many': give a count"),
        ({"steps": np.array([True])}, "must be a whole number"),
        ({"name": "../../x"}, "it names a file"),
        ({"name": "a\x1b[31m"}, "it names a file"),
        ({"name": "n" * 300}, "at most 60 characters"),
    ],
)
def test_wrong_studies_are_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidStudy) as refused:
        cells(**changes)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_a_share_of_the_noise_that_is_none_is_refused_by_name(eta: float) -> None:
    with pytest.raises(InvalidStudy, match=r"sampler 'ddim(\(.*\))?'.*eta"):
        cells(sampler=use("ddim", eta=eta))


def test_one_entry_will_do_for_a_list_of_them() -> None:
    assert study(entries=toy_em).registry().get("sampler", "local:toy_em") is toy_em
    with pytest.raises(PluginError, match="5 is no entry"):
        study(entries=5).registry()


def measured(metric: labcore.Entry) -> Result:
    """What became of a cell that a metric was asked about, between two honest ones."""
    names = ["toy_mean", metric.name, "toy_moments"]
    made = study(metrics=names, entries=[*ENTRIES, metric], steps=4, seed=0, sampler="toy_em")
    registry = made.registry()
    return run_cells(made.cells(registry), made.metric_uses(registry), Parts(registry))[0]


def set_float64(outcome: labcore.Outcome) -> float:
    torch.set_default_dtype(torch.float64)
    return 1.0


METRICS: dict[str, tuple[Callable[[labcore.Outcome], Any], str]] = {
    "a text": (lambda outcome: "x", "it returned str; return a float"),
    "nothing": (lambda outcome: {}, "it returned no number"),
    "NaN": (lambda outcome: math.nan, "it is nan; it must be finite"),
    "an exit": (lambda outcome: sys.exit(4), "called sys.exit(4)"),
    "a draw": (lambda outcome: float(torch.randn(1)), "it changed torch's global generator"),
    "a setting": (set_float64, "it changed the default dtype"),
}


@pytest.mark.parametrize("deed", METRICS)
def test_a_bad_metric_is_told_and_harms_no_other(deed: str) -> None:
    fn, said = METRICS[deed]
    result = measured(labcore.metric(name="bad")(fn))
    assert said in result.unmeasured["local:bad"]
    assert result.values == measured(raising).values
    assert torch.get_default_dtype() == torch.float32


@labcore.metric
def raising(outcome: labcore.Outcome) -> float:
    """Fails, which is no matter."""
    raise ValueError


def test_a_metric_that_works_in_place_harms_no_other() -> None:
    @labcore.metric
    def greedy(outcome: labcore.Outcome) -> float:
        return float(outcome.samples.zero_().sum() + outcome.reference.mul_(0).sum())

    values = measured(greedy).values
    assert values.pop("local:greedy") == {"": 0.0}
    assert values == measured(raising).values


def test_a_seed_that_exits_takes_no_other_with_it() -> None:
    @labcore.sampler(order=1, evals=1)
    def exits(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        if len(x) > 64:
            sys.exit(1)
        yield from toy_em(process, score, x, ts, noise)

    made = study(sampler="exits", entries=[*ENTRIES, exits], steps=4)
    registry = made.registry()
    results = run_cells(made.cells(registry), made.metric_uses(registry), Parts(registry))
    assert [result.status for result in results] == ["ok"] * 3


def ended(*entries: labcore.Entry, **changes: Any) -> str:
    """The reason that a run of a sampler failed for."""
    names = {"sampler": [entry.name for entry in entries], **changes}
    made = study(**names, entries=[*ENTRIES, *entries], steps=4, seed=0)
    registry = made.registry()
    (result,) = run_cells(made.cells(registry), made.metric_uses(registry), Parts(registry))
    return result.reason


def test_a_sampler_that_never_ends_is_stopped() -> None:
    @labcore.sampler(order=1, evals=1)
    def endless(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        while True:
            yield x

    assert "yielded more than 4 states for 4 steps" in ended(endless)


def test_a_sampler_that_returns_its_samples_is_told_to_yield() -> None:
    @labcore.sampler(order=1, evals=1)
    def returns(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        for _ in ts[1:]:
            yield x
        return x

    assert "it returned a Tensor; yield states" in ended(returns)


def test_a_tolerance_below_all_precision_is_told() -> None:
    said = ended(sampler=use("torchdiffeq:dopri5", rtol=1e-20, atol=1e-20))
    assert "loosen rtol and atol" in said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("STEPS = [5]")
    return tmp_path


@pytest.mark.parametrize("name", ["json", "torch", "beside2"])
def test_scripts_may_have_any_name_and_import_what_lies_beside_them(
    folder: Path, name: str
) -> None:
    source = STUDY.format(steps="*STEPS", seeds=1, n=50)
    script = folder / f"{name}.py"
    script.write_text(f"from beside import STEPS\n{source}")
    out = labcore_cli(folder / "no", "run", str(script), "--store", str(folder / "s")).stdout
    assert "2 cells run, 0 were there, 0 failed" in out


def test_a_folder_for_results_that_is_a_file_leaves_with_three(folder: Path) -> None:
    (folder / "out").write_text("")
    (folder / "s.py").write_text(STUDY.format(steps="5", seeds=1, n=50))
    done = subprocess.run(
        [sys.executable, "-m", "labcore", "run", "s.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stderr == "labcore: store 'out': File exists; name a file that can be written " \
        "with --store\n"  # fmt: skip


def test_sigterm_ends_a_run_as_ctrl_c_does(folder: Path) -> None:
    (folder / "s.py").write_text(STUDY.format(steps="200", seeds=60, n=40000))
    run = subprocess.Popen(
        [sys.executable, "-m", "labcore", "run", "s.py", "--store", "s.sqlite"],
        cwd=folder,
        env=environment(folder / "no"),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder / "s.sqlite").exists():
        time.sleep(0.1)
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted" in err
    assert not (folder / "s.sqlite.lock").exists()


@pytest.mark.parametrize("against", ["data", "t_eps"])
def test_a_study_in_float64_measures_what_one_in_float32_does(against: str) -> None:
    """Its samples are float64, and targets draw float32."""
    metrics = [use("sliced_w2"), use("energy", pairs_up_to=64), use("mmd"), use("w2")]
    found = []
    for dtype in ("float32", "float64"):
        made = study(dtype=dtype, against=against, steps=[8], seed=[0], n=128, metrics=metrics)
        registry = made.registry()
        (result,) = run_cells(
            made.cells(registry)[:1], made.metric_uses(registry), Parts(registry)
        )
        assert not result.unmeasured
        found.append({name: of[""] for name, of in result.values.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-2, abs=1e-3)

"""A trained score in a study: trained once, before the cells, shared, found again, or told of."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainings import equal, small

import labcore
from labcore import Event, Parts, Study, lab, load_registry, use
from labcore.store import open_store

TINY = {"network": "mlp(width=16, depth=1)", "steps": 40, "batch": 32, "warmup": 5}


def study(**changes: Any) -> Study:
    given: dict[str, Any] = {
        "name": "learned",
        "question": "Does it run?",
        "target": "moons",
        "process": "vp",
        "score": use("trained", **TINY),
        "grid": "uniform",
        "sampler": ["ddim", "euler_maruyama"],
        "steps": [4, 6],
        "seed": range(2),
        "n": 64,
        "metrics": ["sliced_w2"],
        "floor_repeats": 2,
        **changes,
    }
    return Study(**given)


def rows(where: Path) -> list[dict[str, Any]]:
    with open_store(where) as store:
        return [dict(row) for _, row in store.frame("learned").iterrows()]


def values(where: Path) -> list[float]:
    return sorted(float(row["value"]) for row in rows(where) if row["status"] == "ok")


def test_trained_once_before_the_cells_and_found_by_the_next_run(tmp_path: Path) -> None:
    told: list[Event] = []
    where = tmp_path / "learned.sqlite"
    done = lab.run_study(study(), where, reporters=[told.append])
    assert (done.done, done.failed) == (8, 0)
    kinds = [event.kind for event in told]
    assert kinds[:2] == ["start", "note"]
    assert "note" not in kinds[kinds.index("cell") :]
    assert "step 40/40, loss" in told[1].message
    made = [path.name for path in (tmp_path / "learned.scores").iterdir()]
    assert made == [small().resolve(load_registry()).key]

    told.clear()
    weights = tmp_path / "learned.scores" / made[0] / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    again = lab.run_study(study(seed=range(3)), where, reporters=[told.append])
    assert (again.done, again.skipped, again.failed) == (4, 8, 0)
    assert "note" not in [event.kind for event in told]
    assert weights.stat().st_mtime_ns == before


def test_workers_load_and_give_the_same_rows(tmp_path: Path) -> None:
    lab.run_study(study(), tmp_path / "here.sqlite")
    done = lab.run_study(study(), tmp_path / "there.sqlite", workers=2)
    assert done.failed == 0
    assert values(tmp_path / "here.sqlite") == values(tmp_path / "there.sqlite")


def test_parts_that_only_load_never_train(tmp_path: Path) -> None:
    parts = Parts(load_registry(), tmp_path, make=False)
    with pytest.raises(labcore.LabError, match="is not trained yet; train it first"):
        labcore.train(small(), parts, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_is_the_reason_of_its_cells_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    @labcore.objective
    def hopeless(process: labcore.Process) -> Any:
        return lambda model, x0, generator: model.eps(x0, torch.rand(len(x0))).sum() * torch.nan

    wrong = use("trained", **{**TINY, "objective": "hopeless"})
    where = tmp_path / "learned.sqlite"
    made = study(score=[use("trained", **TINY), wrong], entries=[hopeless], steps=4, seed=0)
    done = lab.run_study(made, where)
    assert (done.done, done.failed) == (4, 2)
    failed = [row for row in rows(where) if row["status"] == "failed"]
    assert {row["score"] for row in failed} == {str(wrong.resolve("score", made.registry()))}
    assert all("the loss is nan at step 0; lower lr" in row["reason"] for row in failed)


def test_a_dry_run_says_what_is_to_be_trained_and_does_not(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(
        "import labcore\nfrom labcore import use\n"
        "study = labcore.Study(name='learned', question='?', target='moons', process='vp',\n"
        f"    score=['scores:perturbed', use('trained', **{TINY!r})], grid='uniform',\n"
        "    sampler='ddim', steps=4, n=64, metrics=['sliced_w2'], floor_repeats=2)\n"
    )
    run = [sys.executable, "-m", "labcore", "run", "study.py"]
    dry = subprocess.run(
        [*run, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "2 cells" in dry.stdout
    assert "mlp(width=16, depth=1) by " in dry.stdout
    assert "is not trained yet" in dry.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["study.py"]


def test_a_score_moves_to_another_folder_and_process_and_gives_its_samples(tmp_path: Path) -> None:
    first = tmp_path / "first.sqlite"
    lab.run_study(study(seed=0), first)
    (here,) = (tmp_path / "first.scores").iterdir()
    moved = tmp_path / "another machine" / "weights of mine"
    shutil.copytree(here, moved)
    shutil.rmtree(tmp_path / "first.scores")
    (tmp_path / "study.py").write_text(
        "import labcore\nfrom labcore import use\n"
        "study = labcore.Study(name='learned', question='?', target='moons', process='vp',\n"
        f"    score=use('from_folder', path={str(moved)!r}), grid='uniform',\n"
        "    sampler=['ddim', 'euler_maruyama'], steps=[4, 6], n=64, metrics=['sliced_w2'],\n"
        "    floor_repeats=2)\n"
    )
    second = tmp_path / "second.sqlite"
    run = [sys.executable, "-m", "labcore", "run", "study.py", "--store", str(second)]
    subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert values(second) == values(first)
    other = study(process="cld", score=use("from_folder", path=str(moved)), seed=0, steps=4)
    done = lab.run_study(other, tmp_path / "third.sqlite")
    reasons = [row["reason"] for row in rows(tmp_path / "third.sqlite") if row["status"] != "ok"]
    assert done.failed == 2
    assert len(reasons) == 2
    assert all("use the process of the recipe" in reason for reason in reasons)


def test_the_command_finds_what_a_study_trained(tmp_path: Path) -> None:
    parts = Parts(load_registry(), tmp_path)
    uses = (
        use("vp").resolve("process", parts.registry),
        use("moons").resolve("target", parts.registry),
    )
    score = parts.score(use("trained", **TINY).resolve("score", parts.registry), *uses)
    from labcore.cli.train import train_command

    flags = ["--target", "moons", "--process", "vp", "--network", "mlp(width=16, depth=1)"]
    numbers = ["--steps", "40", "--batch", "32", "--warmup", "5", "--folder", str(tmp_path)]
    assert train_command.main([*flags, *numbers], standalone_mode=False) == 0
    (folder,) = tmp_path.iterdir()
    made = labcore.load_trained(folder, parts)
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor(0.3)
    assert torch.equal(made(x, t.double()), score(x, t.double()))
    assert equal(made, labcore.train(small(), parts, tmp_path))

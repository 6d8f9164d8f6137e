"""A sheet a score: sheets show the score that the study trained, and train none of their own."""

from pathlib import Path

import pytest

from labcore import Study, use
from labcore.cli.figures import of_study
from labcore.lab import run_study
from labcore.work import scores_folder


def test_sheets_use_the_score_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(
        name="one",
        question="Whose score is on the sheet?",
        target=use("gmm_ring"),
        process=use("vp"),
        score=["exact", use("trained", network="mlp(width=4, depth=1)", steps=2, batch=8)],
        grid="log_snr",
        sampler="ddim",
        steps=[2],
        seed=[0],
        n=8,
        metrics=["sliced_w2"],
        floor_repeats=2,
    )
    store = tmp_path / "a" / "one.sqlite"
    store.parent.mkdir()
    assert run_study(study, store).failed == 0
    drawn = [path.name for path in of_study(study, str(store), tmp_path / "plots", ())]
    sheets = [name for name in drawn if name.startswith("samples") and name.endswith("png")]
    assert sheets == ["samples_gmm-ring_vp_0_exact.png", "samples_gmm-ring_vp_1_trained.png"]
    exact, trained = ((tmp_path / "plots" / name).read_bytes() for name in sheets)
    assert exact != trained
    assert scores_folder(study, store).is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "plots"]

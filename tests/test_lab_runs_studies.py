"""A study run to a store: only what is new runs, failures are rows, workers change nothing."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from toy_lab import ENTRIES, nan_below, study

import labcore
from labcore import InvalidStudy, StoreError, lab, use
from labcore.dry_run import estimate
from labcore.store import open_store


def frame(where: Path) -> pd.DataFrame:
    with open_store(where) as store:
        return store.frame("toy")


def ran(made: labcore.Study, where: Path, **options: Any) -> list[str]:
    """The cells a run executed, by what reporters are told."""
    told: list[str] = []

    def follow(event: Any) -> None:
        told.extend(row["key"] for row in event.rows)

    lab.run_study(made, where, reporters=[follow], **options)
    return told


def test_rows_are_tidy_and_complete(tmp_path: Path) -> None:
    summary = lab.run_study(study(), tmp_path / "s")
    assert (summary.total, summary.done, summary.failed) == (12, 12, 0)
    rows = frame(tmp_path / "s")
    cells, floors = rows[rows.kind == "cell"], rows[rows.kind == "floor"]
    assert len(cells) == 12 * 3
    assert len(floors) == 4 * 3
    assert set(cells.metric) == {
        "local:toy_mean",
        "local:toy_moments.mean",
        "local:toy_moments.std",
    }
    em = cells[cells.sampler == "local:toy_em"]
    assert (em.nfe == em.steps).all()
    assert (cells[cells.sampler == "local:toy_heun"].nfe == 2 * em.steps.to_numpy()).all()


def test_nothing_finished_runs_again_and_only_the_new_does(tmp_path: Path) -> None:
    where = tmp_path / "s"
    assert len(ran(study(sampler="toy_em"), where)) == 6
    assert ran(study(sampler="toy_em"), where) == []
    assert len(ran(study(sampler="toy_em", seed=range(5)), where)) == 4
    assert len(ran(study(seed=range(5)), where)) == 10
    before = frame(where)
    assert len(ran(study(seed=range(5), metrics=["toy_mean"]), where)) == 0
    assert len(frame(where)) == len(before)


def test_a_new_metric_is_added_to_the_same_samples(tmp_path: Path) -> None:
    lab.run_study(study(metrics=["toy_mean"]), tmp_path / "a")
    lab.run_study(study(metrics=["toy_mean", "toy_moments"]), tmp_path / "a")
    lab.run_study(study(metrics=["toy_mean", "toy_moments"]), tmp_path / "b")
    columns = ["key", "metric", "value"]
    a, b = (frame(tmp_path / s)[columns].sort_values(columns[:2]) for s in "ab")
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))


def test_workers_give_the_rows_of_this_process(tmp_path: Path) -> None:
    made = study(entries=ENTRIES)
    lab.run_study(made, tmp_path / "0")
    lab.run_study(made, tmp_path / "2", workers=2)
    columns = ["key", "metric", "seed", "value"]
    a, b = (frame(tmp_path / s)[columns].sort_values(columns[:3]) for s in "02")
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))


def test_failing_cells_are_rows_and_the_rest_goes_on(tmp_path: Path) -> None:
    made = study(score=[use("toy_exact"), use("toy_nan")], entries=[*ENTRIES, nan_below(0.3)])
    summary = lab.run_study(made, tmp_path / "s")
    assert (summary.done, summary.failed) == (24, 12)
    rows = frame(tmp_path / "s")
    failed = rows[rows.status == "failed"]
    assert len(failed) == 12
    assert failed.reason.str.contains("NaN or Inf at t=").all()
    assert (rows[(rows.score == "local:toy_exact")].status == "ok").all()


def test_failed_cells_wait_until_they_are_asked_for(tmp_path: Path) -> None:
    made = study(score="toy_nan", entries=[*ENTRIES, nan_below(0.3)])
    assert len(ran(made, tmp_path / "s")) == 12
    assert ran(made, tmp_path / "s") == []
    assert len(ran(made, tmp_path / "s", retry_failed=True)) == 12


def test_an_interrupt_leaves_a_store_that_continues(tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if event.done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.run_study(study(), tmp_path / "s", reporters=[stop])
    kept = frame(tmp_path / "s")
    kept_cells = kept[kept.kind == "cell"].key.nunique()
    assert 7 <= kept_cells < 12
    assert len(ran(study(), tmp_path / "s")) == 12 - kept_cells


def test_filters_keep_cells_and_say_what_there_is(tmp_path: Path) -> None:
    assert len(ran(study(), tmp_path / "s", filters=["sampler=heun", "steps=8"])) == 3
    with pytest.raises(InvalidStudy, match="write axis=text"):
        lab.run_study(study(), tmp_path / "s", filters=["smapler=heun"])
    with pytest.raises(InvalidStudy, match="it keeps no cell; steps has 4, 8"):
        lab.run_study(study(), tmp_path / "s", filters=["steps=5"])


def test_two_studies_share_the_cells_they_have_in_common(tmp_path: Path) -> None:
    lab.run_study(study(), tmp_path / "s")
    assert ran(study(name="other"), tmp_path / "s") == []
    with open_store(tmp_path / "s") as store:
        assert len(store.frame("other")) == len(store.frame("toy"))


def test_coupled_samplers_run_one_cell_at_a_time(tmp_path: Path) -> None:
    @labcore.sampler(order=1, evals=1, coupled=True)
    def coupled(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        assert x.shape[0] == 64
        for t in ts[:-1]:
            x = x + 0.0 * score(x, t)
            yield x

    summary = lab.run_study(study(sampler="coupled", entries=[*ENTRIES, coupled]), tmp_path / "s")
    assert summary.failed == 0


def test_estimate_counts_and_takes_some_time(tmp_path: Path) -> None:
    count, seconds = estimate(study())
    assert count == 12
    assert 0 < seconds < 60


def test_a_damaged_store_is_refused_before_its_cells_count_as_done(tmp_path: Path) -> None:
    where = tmp_path / "s"
    lab.run_study(study(), where)
    damaged = bytearray(where.read_bytes())
    damaged[damaged.rfind(b"local:toy_heun")] ^= 1
    where.write_bytes(damaged)
    with pytest.raises(StoreError, match="salvage"):
        lab.run_study(study(), where)


def test_a_sampler_that_leaves_the_working_folder_is_brought_back(tmp_path: Path) -> None:
    @labcore.sampler(order=1, evals=1)
    def roaming(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        os.chdir(tmp_path)
        for t in ts[:-1]:
            x = x + 0.0 * score(x, t)
            yield x

    here = Path.cwd()
    made = study(sampler="roaming", entries=[*ENTRIES, roaming], steps=4, seed=0)
    assert lab.run_study(made, tmp_path / "s").failed == 1
    assert Path.cwd() == here
    assert "the working directory" in frame(tmp_path / "s").reason.max()

"""What lies in a training's folder is whole and of this recipe, or it is refused in one line."""

import errno
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_trainings import equal, small, train

import labcore
from labcore import Parts, StoreError, load_registry
from labcore.learn import checkpoints
from labcore.learn.checkpoints import read_tensors

STATE, WEIGHTS, RECIPE = "state.safetensors", "weights.safetensors", "recipe.json"


class Stop(Exception):
    """Raised by a report, to leave a training half done."""


def stop(at: Any) -> None:
    if at.step == 9:
        raise Stop


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Path:
    """Two folders: one training that is done, and one that stopped at step 9."""
    folder = tmp_path_factory.mktemp("trainings")
    train(small(), folder / "done")
    with pytest.raises(Stop):
        train(small(), folder / "half", report=stop)
    return Path(folder)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


KEY = small().resolve(load_registry()).key


class Runs:
    """A pickle that runs code where it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("it_ran",)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Runs()))


def foreign(path: Path) -> None:
    from safetensors.torch import save

    path.write_bytes(save({name: value for name, value in read_tensors(path)[0].items()}))


def nested(path: Path) -> None:
    head = b"[" * 100_000
    path.write_bytes(struct.pack("<Q", len(head)) + head)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


DAMAGES = [truncated, emptied, zeroed, huge_header, pickled, foreign, nested, linked]


def one_line_with_a_remedy(error: StoreError) -> None:
    text = str(error)
    assert "\n" not in text
    assert error.exit_code == 3
    assert any(word in text for word in ("delete", "restore", "train again", "put the file"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [STATE, WEIGHTS])
def test_damaged_weights_are_refused_and_nothing_is_run(
    name: str, damage: Callable[[Path], None], folder: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    where = folder / ("half" if name == STATE else "done")
    damage(where / KEY / name)
    before = (where / KEY / name).read_bytes()
    with pytest.raises(StoreError, match=name) as caught:
        train(small(), where)
    one_line_with_a_remedy(caught.value)
    assert not (tmp_path / "it_ran").exists()
    assert (where / KEY / name).read_bytes() == before


def test_a_flipped_bit_anywhere_is_noticed(folder: Path) -> None:
    for name, where in ((STATE, folder / "half"), (WEIGHTS, folder / "done")):
        path = where / KEY / name
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << (at % 8)
            if chr(flipped[at]).isspace() and chr(whole[at]).isspace():
                continue  # padding of the header, which says nothing
            path.write_bytes(flipped)
            with pytest.raises(StoreError, match=name):
                read_tensors(path)


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda facts: {**facts, **values}


def in_recipe(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda facts: {**facts, "recipe": {**facts["recipe"], **values}}


@pytest.mark.parametrize(
    "change",
    [
        changed(recipe=3),
        changed(event="x"),
        changed(event=[3]),
        changed(data_std=[1]),
        changed(data_std=2.0),
        changed(sha256="0"),
        in_recipe(steps="many"),
        in_recipe(steps=41),
        in_recipe(reading="x0"),
        in_recipe(surprise=1),
        in_recipe(network={"name": "mlp"}),
        in_recipe(network=7),
        lambda facts: [facts],
        lambda facts: {},
        lambda facts: None,
    ],
)
def test_a_recipe_that_is_not_what_was_written_is_refused(
    change: Callable[[dict[str, Any]], Any], folder: Path
) -> None:
    path = folder / "done" / KEY / RECIPE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(StoreError, match=r"recipe\.json") as caught:
        train(small(), folder / "done")
    one_line_with_a_remedy(caught.value)


@pytest.mark.parametrize("text", ["", "{", "\x00" * 20, "[" * 100_000, "\udcff"])
def test_a_recipe_that_is_no_json_is_refused(text: str, folder: Path) -> None:
    path = folder / "done" / KEY / RECIPE
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=r"recipe\.json"):
        train(small(), folder / "done")


def test_a_checkpoint_of_another_recipe_is_refused(folder: Path) -> None:
    other = small(seed=1).resolve(load_registry())
    (folder / "half" / KEY).rename(folder / "half" / other.key)
    with pytest.raises(StoreError, match=r"is of another recipe than .* delete it"):
        train(small(seed=1), folder / "half")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    width = [8]

    @labcore.network
    def growing(event: tuple[int, ...]) -> Any:
        return load_registry().get("network", "mlp")(event, width=width[0], depth=1)

    parts = Parts(load_registry([growing]))
    labcore.train(small(network="growing"), parts, tmp_path)
    width[0] = 10  # as a later version of its code has it
    with pytest.raises(StoreError, match=r"do not fit .*growing.*code has changed.* train again"):
        labcore.train(small(network="growing"), parts, tmp_path)


def test_a_half_done_training_goes_on_and_leaves_nothing_but_weights(folder: Path) -> None:
    (folder / "half" / KEY / "state.safetensors.123.part").write_bytes(b"left by a kill")
    ended = train(small(), folder / "half")
    assert equal(ended, train(small(), folder / "done"))
    left = {path.name for path in (folder / "half" / KEY).iterdir()}
    assert left == {".lock", RECIPE, WEIGHTS}


def test_no_folder_no_file_and_no_score_are_told_apart_from_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be used \(Not a directory\); name a folder"):
        train(small(), tmp_path / "file")
    with pytest.raises(StoreError, match=r"No such file.*give the folder of a trained score"):
        labcore.load_trained(tmp_path, Parts(load_registry()))


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / KEY).mkdir()
    (tmp_path / KEY / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="cannot be used"):
        train(small(), tmp_path)
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint(
    number: int, tmp_path: Path, monkeypatch: Any
) -> None:
    done: list[int] = []

    def full(file: int) -> None:
        done.append(file)
        if len(done) > 4:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", full)
        with pytest.raises(StoreError, match=r"state\.safetensors cannot be written") as caught:
            train(small(), tmp_path, every=0)
    assert os.strerror(number) in str(caught.value)
    assert [path.name for path in (tmp_path / KEY).glob("state*")] == [STATE]
    assert read_tensors(tmp_path / KEY / STATE)[1]["step"] == 3
    assert equal(train(small(), tmp_path), train(small(), tmp_path / "whole"))


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def denied(file: int) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(checkpoints.os, "fsync", denied)
    with pytest.raises(StoreError, match="Permission denied"):
        train(small(), tmp_path, report=lambda at: pytest.fail("it began"))


def test_weights_that_share_memory_are_kept(tmp_path: Path) -> None:
    @labcore.network
    def tied(event: tuple[int, ...]) -> Any:
        net = load_registry().get("network", "mlp")(event, width=8, depth=2)
        net.blocks[1].rise.weight = net.blocks[0].rise.weight
        return net

    parts = Parts(load_registry([tied]))
    made = labcore.train(small(network="tied"), parts, tmp_path)
    again = labcore.train(small(network="tied"), parts, tmp_path)
    assert equal(made, again)

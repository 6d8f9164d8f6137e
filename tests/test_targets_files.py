"""Files as targets: what is saved comes back, and what cannot be a target says why, unread."""

import io
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from labcore import InvalidOption, LabError, Target
from labcore_targets import file

ROWS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def data_of(target: Target) -> np.ndarray:
    assert target.data is not None
    return target.data.numpy()


def refused(match: str, **options: object) -> str:
    with pytest.raises(InvalidOption, match=match) as caught:
        file(**file.bind(options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is saved comes back


def test_npy_npz_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.savez_compressed(tmp_path / "a.npz", rows=ROWS, other=ROWS[:, :1])
    np.savez(tmp_path / "one.npz", ROWS)
    columns = {name: ROWS[:, i] for i, name in enumerate("xyz")}
    pq.write_table(pa.table({**columns, "label": ["a"] * 50}), tmp_path / "a.parquet")
    lists = pa.array(list(ROWS), type=pa.list_(pa.float32()))
    pq.write_table(pa.table({"v": lists, "w": ROWS[:, 0]}), tmp_path / "lists.parquet")
    for options in (
        {"path": "a.npy"},
        {"path": "a.npz", "key": "rows"},
        {"path": "one.npz"},
        {"path": "a.parquet"},
        {"path": "a.parquet", "key": "x, y, z"},
        {"path": "lists.parquet", "key": "v"},
    ):
        target = file(**{**options, "path": str(tmp_path / options["path"])})
        assert np.array_equal(data_of(target), ROWS)
        assert target.event == (3,)
        assert target.image is None
    swapped = file(path=str(tmp_path / "a.parquet"), key="z,x")
    assert np.array_equal(data_of(swapped), ROWS[:, [2, 0]])


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.float16, np.float32, np.float64, np.bool_, ">f4"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 1},
    )
)
def test_arrays_of_any_numbers_and_shape(tmp_path_factory, rows: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("arrays") / "a b é.npy"
    np.save(path, np.asfortranarray(rows))
    got = data_of(file(path=str(path)))
    assert np.array_equal(got.reshape(rows.shape), rows.astype(np.float32))
    assert got.ndim >= 2


def test_samples_are_rows_drawn_with_replacement(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    target = file(path=str(tmp_path / "a.npy"))
    x = target.sample(1000, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in x.tolist()} == {tuple(row) for row in ROWS.tolist()}
    assert torch.equal(x, target.sample(1000, torch.Generator().manual_seed(0)))


def test_scaling(tmp_path: Path) -> None:
    rows = np.stack([np.linspace(0, 255, 20), np.full(20, 7.0)], 1)
    np.save(tmp_path / "a.npy", rows)
    path = str(tmp_path / "a.npy")
    ranged = data_of(file(path=path, scale="range"))
    assert np.allclose(ranged, rows / 127.5 - 1, atol=1e-6)
    standard = data_of(file(path=path, scale="standard")).astype(np.float64)
    assert np.allclose(standard.mean(0), 0, atol=1e-6)
    assert np.allclose(standard.std(0), [1, 0], atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".JPEG"])
def test_images_come_in_order_of_name_between_minus_one_and_one(
    tmp_path: Path, suffix: str
) -> None:
    pixels = np.zeros((3, 8, 6, 3), np.uint8)
    pixels[0, :, :, 0], pixels[1, :, :, 1], pixels[2] = 255, 255, 255
    for name, picture in zip("bac", pixels, strict=True):
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(picture).save(tmp_path / f"{name}{suffix}", **options)
    (tmp_path / "notes.txt").write_text("not an image")
    rgb = file(path=str(tmp_path), mode="rgb")
    assert rgb.event == (3, 8, 6)
    wanted = pixels[[1, 0, 2]].transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.abs(data_of(rgb) - wanted).max() < (0.05 if suffix == ".JPEG" else 1e-6)
    gray = file(path=str(tmp_path))
    assert (gray.event, gray.image) == ((1, 8, 6), (8, 6))
    assert data_of(gray)[2] == pytest.approx(1.0)
    assert file(path=str(tmp_path), size=4).event == (1, 4, 4)


# What cannot be a target says why


def test_what_is_not_there_or_not_readable(tmp_path: Path) -> None:
    refused("no such file in .*check path", path=str(tmp_path / "none.npy"))
    refused("'.csv' is not a format it reads; give .npy, .npz", path=str(tmp_path / "a.csv"))
    refused("no image in this folder", path=str(tmp_path))
    with pytest.raises(InvalidOption, match="'path' must be given"):
        file.bind({})


def broken_npy(path: Path) -> None:
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes()[:200])


def pickled_npy(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def raw_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(ROWS))


def huge_npy(path: Path) -> None:
    """A header that promises 8 TB, and nothing behind it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    path.write_bytes(header.getvalue() + bytes(100))


def negative_npy(path: Path) -> None:
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes().replace(b"(50, 3)", b"(-9, 3)"))


def with_nan(path: Path) -> None:
    rows = ROWS.copy()
    rows[3, 1], rows[7, 0] = np.nan, np.inf
    np.save(path, rows)


def save(value: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.asarray(value))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (broken_npy, "not a whole array"),
        (lambda path: path.write_bytes(b""), "not a whole array"),
        (raw_pickle, "not a whole array"),
        (pickled_npy, "object, which would need unpickling"),
        (huge_npy, "1,000,000,000,000 numbers.*limit_mb=1024"),
        (negative_npy, "not a whole array"),
        (with_nan, "2 of 50 rows have NaN or Inf"),
        (save(np.empty((0, 3))), r"shape \(0, 3\), no samples"),
        (save(np.empty((5, 0))), r"shape \(5, 0\), no samples"),
        (save(3.0), r"shape \(\), no samples"),
        (save(["a", "b"]), "dtype is <U1"),
        (save([1j]), "dtype is complex128"),
        (save(np.zeros(2, dtype=[("a", "f4")])), "dtype is "),
        (save([[1e300]]), "NaN or Inf"),
    ],
)
def test_npy_files_that_are_no_data(
    tmp_path: Path, write: Callable[[Path], None], words: str
) -> None:
    write(tmp_path / "a.npy")
    message = refused(words, path=str(tmp_path / "a.npy"))
    assert message.startswith("target 'file': a.npy: ")


def test_pickles_are_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([Bomb()], dtype=object))
    refused("unpickling", path=str(tmp_path / "a.npy"))
    refused("unpickling", path=str(tmp_path / "a.npz"))
    assert not (tmp_path / "ran").exists()


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=ROWS, b=ROWS)
    refused("no array ''.*one of: a, b", path=str(path))
    refused("no array 'c'.*one of: a, b", path=str(path), key="c")
    path.write_bytes(path.read_bytes()[:300])
    refused("not a readable .npz archive", path=str(path))
    refused("holds one array", path=str(path.rename(tmp_path / "a.npy")), key="a")


def test_a_bomb_in_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    """2 GB of zeros in 2 MB: refused by its header, in no time and no memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**31, 1)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(2**20))
    refused("2,147,483,648 numbers, 8,192 MB", path=str(tmp_path / "a.npz"))


def test_the_limit_is_the_size_as_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2**18, 1), np.uint8))
    assert file(path=str(tmp_path / "a.npy"), limit_mb=1).event == (1,)
    np.save(tmp_path / "b.npy", np.zeros((2**18 + 1, 1), np.uint8))
    refused("limit_mb=1;", path=str(tmp_path / "b.npy"), limit_mb=1)


def test_tables_that_are_no_data(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")

    def write(**columns: object) -> None:
        pq.write_table(pa.table(columns), path)

    write(x=[1.0, 2.0], name=["a", "b"])
    refused("no column q; key names columns of: x, name", path=path, key="x,q")
    refused("column name is not of numbers", path=path, key="x,name")
    write(name=["a"])
    refused("no column of numbers", path=path)
    write(x=[1.0, None])
    refused("1 of 2 rows have NaN", path=path)
    write(v=[[1.0, 2.0], [3.0]])
    refused(r"lists have lengths \[\(1,\), \(2,\)\]", path=path, key="v")
    write(v=[["a"], ["b"]])
    refused("lists are not of numbers", path=path, key="v")
    write(x=pa.array([], pa.float64()))
    refused("no samples", path=path)
    write(x=np.zeros(2**19))
    refused("524,288 numbers", path=path, limit_mb=1)
    Path(path).write_bytes(b"PAR1 but no table PAR1")
    refused("not a readable parquet", path=path)


def tiny_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_images_that_are_no_data(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 5)).save(tmp_path / "b.png")
    refused(r"b.png: its pixels are \(1, 5, 4\), those of a.png.*give size=", path=str(tmp_path))
    (tmp_path / "b.png").write_bytes(b"GIF89a nothing")
    refused("b.png: not a readable image", path=str(tmp_path))
    (tmp_path / "b.png").write_bytes(tiny_png(4, 5)[:45])
    refused("b.png: not a readable image", path=str(tmp_path))


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_images_of_too_many_pixels_are_not_decoded(tmp_path: Path, side: int) -> None:
    """Within Pillow's own limit, where it warns, and where it raises."""
    (tmp_path / "a.png").write_bytes(tiny_png(side, side))
    refused(r"a.png: (it holds|too many pixels)", path=str(tmp_path), limit_mb=200)


@pytest.mark.parametrize(("module", "name"), [("pyarrow", "parquet"), ("PIL", "images")])
def test_a_missing_library_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    (tmp_path / "a.parquet").touch()
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, module, None)
    place = tmp_path / "a.parquet" if name == "parquet" else tmp_path
    with pytest.raises(LabError, match=rf"pip install 'labcore\[{name}\]'"):
        file(path=str(place))


def test_constant_data_have_no_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 2), 3.0))
    refused("all its numbers are 3", path=str(tmp_path / "a.npy"), scale="range")

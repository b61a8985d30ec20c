"""MATLAB files of version 5: as scipy reads them, and damaged."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmerge.errors import SampleError
from labelmerge.sharding.pictures import matlab

from .matlab_files import cells, mat


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u8", "f4", "f8"])
def test_arrays_are_as_scipy_reads_them(dtype: str, compress: bool, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 200, (5, 7)).astype(dtype)
    mat(tmp_path / "a.mat", compress, other="text", LabelMap=values)
    read = matlab.load(tmp_path / "a.mat", "LabelMap")
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, scipy.io.loadmat(tmp_path / "a.mat")["LabelMap"])
    assert matlab.load(tmp_path / "a.mat", "other") == "text"


def test_cells_and_structs(tmp_path: Path) -> None:
    frames = np.array([("a/b.jpg", 1.5, cells(["x"])), ("ü.jpg", 2.5, cells([]))], dtype=[(n, object) for n in "pqr"])
    mat(tmp_path / "a.mat", names=cells(["wall", np.zeros((2, 2)), "bed", cells(["in"])], column=True), frames=frames)
    names = matlab.load(tmp_path / "a.mat", "names")
    assert matlab.texts(names) == ["wall", "", "bed", ""]
    assert isinstance(names, list) and names[3] == ["in"]
    assert matlab.load(tmp_path / "a.mat", "frames", ("p",)) == [{"p": "a/b.jpg"}, {"p": "ü.jpg"}]
    assert matlab.load(tmp_path / "a.mat", "frames", ("r",)) == [{"r": ["x"]}, {"r": []}]


def big_endian() -> bytes:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    body = element(6, struct.pack(">II", 11, 0)) + element(5, struct.pack(">ii", 2, 2)) + element(1, b"x")
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\x01\x00MI"
        + element(14, body + element(4, struct.pack(">4H", *range(4))))
    )


def test_files_of_big_endian_machines(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(big_endian())
    read = matlab.load(tmp_path / "a.mat", "x")
    assert isinstance(read, np.ndarray) and read.tolist() == [[0, 2], [1, 3]]
    np.testing.assert_array_equal(read, scipy.io.loadmat(tmp_path / "a.mat")["x"])


def declared(shape: tuple[int, int], kind: int = 9, data: bytes = b"\1") -> bytes:
    """A file with one variable `x`, of this class and shape, and this many bytes of it."""

    def element(number: int, content: bytes) -> bytes:
        return struct.pack("<II", number, len(content)) + content + b"\0" * (-len(content) % 8)

    body = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *shape)) + element(1, b"x")
    return b"MATLAB".ljust(124) + b"\x00\x01IM" + element(14, body + element(2, data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a MATLAB file of version 5 to 7"),
        (b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n", "is a MATLAB 7.3 file"),
        (declared((2, 2))[:150], "it ends too early"),
        (declared((1, 1))[:124] + b"\x00\x01IM", r"has no variable 'x' \(only none at all\)"),
        (declared((2**31 - 1, 2**31 - 1)), "1 numbers, not 2147483647 x 2147483647"),
        (declared((-1, 4)), "no dimensions"),
        (declared((2**31 - 1, 2**31 - 1), kind=1), "type 2 is not an array"),
        (declared((2**31 - 1, 2**31 - 1), kind=2), "names of fields|damaged"),
        (declared((1, 1), kind=17), "'x' is neither numbers nor text"),
        (declared((1, 1))[:128] + struct.pack("<II", 15, 8) + b"notazlib", "damaged MATLAB file"),
    ],
)
def test_damaged_files_are_one_clear_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(SampleError, match=message):
        matlab.load(tmp_path / "a.mat", "x")


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_BYTES", 1 << 20)
    packed = zlib.compress(b"\0" * (8 << 20))
    (tmp_path / "a.mat").write_bytes(declared((1, 1))[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(SampleError, match="unpacks to more than 1 MiB"):
        matlab.load(tmp_path / "a.mat", "x")


def sample_bytes() -> bytes:
    out = BytesIO()
    frames = np.array([("a", 1)], dtype=[("p", object), ("q", object)])
    content = {"names": cells(["wall", "bed"]), "frames": frames, "LabelMap": np.arange(6, dtype=np.uint16)}
    scipy.io.savemat(out, content)
    return out.getvalue()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(100, 700), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(["names", "frames", "LabelMap"]),
    st.integers(0, 700),
)
def test_any_bytes_give_a_value_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], name: str, cut: int
) -> None:
    data = bytearray(sample_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.mat"
    path.write_bytes(data[: len(data) - cut] if cut < 100 else data)
    try:
        matlab.load(path, name, ("p",))
    except SampleError as error:
        assert "\n" not in str(error) and str(path) in str(error)

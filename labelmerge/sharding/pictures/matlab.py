"""MATLAB files: those up to version 7 ("level 5", parsed here) and those of version 7.3, which are HDF5 (h5py).

Level 5 is documented in MathWorks' "MAT-File Format". Only what datasets need is decoded: arrays of numbers, lines of
text, cells and structs. A general parser would allocate whatever a file declares; here nothing grows beyond the data
that are there, and these are bounded, so that a damaged or hostile file is an error and not a dead machine.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import LabelmergeError, SampleError

if TYPE_CHECKING:
    import h5py

Array = npt.NDArray[Any]
# Numbers: [dimensions as in MATLAB], in the type they are stored in, which may be smaller than that of the variable.
# Text: str. Cells: a list in MATLAB's order. Structs: a list of dicts. None: a kind that no dataset needs.
Value = Array | str | list[Any] | None

MAX_BYTES = 1 << 30  # of a level 5 file, of what one of its variables unpacks to, and of one array in an HDF5 file

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x08
_MAX_DEPTH = 16
_HDF5 = b"\x89HDF\r\n\x1a\n"


class _Damaged(Exception):
    """What is wrong with a file, in words that follow its name."""


def load(
    path: Path, name: str, fields: Sequence[str] = (), fault: type[LabelmergeError] = SampleError
) -> Array | str | list[Any]:
    """One variable of a MATLAB file of version 5 to 7.

    Args:
        path: the file.
        name: the variable.
        fields: of structs, only these fields are decoded.
        fault: the error to raise.

    Raises:
        `fault`: the file can't be read, is of another kind or damaged, or has no such variable.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _Damaged(f"is larger than {MAX_BYTES >> 20} MiB: no annotation is")
        value = _variable(path.read_bytes(), name, fields)
    except OSError as error:
        raise fault(f"can't be read ({error.strerror})", where=path) from error
    except _Damaged as error:
        raise fault(str(error), where=path) from error
    except (zlib.error, struct.error, UnicodeDecodeError) as error:
        raise fault(f"is a damaged MATLAB file ({error})", where=path) from error
    return value


def _variable(data: bytes, name: str, fields: Sequence[str]) -> Array | str | list[Any]:
    if data[:8] == _HDF5 or data[512:520] == _HDF5:
        raise _Damaged("is a MATLAB 7.3 file, which is HDF5: expected one of version 5 to 7 (save it with -v7)")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise _Damaged("is not a MATLAB file of version 5 to 7")
    names = []
    stream = _Stream(data, order, _HEADER)
    while not stream.at_end():
        kind, body = stream.element(padded=False)
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(body, MAX_BYTES)
            if len(unpacked) == MAX_BYTES:
                raise _Damaged(f"unpacks to more than {MAX_BYTES >> 20} MiB")
            if not unpacker.eof:
                raise _Damaged("is a damaged MATLAB file (it ends too early)")
            kind, body = _Stream(unpacked, order).element()
        if kind != _MATRIX:
            raise _Damaged(f"is a damaged MATLAB file (element of type {kind} where a variable is expected)")
        found, value = _matrix(body, order, fields, wanted=name)
        if found == name:
            if value is None:
                raise _Damaged(f"its {name!r} is neither numbers nor text, cells nor structs")
            return value
        names.append(found)
    raise _Damaged(f"has no variable {name!r} (only {', '.join(map(repr, names[:8])) or 'none at all'})")


class _Stream:
    """The elements of a level 5 file, or of a matrix in one, from first to last."""

    def __init__(self, data: bytes | memoryview, order: str, start: int = 0) -> None:
        self._data, self.order, self._at = memoryview(data), order, start

    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def element(self, padded: bool = True) -> tuple[int, memoryview]:
        """The next element's type and bytes; `padded`: to a multiple of 8, as all are except compressed ones."""
        (first,) = struct.unpack_from(self.order + "I", self._data, self._at)
        if first >> 16:  # the short form: size, type and up to four bytes in one word
            kind, size, start, end = first & 0xFFFF, first >> 16, self._at + 4, self._at + 8
            if size > 4:
                raise _Damaged("is a damaged MATLAB file (a short element of more than 4 bytes)")
        else:
            kind = first
            (size,) = struct.unpack_from(self.order + "I", self._data, self._at + 4)
            start = self._at + 8
            end = start + size + (-size % 8 if padded or kind != _COMPRESSED else 0)
        if start + size > len(self._data):
            raise _Damaged("is a damaged MATLAB file (it ends too early)")
        self._at = end
        return kind, self._data[start : start + size]

    def numbers(self) -> Array:
        """The next element as a list of numbers."""
        kind, data = self.element()
        if kind not in _NUMBERS:
            raise _Damaged(f"is a damaged MATLAB file (type {kind} is not a number)")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise _Damaged("is a damaged MATLAB file (half a number)")
        return np.frombuffer(data, dtype)


def _matrix(
    body: memoryview, order: str, fields: Sequence[str], wanted: str | None = None, depth: int = 0
) -> tuple[str, Value]:
    """A matrix's name and value; the value is decoded if the name is `wanted`, or no name is."""
    if not len(body):
        return "", np.zeros((0, 0))
    if depth > _MAX_DEPTH:
        raise _Damaged(f"nests arrays more than {_MAX_DEPTH} deep")
    stream = _Stream(body, order)
    flags, dimensions, letters = stream.numbers(), stream.numbers(), stream.numbers()
    if not len(flags) or dimensions.dtype.kind != "i" or len(dimensions) < 2 or dimensions.min() < 0:
        raise _Damaged("is a damaged MATLAB file (no dimensions)")
    name = letters.tobytes().decode("latin-1")
    if wanted is not None and name != wanted:
        return name, None
    kind, shape = int(flags[0]) & 0xFF, tuple(map(int, dimensions))
    count = math.prod(shape)

    def inner(which: Sequence[str]) -> Iterator[tuple[str, Value]]:
        """The matrices inside, named in turn by `which`; those not asked for are not decoded."""
        for number in range(count * len(which)):
            field = which[number % len(which)]
            inner_kind, inner_body = stream.element()
            if inner_kind != _MATRIX:
                raise _Damaged(f"is a damaged MATLAB file (type {inner_kind} is not an array)")
            if not field or not fields or field in fields:
                yield field, _matrix(inner_body, order, fields, depth=depth + 1)[1]

    if kind == _CELL:
        return name, [value for _, value in inner([""])]
    if kind == _STRUCT:
        (length,) = stream.numbers().tolist() or [0]
        _, text = stream.element()
        if length < 1 or len(text) % length:
            raise _Damaged("is a damaged MATLAB file (names of fields)")
        parts = [bytes(text[at : at + length]).split(b"\0")[0].decode("latin-1") for at in range(0, len(text), length)]
        records: list[dict[str, Value]] = []
        for field, value in inner(parts):
            if not records or field in records[-1]:
                records.append({})
            records[-1][field] = value
        return name, records
    if kind == _CHAR:
        code, text = stream.element()
        if code not in _TEXT:
            raise _Damaged(f"is a damaged MATLAB file (type {code} is not text)")
        endian = {"<": "-le", ">": "-be"}[order] if _TEXT[code] in ("utf-16", "utf-32") else ""
        return name, bytes(text).decode(_TEXT[code] + endian) if shape[0] <= 1 and len(shape) == 2 else None
    if kind in _NUMERIC and not (int(flags[0]) >> 8) & _COMPLEX:
        values = stream.numbers()
        if len(values) != count:
            raise _Damaged(f"is a damaged MATLAB file ({len(values)} numbers, not {' x '.join(map(str, shape))})")
        return name, values.reshape(shape, order="F")
    return name, None


def texts(value: Value) -> list[str]:
    """A cell array of texts; anything else in it becomes ""."""
    return [entry if isinstance(entry, str) else "" for entry in value] if isinstance(value, list) else []


@contextmanager
def open_hdf5(path: Path, fault: type[LabelmergeError] = SampleError) -> Iterator[h5py.File]:
    """Open an HDF5 file, such as one of MATLAB 7.3, to look something up in it.

    Raises:
        LabelmergeError: h5py is not installed.
        `fault`: the file can't be read, or something goes wrong while it is open.
    """
    try:
        import h5py
    except ImportError as error:
        raise LabelmergeError(
            "reading MATLAB 7.3 files needs h5py", where=path, fix="pip install 'labelmerge-seg[matlab]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise fault(f"can't be read as HDF5 ({message})", where=path) from error


def dataset(group: h5py.Group, name: str, where: Path, fault: type[LabelmergeError] = SampleError) -> h5py.Dataset:
    """The dataset `name` of an HDF5 file. Raises `fault` where there is none, or where it is a link to another file."""
    import h5py

    if not isinstance(group, h5py.Group) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        have = ", ".join(list(group)[:8]) if isinstance(group, h5py.Group) else ""
        raise fault(f"has no array {name!r} (only {have or 'nothing'})", where=where)
    return checked(group[name], name, where, fault)


def checked(found: object, name: str, where: Path, fault: type[LabelmergeError] = SampleError) -> h5py.Dataset:
    """`found` itself, if it is a dataset whose values lie in the file. Raises `fault`."""
    import h5py

    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise fault(f"its {name!r} is not an array, or its numbers lie in other files", where=where)
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > MAX_BYTES:
        raise fault(f"its {name!r} is stored in pieces of more than {MAX_BYTES >> 20} MiB", where=where)
    return found

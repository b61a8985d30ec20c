"""A shard's tar: written by webdataset, read without trust.

Python's tarfile follows extended headers, sparse files and links, and asks for as much memory as a header declares.
A shard needs none of that: it is a row of plain files named KEY.MEMBER. Nothing is extracted, and nothing in a header
is believed unchecked.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import sys
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, Literal, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.errors import OutputError, ShardError

MAX_SAMPLE_BYTES = 1 << 30
"""A sample with more in it is not read: no image that anybody trains on is that large."""

Report = Callable[[str, str], None]
"""Told of every fault: the sample's key, or "" where it concerns the whole shard, and what is wrong."""

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_MAX_NAME = 100  # bytes; longer names need headers of another kind
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
_MAX_SHOWN = 80
_MEMBER_NAME = re.compile(r"[^./\\:]+\.[^/\\:]+")
# All of a header but its checksum, which is as if there were blanks.
_SUMMED = struct.Struct("148s8x356s")
_BLANKS = 8 * ord(" ")


# --- writing ----------------------------------------------------------------------------------------------------------


class Writable(Protocol):
    """What a shard is written to: a binary file, or something like one."""

    def write(self, data: bytes, /) -> int: ...


class ShardWriter:
    """Writes samples to a tar, for a `with` statement. The same samples give the same bytes: no time, no owner.

    Attributes:
        bytes, sha256: of what is written so far; after `close` of the whole file.
    """

    def __init__(self, stream: Writable) -> None:
        self._hashing = _Hashing(stream)
        self._tar = _tar_writer()(self._hashing, user="", group="", mode=0o644, mtime=0, encoder=False)

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample.

        Args:
            key: its key.
            members: the content of its files by member name, such as ``mask.png``.

        Raises:
            OutputError: the key is too long for a tar.
        """
        if too_long := [name for name in members if len(f"{key}.{name}") > _MAX_NAME]:
            raise OutputError(
                f"{key}.{too_long[0]} has more than {_MAX_NAME} characters, too many for a tar",
                fix="Give the recipe a shorter name",
            )
        self._tar.write({"__key__": key, **members})

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the end of the tar. Closing it again does nothing."""
        self._tar.close()

    @property
    def bytes(self) -> int:
        return self._hashing.bytes

    @property
    def sha256(self) -> str:
        return self._hashing.digest.hexdigest()


@lru_cache
def _tar_writer() -> Any:
    """webdataset's TarWriter.

    The package imports torch where there is one, for its loaders: seconds and 200 MB in each process that makes shards.
    Here it is imported as where there is none, which it provides for; whoever imports it next gets all of it.
    """
    loaded = {name for name in sys.modules if name.partition(".")[0] in ("torch", "webdataset")}
    if not loaded:
        sys.modules["torch"] = None  # type: ignore[assignment]  # as the import system has it: not to be found
    try:
        from webdataset.writer import TarWriter
    finally:
        if not loaded:
            for name in [name for name in sys.modules if name.partition(".")[0] in ("torch", "webdataset")]:
                del sys.modules[name]
    return TarWriter


class _Hashing:
    """Hashes and counts what goes through."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes, /) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._stream.write(data)


# --- reading ----------------------------------------------------------------------------------------------------------


class Readable(Protocol):
    """A path, or a shard that may have to be fetched (`labelmerge.shardset.shard.Shard`)."""

    def open(self, mode: Literal["rb"], buffering: Literal[0], /) -> IO[bytes]: ...


@dataclass(frozen=True)
class Index:
    """Where the samples of one shard lie in its tar. Compact, because every loader process holds one for all shards.

    Attributes:
        keys: bytes ``[samples]``.
        members: the kinds of member, e.g. ``("jpg", "json", "mask.png")``.
        places: int64 ``[samples, members, 2]``, first byte and one past the last; -1 where there is no such member.
    """

    keys: npt.NDArray[np.bytes_]
    members: tuple[str, ...]
    places: npt.NDArray[np.int64]


def read_index(shard: Readable) -> Index:
    """Read the headers of a shard. Raises ShardError where it can't be read, or is not as shards are."""

    def refuse(key: str, what: str) -> NoReturn:
        where = f"{shard}:{key}" if key else str(shard)
        raise ShardError(what, where=where, fix="`labelmerge verify` shows all faults; make the shards again")

    try:
        with shard.open("rb", 0) as stream:
            samples = list(_samples(stream, os.fstat(stream.fileno()).st_size, refuse))
    except OSError as error:
        raise ShardError(f"can't be read ({error.strerror})", where=str(shard)) from error
    names = tuple(sorted({name for _, members in samples for name in members}))
    places = np.array([[members.get(name, (-1, -1)) for name in names] for _, members in samples], dtype=np.int64)
    return Index(np.array([key.encode() for key, _ in samples], dtype=np.bytes_), names, places)


def read_samples(
    shard: Readable, report: Report, wanted: Container[str] | None = None
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard in their order: key, and content of the members by name.

    Members with one key that follow each other are a sample, as in WebDataset. Members that are not plain files, or
    whose names aren't KEY.MEMBER without folders, are reported and left out. After damage nothing more is read.

    Args:
        shard: the tar.
        report: is told of the faults.
        wanted: only these members are read; None: all.

    Raises:
        OSError: the file can't be read.
        ShardError: it can't be fetched.
    """
    with shard.open("rb", 0) as stream:
        for key, places in _samples(stream, os.fstat(stream.fileno()).st_size, report):
            members: dict[str, bytes] = {}
            size = 0
            for name, (start, end) in places.items():
                if wanted is not None and name not in wanted:
                    continue
                size += end - start
                if size > MAX_SAMPLE_BYTES:
                    report(key, f"has more than {MAX_SAMPLE_BYTES} bytes: {name} is not read")
                    continue
                stream.seek(start)
                members[name] = stream.read(end - start)
            yield key, members


def _samples(stream: Any, size: int, report: Report) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """The key of every sample, and first byte and one past the last of each member, by name."""
    key: str | None = None
    places: dict[str, tuple[int, int]] = {}
    for name, start, length in _plain_files(stream, size, report):
        head, _, member = name.partition(".")
        if head != key:
            if key is not None:
                yield key, places
            key, places = head, {}
        if member in places:
            report(head, f"member {member} occurs twice")
        places[member] = (start, start + length)
    if key is not None:
        yield key, places


def _plain_files(stream: Any, size: int, report: Report) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and length of every member that belongs in a shard."""
    offset = 0
    while True:
        stream.seek(offset)
        block = stream.read(_BLOCK)
        if block == _END:
            return
        start = offset + _BLOCK
        if (ours := _ours(block)) is not None:
            (name, length), kind = ours, tarfile.REGTYPE
        else:
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
            except tarfile.HeaderError as error:
                report("", f"is not a whole tar ({error} at byte {offset})")
                return
            name, kind = header.name, header.type
            length = 0 if kind in _KINDS else header.size
        if not 0 <= length <= size - start:
            report("", f"is not a whole tar (it ends within {shown(name)}, which should have {length} bytes)")
            return
        offset = start + -(-length // _BLOCK) * _BLOCK
        if kind not in _PLAIN:
            what = _KINDS.get(kind, "an extended header or sparse file")
            report("", f"holds {what}, {shown(name)}: a shard's members are plain files")
        elif not _is_member_name(name):
            report("", f"holds {shown(name)}: a shard's members are named KEY.MEMBER, without folders")
        else:
            yield name, start, length


def _ours(block: bytes) -> tuple[str, int] | None:
    """Name and size in a header such as shards have; None for any other. Several times faster than tarfile."""
    # POSIX.1-1988 (ustar): name 100 bytes, size and checksum in octal digits, kind, magic, prefix of the name
    name, size, checksum = block[:_MAX_NAME].rstrip(b"\0"), block[124:135], block[148:154]
    if block[156:157] != tarfile.REGTYPE or block[257:262] != b"ustar" or block[345:346] != b"\0":
        return None
    if not (size.isdigit() and checksum.isdigit() and name.isascii()):
        return None
    try:
        before, after = _SUMMED.unpack(block)
        if int(checksum, 8) != sum(before.rstrip(b"\0")) + sum(after.rstrip(b"\0")) + _BLANKS:
            return None
        return name.decode(), int(size, 8)
    except (ValueError, struct.error):  # an 8 or a 9; half a header
        return None


def _is_member_name(name: str) -> bool:
    return _MEMBER_NAME.fullmatch(name) is not None and name.isprintable()


def shown(value: object) -> str:
    """A value from an untrusted file, fit for one line of a terminal."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"

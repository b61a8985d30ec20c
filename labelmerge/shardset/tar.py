"""The samples in a shard, read without trust: nothing is extracted, and nothing in a header is believed unchecked.

Python's tarfile follows extended headers, sparse files and links, and asks for as much memory as a header declares.
A shard needs none of that: it is a row of plain files named KEY.MEMBER.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import BinaryIO

MAX_SAMPLE_BYTES = 1 << 30
"""A sample with more in it is not read: no image that anybody trains on is that large."""

Report = Callable[[str, str], None]
"""Told of every fault: the sample's key, or "" where it concerns the whole shard, and what is wrong."""

_BLOCK = 512
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
_MAX_NAME_SHOWN = 80


def read_samples(
    path: Path, report: Report, wanted: Container[str] | None = None
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard in their order: key, and members by name.

    Members with one key that follow each other are a sample, as in WebDataset. Members that are no plain files, or
    whose names aren't KEY.MEMBER without folders, are reported and left out. After damage nothing more is read.

    Args:
        path: the tar.
        report: gets the faults.
        wanted: only these members are read; None: all.

    Raises:
        OSError: the file can't be read.
    """
    key: str | None = None
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    size = 0
    with path.open("rb") as stream:
        for name, start, length in _plain_files(stream, path.stat().st_size, report):
            head, _, member = name.partition(".")
            if head != key:
                if key is not None:
                    yield key, members
                key, members, seen, size = head, {}, set(), 0
            if member in seen:
                report(head, f"member {member} occurs twice")
            seen.add(member)
            if wanted is not None and member not in wanted:
                continue
            size += length
            if size > MAX_SAMPLE_BYTES:
                report(head, f"has more than {MAX_SAMPLE_BYTES} bytes: {member} is not read")
                continue
            stream.seek(start)
            members[member] = stream.read(length)
    if key is not None:
        yield key, members


def _plain_files(stream: BinaryIO, size: int, report: Report) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and length of every member that belongs into a shard."""
    offset = 0
    while True:
        stream.seek(offset)
        block = stream.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            report("", f"is not a whole tar ({error} at byte {offset})")
            return
        start = offset + _BLOCK
        length = 0 if header.type in _KINDS else header.size
        if not 0 <= length <= size - start:
            report("", f"is not a whole tar (it ends within {shown(header.name)}, which is to have {length} bytes)")
            return
        offset = start + -(-length // _BLOCK) * _BLOCK
        if header.type not in _PLAIN:
            kind = _KINDS.get(header.type, "an extended header or sparse file")
            report("", f"holds {kind}, {shown(header.name)}: a shard's members are plain files")
        elif not _is_member_name(header.name):
            report("", f"holds {shown(header.name)}: a shard's members are named KEY.MEMBER, without folders")
        else:
            yield header.name, start, length


def _is_member_name(name: str) -> bool:
    key, _, member = name.partition(".")
    return bool(key and member) and name.isprintable() and not set(name) & set("/\\:")


def shown(value: object) -> str:
    """A value from a file that nobody vouches for, fit for one line of a terminal."""
    text = repr(value)
    return text if len(text) <= _MAX_NAME_SHOWN else f"{text[:_MAX_NAME_SHOWN]}…"

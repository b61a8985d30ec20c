"""Ways to damage a file: as chance does, as people do, and as somebody does who means harm."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import tomllib
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import tomli_w

Mutation = Callable[[bytes, random.Random], bytes]

_PICTURES = (b"\x89PNG", b"\xff\xd8")
NASTY_TEXTS = (
    "", " ", "\x1b[2J", "\u202egnp", "a\nb", "\x00", "=1+1", "../../x", "/etc/passwd", "x" * 5000, "é" * 200, "{split}",
    "{0}", "%s", "\ud800", "nan", "<img src=x>", "a|b", "1e999", "\U0001f600", "*" * 50, "[" * 300,
)  # fmt: skip
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**70, 10**400, float("nan"), float("inf"), -0.0, 1e308, [], {}, [[]], [None],
    {"": ""}, *NASTY_TEXTS,
)  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit."""
    if not data:
        return b"\x00"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """What remains after a full disk or a broken transfer."""
    return data[: rng.randrange(len(data) + 1)]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A block of other bytes."""
    place, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 64, 512))
    return data[:place] + rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size))) + data[place + size :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece twice."""
    place, size = rng.randrange(len(data) + 1), rng.choice((1, 10, 512))
    return data[: place + size] + data[place:]


def drop(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    place, size = rng.randrange(len(data) + 1), rng.choice((1, 10, 512))
    return data[:place] + data[place + size :]


def foreign(data: bytes, rng: random.Random) -> bytes:
    """Another kind of file under the name."""
    deep = 5000
    return rng.choice(
        (
            b"", b"\x00" * 100, b"\xff\xfe" + "x".encode("utf-16le"), b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r\n"), b"[" * deep, b"a = " + b"[" * deep + b"]" * deep, b'{"a":' * deep,
            b"null", b"[]", b"{}", b"3", b'"x"', *([png_bomb()] if data.startswith(_PICTURES) else []),
        )
    )  # fmt: skip


@cache
def png_bomb(side: int = 13_000) -> bytes:
    """A grey PNG of some hundred kilobytes that unfolds to `side` x `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BYTES: tuple[Mutation, ...] = (flip, flip, cut, overwrite, repeat, drop, foreign)


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(*above, key), *_places(value[key], (*above, key))]]


def damaged(value: Any, rng: random.Random) -> Any:
    """The same structure with something in it removed, renamed, or replaced by a value that nobody expects."""
    places = _places(value)
    if not places:
        return rng.choice(NASTY)
    *above, last = rng.choice(places)
    inside = value
    for key in above:
        inside = inside[key]
    how = rng.randrange(6)
    if how == 0:
        del inside[last]
    elif how == 1 and isinstance(inside, dict):
        inside[rng.choice(NASTY_TEXTS)] = inside.pop(last)
    elif how == 2 and isinstance(inside[last], int | float):
        inside[last] = inside[last] * rng.choice((-1, 2, 1000)) + rng.choice((-1, 1))
    elif how == 3 and isinstance(inside, list):
        inside.insert(last, inside[last])
    else:
        inside[last] = rng.choice(NASTY)
    return value


def json_value(data: bytes, rng: random.Random) -> bytes:
    """Well-formed JSON that says something else."""
    return json.dumps(damaged(json.loads(data), rng)).encode()


def json_lines(data: bytes, rng: random.Random) -> bytes:
    """One line of JSON says something else."""
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = json_value(lines[place], rng)
    return b"\n".join(lines) + b"\n"


def toml_value(data: bytes, rng: random.Random) -> bytes:
    """Well-formed TOML that says something else."""
    try:
        return tomli_w.dumps(damaged(tomllib.loads(data.decode()), rng)).encode("utf-8", "surrogatepass")
    except (TypeError, AttributeError):  # TOML knows no null
        return toml_value(data, rng)


def csv_value(data: bytes, rng: random.Random) -> bytes:
    """A cell, a row or the delimiter of a CSV is another."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    row = rng.choice(rows)
    how = rng.randrange(5)
    if how == 0:
        rows.append(row)
    elif how == 1 and row:
        del row[rng.randrange(len(row))]
    elif how == 2:
        rows.remove(row)
    elif row:
        row[rng.randrange(len(row))] = str(rng.choice(NASTY))
    out = io.StringIO()
    csv.writer(out, delimiter=rng.choice(",,,,;\t|"), lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def tar_header(data: bytes, rng: random.Random) -> bytes:
    """A field of a header says something else, with a checksum that is right."""
    blocks = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    at = rng.choice(blocks)
    header = bytearray(data[at : at + 512])
    place, content = rng.choice(
        (
            (124, b"00000000008\x00"), (124, b"99999999999\x00"), (124, b"77777777777\x00"),
            (124, b"\x80" + b"\xff" * 11), (124, b"-0000000001\x00"), (124, b"            "),
            (0, b"\xff\xfe.jpg\x00"), (0, b"../../x.jpg\x00"), (0, b"\x1b[2J.jpg\x00"), (0, b"/" * 100),
            (156, bytes([rng.choice(b"1235xgLS")])),
            (345, b"prefix"), (0, b"nodot\x00"), (100, b"99999999"), (136, b"\xff" * 12),
        )
    )  # fmt: skip
    header[place : place + len(content)] = content
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]

"""Shards that somebody made to do harm: nothing is extracted, nothing believed, nothing crashes."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelmerge.inspect.verify import verify
from labelmerge.labels import LabelSpace
from labelmerge.shardset import tar as tars

from .damage import faults, member, png, rewrite, with_json, with_member

if TYPE_CHECKING:
    pass


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""
    data = png(np.zeros((1, 1), np.uint8))
    chunk = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (member("../../outside.jpg"), "holds '../../outside.jpg': a shard's members are named KEY.MEMBER"),
        (member("/etc/outside.jpg"), "holds '/etc/outside.jpg': a shard's members are named KEY.MEMBER"),
        (member("C:\\outside.jpg"), "outside.jpg': a shard's members are named KEY.MEMBER"),
        (member("red\x1b[31m.jpg"), r"holds 'red\x1b[31m.jpg': a shard's members are named KEY.MEMBER"),
        (member("README"), "holds 'README': a shard's members are named KEY.MEMBER"),
        (member(".hidden"), "holds '.hidden': a shard's members are named KEY.MEMBER"),
        (member("link.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), "holds a symbolic link, 'link.jpg'"),
        (member("link.jpg", tarfile.LNKTYPE, linkname="x.jpg"), "holds a hard link, 'link.jpg'"),
        (member("folder", tarfile.DIRTYPE), "holds a folder, 'folder'"),
        (member("pipe.jpg", tarfile.FIFOTYPE), "holds a pipe, 'pipe.jpg'"),
        (member("disk.jpg", tarfile.BLKTYPE), "holds a device, 'disk.jpg'"),
        (member("x.jpg", tarfile.XHDTYPE), "holds an extended header or sparse file, 'x.jpg'"),
        (member("x.jpg", tarfile.XHDTYPE, 1 << 40), "it ends within 'x.jpg', which should have 1099511627776 bytes"),
        (member("x.jpg", tarfile.GNUTYPE_SPARSE), "holds an extended header or sparse file, 'x.jpg'"),
        (member("x.jpg", size=1 << 60), "it ends within 'x.jpg', which should have 1152921504606846976 bytes"),
        (member("x.jpg", size=-5), "is not a whole tar"),
        (b"x" * 512, "is not a whole tar"),
    ],
)  # fmt: skip
def test_hostile_members(folder: Path, tmp_path: Path, block: bytes, fault: str) -> None:
    path = folder / "my_streets-train-000001.tar"
    before = {entry for entry in tmp_path.rglob("*")}
    path.write_bytes(block + path.read_bytes())
    found = faults(folder)
    assert any(fault in one for one in found), found
    assert all("\n" not in one and "\x1b" not in one for one in found)
    assert {entry for entry in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["jpg", "mask.png"])
@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (bomb(60000, 60000), "has more pixels than Pillow takes for safe"),
        (bomb(9000, 9000), "has 9000x9000 pixels, more than the 67,108,864 that are decoded"),
        (bomb(16, 12), "is not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is neither a JPEG nor a PNG"),
    ],
)
def test_hostile_images(folder: Path, name: str, data: bytes, fault: str) -> None:
    rewrite(folder, with_member(name, data))
    assert any(f"{name} {fault}" in found for found in faults(folder)), faults(folder)


def test_a_sample_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MAX_SAMPLE_BYTES", 1000)
    rewrite(folder, with_member("jpg", b"x" * 2000))
    assert any("has more than 1000 bytes: jpg is not read" in fault for fault in faults(folder))


def test_a_million_faults_are_not_all_listed(folder: Path) -> None:
    path = folder / "my_streets-train-000001.tar"
    path.write_bytes(member("../x") * 250 + path.read_bytes())
    found = faults(folder)
    assert len(found) == 101 and found[-1] == "my_streets-train-000001.tar: has 151 more faults"


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "../../x"},
        {"split": "a/b"},
        {"shards": [{"name": "../x.tar", "samples": 1, "bytes": 1, "sha256": ""}]},
        {"shards": [{"name": "a-b-000000.tar", "samples": 1, "bytes": 1, "sha256": ""}] * 2},
        {"members": ["jpg", "json", "\ud800"]},
        {"members": ["jpg", "json", "x" * 500]},
        {"members": ["mask.png"]},
        {"label_space": LabelSpace.of("x", [3]).to_json()},  # type: ignore[list-item]  # names must be strings
        {"class_pixels": {"x": 1}},
        {"class_boxes": {"1": -1}},
        {"sizes": {"pixels": 1, "min": [1], "max": [1, 1]}},
        {"recipe": {"name": "x", "text": "=", "sha256": hashlib.sha256(b"=").hexdigest()}},
        {"recipe": {"name": "x", "text": "role = 1", "sha256": hashlib.sha256(b"role = 1").hexdigest()}},
    ],
)
def test_hostile_manifests(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (fault,) = verify([folder]).problems
    assert fault.where == str(path)


def test_no_flipped_byte_goes_unseen(folder: Path) -> None:
    path = folder / "my_streets-train-000001.tar"
    data, random = path.read_bytes(), np.random.default_rng(0)
    for place in [*random.integers(0, 1024, 20).tolist(), *random.integers(0, len(data), 20).tolist()]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << random.integers(8)]) + data[place + 1 :])
        assert faults(folder)


@pytest.mark.parametrize(
    "value", [None, True, -1, 2**70, math.nan, "", "\ud800", "1" * 5000, [], {}, [[]], [{}], "[[1]]"]
)
def test_fields_of_any_other_value_are_a_fault(folder: Path, value: Any) -> None:
    names = ("key", "height", "annotation_type", "label_space", "source", "present", "boxes", "segments")
    for name in names:
        if (name, value) not in (("boxes", []), ("segments", [])):
            rewrite(folder, with_json(**{name: value}))
            found = faults(folder)
            assert found, name
            assert all(len(fault) < 400 and "\n" not in fault and fault.encode() for fault in found)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("sha256", "sha255", "does not agree with the manifest"),
        ("application/x-tar", "text/plain", "does not agree with the manifest"),
        ("{", "", "is not JSON"),
        ("{", "[" * 5000, "is not JSON"),
    ],
)
def test_the_metadata_is_checked(folder: Path, old: str, new: str, fault: str) -> None:
    path = folder / "croissant.json"
    path.write_text(path.read_text().replace(old, new, 1))
    (found,) = faults(folder)
    assert found.startswith(f"croissant.json: {fault}")


def test_metadata_in_the_words_of_another_version_is_no_fault(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labelmerge": "0.0.1"}))
    assert not faults(folder)
    other = folder / "croissant.json"
    other.write_text(other.read_text().replace('"contentSize": "', '"contentSize": "1', 1))
    assert faults(folder) == ["croissant.json: does not agree with the manifest"]


def test_sizes_are_checked(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sizes": {"pixels": 1, "min": [1, 1], "max": [1, 1]}}))
    assert faults(folder) == ["manifest.json: sizes do not agree with the samples"]

"""verify finds every kind of damage, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import ShardError
from labelmerge.inspect.duplicates import Found, Images
from labelmerge.inspect.verify import verify
from labelmerge.labels import LabelSpace
from labelmerge.sharding.shard import shard
from labelmerge.shardset import tar as tars

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own

RECIPE = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"

[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"

[ids]
ignore = [255]
"""

OTHER, KEY = "my_streets-train-000000000", "my_streets-train-000000001"


@pytest.fixture
def folder(own: Own, tmp_path: Path) -> Path:
    """Shards of four images."""
    own.pairs(4)
    report = shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    assert report.folder is not None
    return report.folder


def faults(folder: Path) -> list[str]:
    return [f"{Path(problem.where).name}: {problem.what}" for problem in verify([folder]).problems]


def rewrite(folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Change the members of the first shard, and its manifest entry to fit: only the samples are wrong then."""
    path = folder / "my_streets-train-000000.tar"
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, data in change(members).items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, BytesIO(data))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = path.read_bytes()
    manifest["shards"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def png(values: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(np.asarray(values)).save(out, "PNG")
    return out.getvalue()


def test_sound_shards_have_no_fault(folder: Path) -> None:
    report = verify([folder.parents[1], folder])
    assert (report.splits, report.shards, report.samples, report.problems) == (1, 2, 4, ())


def test_a_truncated_tar(folder: Path) -> None:
    path = folder / "my_streets-train-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    found = faults(folder)
    assert found[0].startswith("my_streets-train-000001.tar: has 3000 bytes, but the manifest says")
    assert any("but the manifest says 2" in fault for fault in found)


def test_a_flipped_byte(folder: Path) -> None:
    path = folder / "my_streets-train-000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    assert "my_streets-train-000001.tar: its content is not what the manifest's sha256 says" in faults(folder)


def test_a_missing_and_an_extra_shard(folder: Path) -> None:
    (folder / "my_streets-train-000001.tar").rename(folder / "my_streets-train-000009.tar")
    assert faults(folder) == [
        "my_streets-train-000009.tar: is not in the manifest",
        "my_streets-train-000001.tar: is missing",
    ]


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {key: data for key, data in members.items() if key != name}


def with_json(**changes: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        meta = json.loads(members[f"{KEY}.json"])
        texts = {name: json.dumps(value) if isinstance(value, list) else value for name, value in changes.items()}
        return members | {f"{KEY}.json": json.dumps(meta | texts).encode()}

    return change


def with_member(name: str, data: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: dict(sorted((members | {f"{KEY}.{name}": data}).items()))


BOX = {
    "bbox": [1.0, 2.0, 3.0, 4.0],
    "class_index": 0,
    "iscrowd": False,
    "group_of": False,
    "depiction": False,
    "reflected": False,
    "area": 4.0,
    "native_id": "",
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (without(f"{KEY}.mask.png"), "members missing: mask.png"),
        (without(f"{KEY}.json"), "members missing: json"),
        (with_member("txt", b"x"), "members that the manifest does not list: txt"),
        (with_member("mask.png", png(np.full((12, 16), 7, np.uint8))), "mask.png: values outside the label space: 7"),
        (with_member("mask.png", png(np.zeros((3, 3), np.uint8))), "mask.png is 3x3, but the json says 16x12"),
        (with_member("mask.png", png(np.zeros((12, 16, 3), np.uint8))), "mask.png is no single-channel"),
        (with_member("mask.png", b"no picture"), "mask.png is neither a JPEG nor a PNG"),
        (with_member("jpg", b"no picture"), "jpg is neither a JPEG nor a PNG"),
        (with_member("json", b"{"), "json can't be read"),
        (with_member("json", b"[]"), "json: not an object"),
        (with_member("json", b"{}"), "json: 'key' is missing"),
        (with_json(height="12"), "json: 'height' is a str"),
        (with_json(height=13), "jpg is 16x12, but the json says 16x13"),
        (with_json(key="other"), "json: key is 'other', not"),
        (with_json(label_space="0"), "json: label_space is '0', not"),
        (with_json(source={}), "json: 'path' is missing"),
        (with_json(boxes="[{"), "json: boxes is not a JSON text"),
        (with_json(segments="{}"), "json: segments is not a list"),
        (with_json(present=[1]), "json: present is [1], but the annotation has [0, 1, 2]"),
        (with_json(boxes=[{}]), "json: boxes[0]: 'bbox' is missing"),
        (with_json(boxes=[BOX | {"class_index": 3}]), "json: boxes[0]: class 3 is not in the label space"),
        (with_json(boxes=[BOX | {"bbox": [1, 2, 99, 4]}]), "is no box inside the image"),
        (with_json(boxes=[BOX | {"bbox": [1, 2, 3]}]), "bbox must be four numbers"),
        (with_json(boxes=[BOX | {"bbox": [1, 2, 3, 10**400]}]), "is no box inside the image"),
        (with_json(boxes=[BOX | {"area": float("nan")}]), "and area one of 0 or more"),
        (with_json(boxes=[BOX | {"class_index": []}]), "json: boxes[0]: 'class_index' is a list"),
        (with_json(segments=[{}]), "json: has segments, but there is no instances.png"),
        (with_member("json", b"[" * 20000), "json can't be read"),
        (with_member("jpg", png(np.zeros((12, 16, 3), np.uint8))), "jpg is a PNG file"),
        (with_json(boxes=[BOX]), "class_boxes does not agree with the samples"),
        (lambda members: members | {f"{KEY}.json": members[f"{OTHER}.json"]}, f"json: key is '{OTHER}', not '{KEY}'"),
        (lambda members: {name: data for name, data in members.items() if KEY not in name}, "has 1 samples, but"),
        (lambda members: members | {f"{OTHER}.x/jpg": b""}, f"holds '{OTHER}.x/jpg': a shard's members are"),
    ],
)  # fmt: skip
def test_a_faulty_sample(folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], fault: str) -> None:
    rewrite(folder, change)
    assert any(fault in found for found in faults(folder)), faults(folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format": "labelmerge-shards/9"}, "its format is 'labelmerge-shards/9'"),
        ({"counts": {"found": 4, "written": 3, "skipped": 1}}, "counts 3 samples written, but its shards have 4"),
        ({"counts": {"found": 9, "written": 4, "skipped": 0}}, "its counts do not add up"),
        ({"class_pixels": {}}, "class_pixels does not agree"),
        ({"ignored_pixels": 1}, "ignored_pixels does not agree"),
        ({"shards": [{}]}, "shards: 'name' is missing"),
        ({"shards": 3}, "'shards' is a int"),
        ({"label_space": {"name": "x", "hash": "0", "names": ["a"]}}, "hash does not match"),
        ({"label_space": {}}, "label_space is malformed ('names')"),
        ({"members": [1]}, "'members' is not a list of names"),
        ({"counts": {"found": 4, "written": "4", "skipped": 0}}, "counts: 'written' is a str"),
        ({"skipped": [{}]}, "skipped: 'path' is missing"),
        ({"notes": None}, "'notes' is a NoneType"),
        ({"recipe": {"name": "my_streets", "sha256": "0", "text": ""}}, "recipe: the text is not what its sha256 says"),
    ],
)
def test_a_faulty_manifest(folder: Path, change: dict[str, Any], fault: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert any(fault in found for found in faults(folder)), faults(folder)


def test_a_member_that_comes_twice(folder: Path) -> None:
    path = folder / "my_streets-train-000000.tar"
    with tarfile.open(path) as tar:
        first = tar.next()
        assert first is not None
        end = tar.next().offset  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:end] + path.read_bytes())
    assert any("member jpg occurs twice" in fault for fault in faults(folder))


def test_a_damaged_manifest_keeps_a_second_run_away(folder: Path, own: Own) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": 3}))
    with pytest.raises(ShardError, match=r"'notes' is a int. Remove the folder, or choose another --out"):
        shard(own.recipe, own.root, "train", folder.parent.parent, samples_per_shard=2)
    assert json.loads(path.read_text())["notes"] == 3


def test_faulty_segments(fixtures: Path, tmp_path: Path) -> None:
    report = shard(load_recipe("coco_panoptic"), fixtures / "coco_panoptic", "train", tmp_path)
    assert verify([tmp_path]).problems == () and report.folder is not None
    path = report.folder / "coco_panoptic-train-000000.tar"
    path.write_bytes(path.read_bytes().replace(rb"\"area\":17245", rb"\"area\":17246"))
    assert any("differ in ids or areas" in fault for fault in faults(report.folder))


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no shards here"):
        verify([tmp_path])
    with pytest.raises(ShardError, match="no such folder"):
        verify([tmp_path / "nowhere"])


def test_any_number_of_workers_finds_the_same(folder: Path) -> None:
    path = folder / "my_streets-train-000001.tar"
    path.write_bytes(path.read_bytes()[:-20000])
    rewrite(folder, with_json(height=13))
    assert verify([folder], workers=2) == verify([folder])


def test_shards_in_the_wrong_order(folder: Path) -> None:
    first, second = (folder / f"my_streets-train-{number:06d}.tar" for number in range(2))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry, tar in zip(manifest["shards"], (first, second), strict=True):
        content = tar.read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest))
    assert faults(folder) == ["my_streets-train-000001.tar: its samples do not come after those of the shard before"]


# --- hostile tars -----------------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: str) -> bytes:
    """One member, whose header may lie."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, size
    for key, value in more.items():
        setattr(header, key, value)
    return header.tobuf(tarfile.GNU_FORMAT)


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
        (bomb(9000, 9000), "is 9000x9000, but the json says 16x12"),
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


def test_sizes_are_checked(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sizes": {"pixels": 1, "min": [1, 1], "max": [1, 1]}}))
    assert faults(folder) == ["manifest.json: sizes do not agree with the samples"]


# --- box embeddings ---------------------------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    out = BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (npy(np.zeros((0, 4), np.float16)), None),
        (npy(np.zeros((0, 4), np.float32)), "is float32[0, 4], not float16 [boxes, D]"),
        (npy(np.zeros((4,), np.float16)), "is float16[4], not float16 [boxes, D]"),
        (npy(np.zeros((2, 4), np.float16)), "is [2, 4], but the json has 0 boxes"),
        (npy(np.zeros((0, 0), np.float16)), "is [0, 0], but the json has 0 boxes"),
        (npy(np.zeros((0, 4), np.float16)) + b"more", "has 4 bytes of numbers"),
        (npy(np.array([{}])), "not float16 [boxes, D]"),
        (npy(np.zeros((0, 4), np.float16)).replace(b"(0, 4)", b"(1,1<<"), "is no NumPy file"),
        (b"no array", "is no NumPy file"),
    ],
)
def test_box_embeddings(folder: Path, data: bytes, fault: str | None) -> None:
    rewrite(folder, with_member("box_embeddings.npy", data))
    found = [one for one in faults(folder) if "box_embeddings.npy " in one]
    assert (found == []) if fault is None else any(fault in one for one in found), found


def test_box_embeddings_of_two_lengths_or_not_finite(folder: Path) -> None:
    values = np.zeros((1, 4), np.float16)
    values[0, 1] = np.inf

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        changed = with_json(boxes=[BOX])(members)
        changed |= {f"{OTHER}.box_embeddings.npy": npy(np.zeros((0, 8), np.float16))}
        return dict(sorted((changed | {f"{KEY}.box_embeddings.npy": npy(values)}).items()))

    rewrite(folder, change)
    found = faults(folder)
    assert any("box_embeddings.npy has numbers that are not finite" in fault for fault in found)
    assert "my_streets: box_embeddings.npy of different lengths: [4, 8]" in found


# --- the same image twice ---------------------------------------------------------------------------------------------


def add(own: Own, out: Path, name: str, split: str, images: dict[str, bytes], role: str = "train") -> None:
    """Shard a dataset of these images."""
    text = RECIPE.replace('"my_streets"\n', f'"{name}"\nrole = "{role}"\n', 1)
    own.write_recipe(text)
    for kind in ("images", "masks"):
        shutil.rmtree(own.root / kind, ignore_errors=True)
    for stem, data in images.items():
        target = own.root / "images" / split / f"{stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        own.mask(f"masks/{split}/{stem}.png")
    shard(own.recipe, own.root, split, out, samples_per_shard=2)


@pytest.fixture
def images(own: Own) -> list[bytes]:
    return [own.image(f"other/{number}.jpg") for number in range(6)]


def test_duplicates_and_leaks(own: Own, tmp_path: Path, images: list[bytes]) -> None:
    a, b, c, d, e, f = images
    add(own, tmp_path, "streets", "train", {"0": a, "1": b, "2": c, "3": a, "4": a})
    add(own, tmp_path, "streets", "val", {"0": b, "1": f})
    add(own, tmp_path, "roads", "train", {"0": d, "1": c})
    add(own, tmp_path, "exam", "train", {"0": d, "1": e, "2": a}, role="eval")
    report = verify([tmp_path], workers=2)
    assert report.problems == ()
    found = [
        (o.kind, *(Path(p).relative_to(tmp_path).as_posix() for p in (o.first, o.second)), o.images)
        for o in report.overlaps
    ]
    assert found == [
        ("leak", "roads/train", "exam/train", 1),
        ("leak", "streets/train", "exam/train", 3),
        ("leak", "streets/train", "streets/val", 1),
        ("shared", "roads/train", "streets/train", 1),
        ("within", "streets/train", "streets/train", 2),
    ]
    assert report.overlaps[0].examples == (("roads-train-000000000", "exam-train-000000000"),)
    assert report.overlaps[1].examples == (("streets-train-000000000", "exam-train-000000002"),)
    assert report.overlaps[4].examples == (("streets-train-000000000", "streets-train-000000003"),)


def test_the_command_tells_of_leaks_but_blames_only_on_demand(
    run: Run, own: Own, tmp_path: Path, images: list[bytes]
) -> None:
    add(own, tmp_path / "a", "streets", "train", {"0": images[0], "1": images[1]})
    add(own, tmp_path / "b", "exam", "test", {"0": images[1]}, role="eval")
    result = run("verify", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"LEAK: 1 image of {tmp_path}/a/streets/train is in {tmp_path}/b/exam/test "
        "(streets-train-000000001 is exam-test-000000000)",
        "No fault in 3 samples in 2 shards of 2 splits, but training images are in evaluation sets.",
    ]
    assert run("verify", tmp_path / "a", tmp_path / "b", "--no-leaks").exit_code == 1
    assert run("verify", tmp_path / "a", "--no-leaks").exit_code == 0
    data = json.loads(run("verify", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert data["overlaps"][0]["kind"] == "leak"


def test_millions_of_images_fit() -> None:
    found, count = Found(), 50_000
    random = np.random.default_rng(0)
    for split in range(4):
        hashes = random.integers(0, 256, (count, 16), dtype=np.uint8)
        hashes[7] = 0
        tracemalloc.start()
        found.add(split, range(count), hashes.tobytes())
        tracemalloc.stop()
    tracemalloc.start()
    splits = [Images(Path(f"{split}"), "x", "train", split < 3) for split in range(4)]
    overlaps = found.overlaps(splits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [overlap.kind for overlap in overlaps] == ["leak"] * 3 + ["shared"] * 3
    assert peak < 150 * 4 * count  # bytes for each image while they are sorted: 300 MB for 2 million


# --- finishing parts --------------------------------------------------------------------------------------------------


def test_finish(run: Run, own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    shard(own.recipe, own.root, "train", tmp_path / "whole", samples_per_shard=1)
    out = tmp_path / "parts"
    shard(own.recipe, own.root, "train", out, samples_per_shard=1, part=(1, 2))
    early = run("verify", "--finish", out)
    assert early.exit_code == 1
    assert "2 of 4 shards are not done yet (000001, 000003). Run the missing parts" in early.stdout
    assert early.stdout.splitlines()[-1] == "Finished 0 of 1 unfinished split; 0 were finished before."
    shard(own.recipe, own.root, "train", out, samples_per_shard=1, part=(2, 2))
    assert [problem.what for problem in verify([out]).problems] == ["no manifest: the shards are not finished"]
    done = run("verify", "--finish", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"finished {out}/my_streets/train: 4 samples in 4 shards",
        "Finished 1 of 1 unfinished split; 0 were finished before.",
    ]
    for name in ("manifest.json", "croissant.json", *(f"my_streets-train-{number:06d}.tar" for number in range(4))):
        one, two = (folder / "my_streets/train" / name for folder in (tmp_path / "whole", out))
        assert one.read_bytes() == two.read_bytes()
    again = json.loads(run("verify", "--finish", out, "--json").stdout)
    assert again == {"finished": [], "unfinished": [], "already": 1}
    assert run("verify", "--finish", out, "--no-leaks").exit_code == 2

"""Every fault in shards is found, and named in one line."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelmerge.catalog import load_recipe
from labelmerge.errors import ShardError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard
from labelmerge.shardset.croissant import write_croissant

from .damage import KEY, OTHER, faults, png, rewrite, with_json, with_member

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own


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
    assert "my_streets-train-000001.tar: its content does not match the manifest's sha256" in faults(folder)


def test_a_missing_and_an_extra_shard(folder: Path) -> None:
    (folder / "my_streets-train-000001.tar").rename(folder / "my_streets-train-000009.tar")
    assert faults(folder) == [
        "my_streets-train-000009.tar: is not in the manifest",
        "my_streets-train-000001.tar: is missing",
    ]


def test_a_few_bytes_too_many_in_a_jpeg_are_a_note(folder: Path, run: Run) -> None:
    def with_more(members: dict[str, bytes]) -> dict[str, bytes]:
        data = members[f"{KEY}.jpg"]
        return {**members, f"{KEY}.jpg": data[:-2] + bytes(30) + data[-2:]}

    rewrite(folder, with_more)
    report = verify([folder])
    assert report.problems == () and len(report.remarks) == 1
    assert "jpg: " in report.remarks[0].what and "extraneous bytes" in report.remarks[0].what
    told = run("verify", folder)
    assert told.exit_code == 0 and told.output.count("note: ") == 1 and "No fault" in told.output


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {key: data for key, data in members.items() if key != name}


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
        (with_member("mask.png", png(np.zeros((12, 16, 3), np.uint8))), "mask.png is not a single-channel"),
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
        (with_json(boxes=[BOX | {"bbox": [1, 2, 99, 4]}]), "is not a box inside the image"),
        (with_json(boxes=[BOX | {"bbox": [1, 2, 3]}]), "bbox must be four numbers"),
        (with_json(boxes=[BOX | {"bbox": [1, 2, 3, 10**400]}]), "is not a box inside the image"),
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
        ({"recipe": {"name": "my_streets", "sha256": "0", "text": ""}}, "recipe: the text does not match its sha256"),
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
    write_croissant(folder, manifest)
    assert faults(folder) == ["my_streets-train-000001.tar: its samples do not follow those of the shard before"]


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
        (npy(np.zeros((0, 4), np.float16)).replace(b"(0, 4)", b"(1,1<<"), "is not a NumPy file"),
        (b"no array", "is not a NumPy file"),
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

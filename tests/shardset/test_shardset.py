from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelmerge.errors import SampleError, ShardError
from labelmerge.shardset.shardset import ShardSet

from ..loading.toy_shards import Toy, png, write_split

STREETS = Toy("streets", ("road", "sky", "car"))


def test_samples_come_back_as_they_were_written_in_any_order(tmp_path: Path) -> None:
    shards = ShardSet.open(STREETS.write(tmp_path))
    assert (len(shards), shards.dataset, shards.split, shards.annotation_type) == (6, "streets", "train", "mask")
    assert shards.space == STREETS.space
    for number in (5, 0, 3, 4, 4):
        key, members = STREETS.sample(number)
        sample = shards.read(number)
        assert sample.key == key == sample.meta["key"]
        assert sample.image.shape == (40, 48, 3) and sample.image.dtype == np.uint8
        assert sample.mask is not None and png(sample.mask) == members["mask.png"]
        assert png(sample.image) == members["png"]
        assert sample.boxes.shape == (0, 4) and sample.box_embeddings is None and sample.instances is None
    with pytest.raises(IndexError):
        shards.read(6)


def test_boxes_flags_and_embeddings(tmp_path: Path) -> None:
    shards = ShardSet.open(Toy("things", ("cup", "cat"), "box", embedding_dim=8).write(tmp_path))
    sample = shards.read(1)
    assert sample.mask is None
    assert sample.boxes.dtype == np.float32 and sample.boxes.shape == (3, 4)
    assert sample.iscrowd.tolist() == [False, False, True] and not sample.group_of.any()
    assert sample.box_embeddings is not None and sample.box_embeddings.shape == (3, 8)


def test_sixteen_bit_masks_and_instances(tmp_path: Path) -> None:
    wide = Toy("wide", tuple(f"class {i}" for i in range(300)))
    mask = np.array([[0, 299], [65535, 260]], dtype=np.uint16)
    meta = {"key": "wide-train-000000000", "label_space": wide.space.hash, "boxes": "[]"}
    members = {
        "json": json.dumps(meta).encode(),
        "png": png(np.zeros((2, 2, 3), dtype=np.uint8)),
        "mask.png": png(mask),
        "instances.png": png(np.array([[7, 1], [2, 400]], dtype=np.uint16)),
    }
    opened = ShardSet.open(write_split(tmp_path / "s", wide, [("wide-train-000000000", members)]))
    sample = opened.read(0, instances=True)
    assert sample.mask is not None and sample.mask.dtype == np.uint16 and (sample.mask == mask).all()
    assert opened.read(0).instances is None
    assert sample.instances is not None and sample.instances.tolist() == [[7, 1], [2, 400]]


@pytest.mark.parametrize(
    "member, data, what",
    [
        ("png", b"no picture", "can't be decoded"),
        ("png", None, "no image"),
        ("json", None, "no json"),
        ("json", b"{", "can't be decoded"),
        ("json", b'{"boxes": "[{\\"bbox\\": [0, 0, 1]}]"}', "can't be decoded"),
        ("json", b'{"label_space": "other"}', "label space"),
        ("mask.png", None, "no mask.png"),
        ("mask.png", png(np.zeros((3, 3), dtype=np.uint8)), "3x3, the image 48x40"),
        ("mask.png", png(np.zeros((40, 48, 3), dtype=np.uint8)), "not a single channel"),
        ("mask.png", png(np.zeros((40, 48), dtype=np.uint16)), "uint16"),
    ],
    ids=[
        "image-bytes", "image-missing", "json-missing", "json-syntax", "json-keys", "json-label-space",
        "mask-missing", "mask-size", "mask-rgb", "mask-16-bit",
    ],
)  # fmt: skip
def test_a_corrupt_sample_is_one_sample_error(tmp_path: Path, member: str, data: bytes | None, what: str) -> None:
    samples = [STREETS.sample(number) for number in range(3)]
    if data is None:
        del samples[1][1][member]
    else:
        samples[1][1][member] = data
    shards = ShardSet.open(write_split(tmp_path / "s", STREETS, samples))
    with pytest.raises(SampleError, match=f"streets-train-000000.tar: streets-train-000000001.*{what}"):
        shards.read(1)
    assert shards.read(0).key.endswith("0") and shards.read(2).key.endswith("2")


def test_damaged_shards_and_manifests_are_refused(tmp_path: Path) -> None:
    folder = STREETS.write(tmp_path)
    tar = folder / "streets-train-000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-512])
    with pytest.raises(ShardError, match="bytes, but the manifest says"):
        ShardSet.open(folder)
    tar.write_bytes(b"x" * len(whole))
    shards = ShardSet.open(folder)
    with pytest.raises(ShardError, match="not a whole tar"):
        shards.read(5)
    tar.unlink()
    with pytest.raises(ShardError, match="missing"):
        ShardSet.open(folder)

    manifest = folder / "manifest.json"
    data = json.loads(manifest.read_text())
    for text, what in [
        ("{", "is not a manifest"),
        (json.dumps({**data, "format": "other/1"}), "its format is 'other/1'"),
        (json.dumps({"format": data["format"]}), "'labelmerge' is missing"),
        (json.dumps({**data, "label_space": {**data["label_space"], "names": ["a", "b", "c"]}}), "hash"),
        (json.dumps({**data, "shards": []}), "no samples"),
    ]:
        manifest.write_text(text)
        with pytest.raises(ShardError, match=what):
            ShardSet.open(folder)


def test_a_shard_with_fewer_samples_than_its_manifest_says(tmp_path: Path) -> None:
    folder = STREETS.write(tmp_path)
    data = json.loads((folder / "manifest.json").read_text())
    data["shards"][0]["samples"] = 5
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ShardError, match="4 samples, but the manifest says 5"):
        ShardSet.open(folder).read(0)

"""What is exported is what COCO's own tools read, and what was in the shards."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import OutputError, ShardError, UsageError
from labelmerge.inspect.coco import panoptic as panoptic_of
from labelmerge.inspect.coco import regions
from labelmerge.inspect.export import export
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own

Samples = Callable[[Path], dict[str, dict[str, Any]]]

# Exported files as a dataset of one's own: what docs/shards.md shows.
AGAIN = """name = "again"
annotation_type = "{type}"
reader = "{reader}"
descriptions = "again.csv"

[layout]
images = "{{split}}"
annotations = "annotations/{kind}_{{split}}.json"
"""


@pytest.fixture(scope="session")
def panoptic(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of both splits of the authentic COCO panoptic sample."""
    out = tmp_path_factory.mktemp("panoptic")
    for split in ("train", "val"):
        shard(load_recipe("coco_panoptic"), fixtures / "coco_panoptic", split, out)
    return out / "coco_panoptic"


@pytest.fixture(scope="session")
def boxes(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the Objects365 sample."""
    out = tmp_path_factory.mktemp("boxes")
    shard(load_recipe("objects365"), fixtures / "objects365/v2", "val", out)
    return out / "objects365"


def again(folder: Path, exported: Path, split: str, names: tuple[str, ...], reader: str) -> Path:
    """Shard exported files once more."""
    annotation_type = "box" if reader == "coco_boxes" else "mask"
    kind = "panoptic" if reader == "panoptic" else "instances"
    recipe = AGAIN.format(type=annotation_type, reader=reader, kind=kind)
    (folder / "again.toml").write_text(
        recipe + ('masks = "annotations/panoptic_{split}"\n' if kind == "panoptic" else "")
    )
    rows = "".join(f'{index},"{name}"\n' for index, name in enumerate(names))
    (folder / "again.csv").write_text(f"index,name\n{rows}")
    report = shard(load_recipe(folder / "again.toml"), exported, split, folder / "shards")
    assert report.folder is not None and not report.skipped
    return report.folder


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_there_and_back(panoptic: Path, tmp_path: Path, read_samples: Samples, split: str) -> None:
    report = export(panoptic, "coco-panoptic", tmp_path / "coco")
    assert (report.splits, report.images, report.annotations, report.categories) == (("train", "val"), 2, 40, 24)
    names = tuple(load(panoptic / split / "manifest.json")["label_space"]["names"])
    back = again(tmp_path, tmp_path / "coco", split, names, "panoptic")
    (before,), (after,) = read_samples(panoptic / split).values(), read_samples(back).values()
    for member in ("jpg", "mask.png", "instances.png"):
        np.testing.assert_array_equal(before[member], after[member])
    segments = [[{**segment, "native_id": ""} for segment in sample["json"]["segments"]] for sample in (before, after)]
    assert segments[0] == segments[1]


def test_panoptic_says_what_the_original_says(panoptic: Path, fixtures: Path, tmp_path: Path) -> None:
    export(panoptic / "val", "coco-panoptic", tmp_path / "coco", images=False)
    ours = load(tmp_path / "coco/annotations/panoptic_val.json")
    theirs = load(next(fixtures.glob("coco_panoptic/annotations/panoptic_val2017.json")))
    assert not (tmp_path / "coco/val").exists()
    (image,), (annotation,) = ours["images"], ours["annotations"]
    assert image["native_id"] == str(theirs["images"][0]["id"])
    original = {category["id"]: category["name"] for category in theirs["categories"]}
    named = {category["id"]: category["name"] for category in ours["categories"]}
    facts = [
        sorted((names[s["category_id"]], s["area"], s["bbox"], s["iscrowd"]) for s in one["segments_info"])
        for names, one in ((named, annotation), (original, theirs["annotations"][0]))
    ]
    assert facts[0] == facts[1]
    assert {s["category_id"] for s in annotation["segments_info"]} == {
        s["category_id"] for s in theirs["annotations"][0]["segments_info"]
    }


# pycocotools is not up to NumPy 2's ways yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_instances_are_what_pycocotools_reads(
    panoptic: Path, tmp_path: Path, read_samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO

    report = export(panoptic, "coco-instances", tmp_path / "coco", images=False)
    assert not report.guessed and {"person", "bowl", "chair"} <= set(report.things) and len(report.things) == 80
    coco = COCO(str(tmp_path / "coco/annotations/instances_val.json"))
    capsys.readouterr()
    (sample,) = read_samples(panoptic / "val").values()
    things = {category["class_index"]: category["id"] for category in coco.dataset["categories"]}
    segments = [segment for segment in sample["json"]["segments"] if segment["class_index"] in things]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[coco.getImgIds()[0]]))
    assert len(annotations) == len(segments) > 5
    for annotation, segment in zip(annotations, segments, strict=True):
        mask = sample["instances.png"] == segment["id"]
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert annotation["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
        assert annotation["area"] == mask.sum() == segment["area"]
        assert annotation["category_id"] == segment["category_id"] == things[segment["class_index"]]


def test_what_is_a_thing_is_guessed_where_no_recipe_says_it(panoptic: Path, tmp_path: Path) -> None:
    own = shutil.copytree(panoptic / "val", tmp_path / "coco_panoptic" / "val")
    manifest = load(path := own / "manifest.json")
    start, stop = (manifest["recipe"]["text"].index(mark) for mark in ("things = [", "\n[splits]"))
    text = manifest["recipe"]["text"][:start] + manifest["recipe"]["text"][stop:]
    manifest["recipe"] |= {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(manifest))
    report = export(tmp_path / "coco_panoptic", "coco-instances", tmp_path / "coco", images=False)
    assert report.guessed and {"person", "chair"} <= set(report.things) and len(report.things) < 20


def test_instances_there_and_back(panoptic: Path, tmp_path: Path, read_samples: Samples) -> None:
    names = tuple(load(panoptic / "val" / "manifest.json")["label_space"]["names"])
    export(panoptic / "val", "coco-instances", tmp_path / "coco", things=names)
    back = again(tmp_path, tmp_path / "coco", "val", names, "coco_instances")
    (before,), (after,) = read_samples(panoptic / "val").values(), read_samples(back).values()
    np.testing.assert_array_equal(before["mask.png"], after["mask.png"])
    assert len(np.unique(before["instances.png"])) == len(np.unique(after["instances.png"])) > 20
    report = export(back, "coco-instances", tmp_path / "once more")
    assert (report.things, report.guessed, report.annotations) == (names, False, 30)
    files = [tmp_path / folder / "annotations/instances_val.json" for folder in ("coco", "once more")]
    facts = [
        sorted((one["segmentation"]["counts"], one["area"], one["category_id"]) for one in load(path)["annotations"])
        for path in files
    ]
    assert [fact[:2] for fact in facts[0]] == [fact[:2] for fact in facts[1]]


def test_boxes_there_and_back(
    boxes: Path, tmp_path: Path, read_samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO

    export(boxes, "coco-instances", tmp_path / "coco")
    coco = COCO(str(tmp_path / "coco/annotations/instances_val.json"))
    capsys.readouterr()
    assert sum(annotation["iscrowd"] for annotation in coco.anns.values()) == 1
    names = tuple(load(boxes / "val/manifest.json")["label_space"]["names"])
    back = again(tmp_path, tmp_path / "coco", "val", names, "coco_boxes")
    before, after = list(read_samples(boxes / "val").values()), list(read_samples(back).values())
    assert len(before) == len(after) == 2
    for one, two in zip(before, after, strict=True):
        assert one["jpg"] == two["jpg"]
        for old, new in zip(one["json"]["boxes"], two["json"]["boxes"], strict=True):
            np.testing.assert_allclose(old.pop("bbox"), new.pop("bbox"), atol=1e-9)
            assert {**old, "native_id": ""} == {**new, "native_id": ""}


def test_masks_without_instances_become_one_segment_a_class(own: Own, tmp_path: Path) -> None:
    masks = own.pairs(3)
    shard(own.recipe, own.root, "train", tmp_path / "shards", samples_per_shard=2)
    report = export(tmp_path / "shards", "coco-panoptic", tmp_path / "coco")
    assert (report.images, report.things, report.guessed) == (3, (), False)
    data = load(tmp_path / "coco/annotations/panoptic_train.json")
    assert [(c["id"], c["name"], c["isthing"]) for c in data["categories"]] == [
        (1, "road", 0),
        (2, "car", 0),
        (3, "sky", 0),
    ]
    for mask, annotation in zip(masks, data["annotations"], strict=True):
        picture = np.asarray(Image.open(tmp_path / "coco/annotations/panoptic_train" / annotation["file_name"]))
        ids = picture.astype(int) @ [1, 256, 65536]
        np.testing.assert_array_equal(ids == 0, mask == 255)
        for segment in annotation["segments_info"]:
            np.testing.assert_array_equal(ids == segment["id"], mask == segment["category_id"] - 1)
            assert segment["area"] == (ids == segment["id"]).sum()
    with pytest.raises(ShardError, match="neither instances nor boxes. Use --format coco-panoptic"):
        export(tmp_path / "shards", "coco-instances", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_things_can_be_named(panoptic: Path, tmp_path: Path) -> None:
    report = export(panoptic / "val", "coco-instances", tmp_path / "coco", images=False, things=["person", "clock"])
    data = load(tmp_path / "coco/annotations/instances_val.json")
    assert not report.guessed
    assert [(c["id"], c["name"]) for c in data["categories"]] == [(1, "person"), (85, "clock")]
    with pytest.raises(UsageError, match="has no class 'persn'. Did you mean person"):
        export(panoptic, "coco-instances", tmp_path / "other", things=["persn"])


def test_native_ids_are_used_for_all_classes_or_none(panoptic: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(panoptic / "val", tmp_path / "val")
    manifest = load(folder / "manifest.json")
    manifest["class_pixels"]["1"] = 7  # a class that occurs, but in no segment
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report = export(folder, "coco-panoptic", tmp_path / "coco", images=False)
    data = load(tmp_path / "coco/annotations/panoptic_val.json")
    assert report.categories == 133
    assert all(category["id"] == category["class_index"] + 1 for category in data["categories"])


def test_what_no_segment_covers_becomes_one_segment_a_class(
    fixtures: Path, tmp_path: Path, read_samples: Samples
) -> None:
    folder = shard(load_recipe("cityscapes"), fixtures / "cityscapes", "train", tmp_path / "shards").folder
    assert folder is not None
    report = export(folder, "coco-panoptic", tmp_path / "coco", images=False)
    assert {"car", "person"} <= set(report.things) and not report.guessed
    data = load(tmp_path / "coco/annotations/panoptic_train.json")
    class_of = {category["id"]: category["class_index"] for category in data["categories"]}
    (sample,), (annotation,) = read_samples(folder).values(), data["annotations"]
    ids = np.asarray(Image.open(next(tmp_path.glob("coco/annotations/panoptic_train/*.png")))) @ [1, 256, 65536]
    classes = np.full(ids.shape, 255)
    for segment in annotation["segments_info"]:
        classes[ids == segment["id"]] = class_of[segment["category_id"]]
    np.testing.assert_array_equal(classes, sample["mask.png"])
    covered = sample["instances.png"] > 0
    np.testing.assert_array_equal(ids[covered], sample["instances.png"][covered])


@pytest.mark.parametrize("most", [3, 70000])
def test_regions_are_what_a_slow_count_says(most: int) -> None:
    numbers = np.random.default_rng(most).integers(0, 4, (13, 17)) * (most // 3)
    found = {value: (area, bbox) for value, area, bbox in regions(numbers)}
    assert list(found) == sorted(set(numbers.ravel().tolist()) - {0})
    for value, (area, (x, y, width, height)) in found.items():
        rows, columns = np.nonzero(numbers == value)
        assert area == len(rows)
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_what_cannot_be_exported(panoptic: Path, boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="has boxes, but no masks"):
        export(boxes, "coco-panoptic", tmp_path / "coco")
    with pytest.raises(UsageError, match="unknown format 'coco'"):
        export(boxes, "coco", tmp_path / "coco")
    for folder in (panoptic, boxes):
        shutil.copytree(folder, tmp_path / "both" / folder.name)
    with pytest.raises(ShardError, match=r"holds several datasets \(coco_panoptic, objects365"):
        export(tmp_path / "both", "coco-instances", tmp_path / "coco")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        export(boxes, "coco-instances", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
    assert not list(tmp_path.glob(".*"))


def test_unfinished_and_damaged_shards(own: Own, tmp_path: Path) -> None:
    own.pairs(3)
    folder = shard(own.recipe, own.root, "train", tmp_path / "shards").folder
    assert folder is not None
    (tar,) = folder.glob("*.tar")
    data = tar.read_bytes()
    tar.write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match="is not a whole tar .* `labelmerge verify` shows all faults"):
        export(folder, "coco-panoptic", tmp_path / "coco")
    place = data.index(b"\xff\xda") + 200  # in the first JPEG's scan
    tar.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ShardError, match=r"000000\.tar: its content does not match the manifest's sha256"):
        export(folder, "coco-panoptic", tmp_path / "coco")
    tar.write_bytes(data.replace(b'"height":12', b'"height":13'))
    with pytest.raises(ShardError, match="000000000: is damaged"):
        export(folder, "coco-panoptic", tmp_path / "coco")
    tar.unlink()
    with pytest.raises(ShardError, match="is missing"):
        export(folder, "coco-panoptic", tmp_path / "coco")
    (folder / "manifest.json").unlink()
    with pytest.raises(ShardError, match="no shards here"):
        export(folder, "coco-panoptic", tmp_path / "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_the_command(run: Run, panoptic: Path, tmp_path: Path) -> None:
    things = tmp_path / "things.txt"
    things.write_text("person\n\nclock\n")
    words = ("export", panoptic / "val", "--out", tmp_path / "coco", "--no-images")
    result = run(*words, "--format", "coco-instances", "--things", things)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == (
        f"Wrote coco_panoptic val to {tmp_path}/coco: 3 annotations of 1 image, 2 categories."
    )
    again = run(*words, "--format", "coco-panoptic")
    assert (again.exit_code, again.stderr.splitlines()[-1].count("is there already")) == (1, 1)


def test_tar_members_are_never_paths(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    folder = shard(own.recipe, own.root, "train", tmp_path / "shards").folder
    assert folder is not None
    (tar,) = folder.glob("*.tar")
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("../../outside.jpg"))
    with pytest.raises(ShardError, match="are named KEY.MEMBER, without folders"):
        export(folder, "coco-panoptic", tmp_path / "coco")


def test_things_outside_all_segments_are_a_crowd() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
    ids = np.array([[5, 0, 0, 0], [5, 0, 0, 0]], dtype=np.uint16)  # one car, and pixels of cars that no segment holds
    segments = [{"id": 5, "class_index": 0, "iscrowd": False}]
    found, _ = panoptic_of(mask, ids, segments, {0: 3, 1: 21}, 255, {0})
    told = [(each["category_id"], each["area"], each["iscrowd"]) for each in found]
    assert told == [(3, 2, 0), (3, 2, 1), (21, 3, 0)]

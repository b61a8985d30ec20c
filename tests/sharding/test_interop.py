"""Hugging Face datasets, webdataset and plain tarfile read shards, also where the first samples have empty lists."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

EMPTY_FIRST = 3
"""So many samples at the beginning, more than one shard of them, have nothing in their lists."""
_PER_SHARD = 2

BOX_RECIPE = """name = "goods"
annotation_type = "box"
reader = "coco_boxes"
descriptions = "goods.csv"
[layout]
images = "images/{split}"
annotations = "{split}.json"
"""
NOISY_RECIPE = """name = "objects"
annotation_type = "noisy_mask"
reader = "mask_per_object"
descriptions = "objects.csv"
[layout]
images = "{split}/*.jpg"
masks = "masks/{split}/*.png"
annotations = "{split}.csv"
boxes = "{split}-bbox.csv"
classes = "classes.txt"
class_names = "names.csv"
"""
PANOPTIC_RECIPE = """name = "rooms"
annotation_type = "mask"
reader = "panoptic"
descriptions = "rooms.csv"
[layout]
images = "images/{split}"
annotations = "{split}.json"
masks = "pngs/{split}"
"""
COUNT = 6


def _images(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return [f"{number}.jpg" for number in range(COUNT)]


def _listed(names: list[str]) -> list[dict[str, Any]]:
    return [{"id": number, "file_name": name, "height": 12, "width": 16} for number, name in enumerate(names)]


def box_set(root: Path) -> str:
    """Boxes in the later images only."""
    names = _images(root / "images/train")
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3.5, 4], "area": 14}
        for n in range(EMPTY_FIRST, COUNT)
    ]
    data = {"images": _listed(names), "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]}
    (root / "train.json").write_text(json.dumps(data))
    (root / "goods.csv").write_text("index,name\n0,cup\n")
    return BOX_RECIPE


def panoptic_set(root: Path) -> str:
    """Segments in the later images only."""
    names = _images(root / "images/train")
    (root / "pngs/train").mkdir(parents=True)
    annotations = []
    for number in range(COUNT):
        ids = np.zeros((12, 16, 3), np.uint8)
        ids[:6] = [7, 0, 0] if number >= EMPTY_FIRST else [0, 0, 0]
        Image.fromarray(ids).save(root / f"pngs/train/{number}.png")
        segments = [{"id": 7, "category_id": 1, "iscrowd": 0, "area": 96}] if number >= EMPTY_FIRST else []
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    data = {"images": _listed(names), "annotations": annotations, "categories": [{"id": 1, "name": "wall"}]}
    (root / "train.json").write_text(json.dumps(data))
    (root / "rooms.csv").write_text("index,name\n0,wall\n")
    return PANOPTIC_RECIPE


def noisy_set(root: Path) -> str:
    """Open Images: a mask for every image, boxes for the later ones only."""
    names = _images(root / "train")
    (root / "masks/train").mkdir(parents=True)
    rows, boxes = [], []
    for number, name in enumerate(names):
        stem = Path(name).stem
        mask = np.zeros((12, 16), bool)
        mask[2:6, 4:8] = True
        Image.fromarray(mask).save(root / f"masks/train/{stem}_m0cup_ab{number}.png")
        right = 0.5 if number >= EMPTY_FIRST else 0.25  # a box without a width is none
        rows.append(f"{stem}_m0cup_ab{number}.png,{stem},/m/0cup,ab{number},0.25,{right},0.2,0.5,0.8,")
        if number >= EMPTY_FIRST:
            boxes.append(f"{stem},xclick,/m/0cup,1,0.25,{right},0.2,0.5,0,0,0,0,0")
    head = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
    (root / "train.csv").write_text("\n".join([head, *rows]) + "\n")
    head = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    (root / "train-bbox.csv").write_text("\n".join([head, *boxes]) + "\n")
    (root / "classes.txt").write_text("/m/0cup\n")
    (root / "names.csv").write_text("/m/0cup,Cup\n")
    (root / "objects.csv").write_text("index,name\n0,Cup\n")
    return NOISY_RECIPE


SETS: dict[str, tuple[Callable[[Path], str], str, list[str]]] = {
    "box": (box_set, "boxes", ["jpg"]),
    "noisy_mask": (noisy_set, "boxes", ["jpg", "mask.png"]),
    "panoptic": (panoptic_set, "segments", ["jpg", "mask.png", "instances.png"]),
}


@pytest.fixture(params=sorted(SETS))
def set_of(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, list[str]]:
    """Shards of one kind: their folder, the list that is empty first, and the image members."""
    make, field, members = SETS[request.param]
    recipe = make(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe)
    report = shard(
        load_recipe(tmp_path / "recipe.toml"), tmp_path, "train", tmp_path / "out", samples_per_shard=_PER_SHARD
    )
    assert report.folder is not None and (report.written, report.shards) == (COUNT, COUNT // _PER_SHARD), report
    return report.folder, field, members


def lengths(metas: list[dict[str, Any]], field: str) -> list[int]:
    return [len(json.loads(meta[field])) for meta in metas]


def wanted(found: list[int]) -> bool:
    return found[:EMPTY_FIRST] == [0] * EMPTY_FIRST and all(found[EMPTY_FIRST:])


def test_hugging_face_datasets(set_of: tuple[Path, str, list[str]], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder, field, members = set_of
    opened = datasets.load_dataset(
        "webdataset", data_files={"train": f"{folder}/*.tar"}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert opened.num_rows == COUNT
    assert wanted(lengths(opened["json"], field))
    for member in members:
        assert opened[COUNT - 1][member].size == (16, 12)
    streamed = datasets.load_dataset("webdataset", data_files=f"{folder}/*.tar", split="train", streaming=True)
    assert wanted(lengths([sample["json"] for sample in streamed], field))


def test_plain_lists_would_break_hugging_face_datasets(tmp_path: Path) -> None:
    """What the JSON texts are for: with lists in their place the types of the first samples fit no later one."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "recipe.toml").write_text(box_set(tmp_path))
    folder = shard(
        load_recipe(tmp_path / "recipe.toml"), tmp_path, "train", tmp_path / "out", samples_per_shard=_PER_SHARD
    ).folder
    assert folder is not None
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        with tarfile.open(path, "w") as tar:
            for name, data in members.items():
                if name.endswith(".json"):
                    meta = json.loads(data)
                    data = json.dumps({**meta, "boxes": json.loads(meta["boxes"])}).encode()
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, BytesIO(data))
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        datasets.load_dataset(
            "webdataset", data_files={"train": f"{folder}/*.tar"}, split="train", cache_dir=str(tmp_path / "cache")
        )


# webdataset leaves tars for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset(set_of: tuple[Path, str, list[str]]) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder, field, members = set_of
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    decoded = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert len(decoded) == COUNT
    assert wanted(lengths([sample["json"] for sample in decoded], field))
    for member in members:
        assert decoded[0][member].size == (16, 12)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_16_bit_masks_keep_their_values(tmp_path: Path, own: Own) -> None:
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    own.write_classes([f"class {index}" for index in range(300)])
    own.pairs(1)
    own.mask("masks/train/000.png", np.full((12, 16), 290, np.uint16))
    folder = shard(own.recipe, own.root, "train", tmp_path / "out").folder
    assert folder is not None
    (sample,) = datasets.load_dataset("webdataset", data_files=f"{folder}/*.tar", split="train", streaming=True)
    assert np.unique(np.asarray(sample["mask.png"])).tolist() == [290]
    masks = webdataset.handle_extension("mask.png instances.png", lambda data: np.asarray(Image.open(BytesIO(data))))
    tars = [str(path) for path in folder.glob("*.tar")]
    (sample,) = webdataset.WebDataset(tars, shardshuffle=False).decode(masks, "pil")
    assert np.unique(sample["mask.png"]).tolist() == [290] and sample["jpg"].mode == "RGB"


def test_tarfile(set_of: tuple[Path, str, list[str]]) -> None:
    folder, field, members = set_of
    metas = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert names == sorted(names) and {name.partition(".")[2] for name in names} == {"json", *members}
            metas += [json.load(tar.extractfile(name)) for name in names if name.endswith(".json")]  # type: ignore[arg-type]
    assert wanted(lengths(metas, field))

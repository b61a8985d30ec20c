"""What is exported and read again is what was there: random shards through every format that a reader knows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelmerge.catalog import load_recipe
from labelmerge.errors import SampleError
from labelmerge.inspect.export import export
from labelmerge.inspect.export_merged import export_merged
from labelmerge.sharding.source.source import Annotation, Segment
from labelmerge.shardset.meta import meta_bytes
from labelmerge.shardset.sample import Sample
from labelmerge.shardset.shardset import ShardSet

from ..loading.toy_shards import Members, Toy, png
from ..sharding.listing import listed

FEW = ("Straße, breit", 'the "car"', "=SUM(A1)", "дерево", "no", "9")
MANY = tuple(f"class {number}" for number in range(300))
OF_OBJECTS = ("coco-panoptic", "coco-instances", "yolo")


class Random(Toy):
    """Images of random sizes with random masks, segments and boxes; the first has no object at all."""

    def sample(self, number: int) -> tuple[str, Members]:
        random = np.random.default_rng([self.seed, number])
        height, width = (int(edge) for edge in random.integers(1, 30, 2))
        mask = np.full((height, width), self.space.ignore_index, dtype=self.space.dtype)
        ids = np.zeros((height, width), dtype=np.uint16)
        segments: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for place in range(int(random.integers(1, 7)) if number else 0):
            one: dict[str, Any] = {
                "class_index": int(random.integers(len(self.names))),
                "iscrowd": bool(random.random() < 0.3),
            }
            (y0, y1), (x0, x1) = (np.sort(random.integers(0, edge + 1, 2)) for edge in (height, width))
            ids[y0:y1, x0:x1][random.random((y1 - y0, x1 - x0)) < 0.8] = 9000 * place + 7
            segments.append({**one, "id": 9000 * place + 7, "category_id": 0, "native_id": str(place)})
            low, high = random.uniform(0, 0.5, 2) * (width, height), random.uniform(0.5, 1, 2) * (width, height)
            flags = {"group_of": False, "depiction": False, "reflected": bool(random.random() < 0.3)}
            boxes.append({**one, **flags, "bbox": [*low.tolist(), *high.tolist()], "area": 0.1, "native_id": ""})
        segments = [{**one, "area": int((ids == one["id"]).sum())} for one in segments if (ids == one["id"]).any()]
        for segment in segments:
            mask[ids == segment["id"]] = segment["class_index"]
        if self.kind == "mask":  # and things of which nobody drew a single one
            stuff = (ids == 0) & (random.random(ids.shape) < 0.3)
            mask[stuff] = random.integers(len(self.names), size=int(stuff.sum()))
        key = f"{self.name}-train-{number:09d}"
        meta = {
            **{"key": key, "dataset": self.name, "split": "train", "annotation_type": self.kind},
            **{"label_space": self.space.hash, "height": height, "width": width, "original_height": height},
            **{"original_width": width, "present": [], "boxes": boxes if self.kind == "box" else []},
            "source": {"path": f"{number}.png", "native_id": str(number), "sha256": ""},
            "segments": segments if self.segments else [],
        }
        image = png(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
        members = {"json": meta_bytes(meta), "png": image}
        members |= {"mask.png": png(mask)} if self.kind != "box" else {}
        return key, members | ({"instances.png": png(ids)} if self.segments else {})


def recipe(folder: Path, kind: str, reader: str, names: tuple[str, ...], rest: str) -> Any:
    with (folder / "again.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("index", "name"), *enumerate(names)])
    head = f'name = "again"\nannotation_type = "{kind}"\nreader = "{reader}"\ndescriptions = "again.csv"\n'
    (folder / "again.toml").write_text(head + 'image_format = "png"\n' + rest)
    return load_recipe(folder / "again.toml")


LAYOUTS = {
    "index-png": '[layout]\nimages = "images/{split}/*.png"\nmasks = "masks/{split}/{stem}.png"\n'
    "[ids]\nignore = [%d]\n",
    "hf": '[layout]\nimages = "data/{split}-*.parquet"\nmask_column = "mask"\n[ids]\nignore = [%d]\n',
    "coco-panoptic": '[layout]\nimages = "{split}"\nannotations = "annotations/panoptic_{split}.json"\n'
    'masks = "annotations/panoptic_{split}"\n',
    "coco-instances": '[layout]\nimages = "{split}"\nannotations = "annotations/instances_{split}.json"\n',
    "yolo": '[layout]\ndata = "data.yaml"\n',
}
READERS = {
    "index-png": "index_png",
    "hf": "hf_dataset",
    "coco-panoptic": "panoptic",
    "coco-instances": "coco_instances",
}


def there_and_back(
    toy: Random, tmp_path: Path, format: str, merged: bool
) -> Iterator[tuple[Sample, Annotation | None]]:
    """Every sample, and what is read of it again; None where nothing is."""
    folder = toy.write(tmp_path / "shards")
    things = toy.names if format in OF_OBJECTS else None
    if merged:
        export_merged([folder], format, tmp_path / "out", things=things)
    else:
        export(folder, format, tmp_path / "out", things=things)
    layout, reader = LAYOUTS[format], READERS.get(format, "yolo")
    if toy.kind == "box" and format == "hf":
        layout = layout.partition("mask_column")[0] + 'boxes_column = "objects.bbox"\n'
        layout += 'classes_column = "objects.category"\n'
    elif "%d" in layout:
        layout %= toy.space.ignore_index
    if toy.kind == "box" and format == "coco-instances":
        reader = "coco_boxes"
    kind = "noisy_mask" if reader in ("coco_instances", "yolo") and toy.kind != "box" else toy.kind
    found = listed(recipe(tmp_path, kind, reader, toy.names, layout), tmp_path / "out", "train")
    shards = ShardSet.open(folder)
    items = {item.path.rpartition("/")[2].removesuffix(".png"): item for item in found.items}
    if format == "hf":  # whose rows have no names
        items = {f"{toy.name}-train-{number:09d}": item for number, item in enumerate(found.items)}
    for number in range(len(shards)):
        sample = shards.fetch(number, but=()).decode()
        item = items.pop(sample.key, None)
        again = None
        with suppress(SampleError):  # of YOLO's readers, for files without lines
            again = None if item is None else found.read(item, (sample.image.shape[0], sample.image.shape[1]))
        yield sample, again
    assert not items


class One:
    """A segment of a sample's JSON, as the readers give it."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.id, self.class_index, self.iscrowd = record["id"], record["class_index"], record["iscrowd"]


def ones(sample: Sample) -> list[One]:
    return [One(record) for record in sample.segments]


def objects(classes: Iterable[One | Segment], ids: npt.NDArray[Any] | None) -> Counter[Any]:
    """Class, crowd and pixels of every segment."""
    assert ids is not None
    return Counter((one.class_index, one.iscrowd, (ids == one.id).tobytes()) for one in classes)


@pytest.mark.parametrize("names", [FEW, MANY], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("format", ["index-png", "hf"])
def test_class_masks(format: str, names: tuple[str, ...], tmp_path: Path) -> None:
    for sample, again in there_and_back(Random("toy", names, count=9), tmp_path, format, merged=True):
        assert again is not None and again.mask is not None
        np.testing.assert_array_equal(again.mask, sample.mask)


@pytest.mark.parametrize("names", [FEW, MANY], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("merged", [False, True])
def test_panoptic(merged: bool, names: tuple[str, ...], tmp_path: Path) -> None:
    toy = Random("toy", names, count=9, segments=True)
    for sample, again in there_and_back(toy, tmp_path, "coco-panoptic", merged):
        assert again is not None and sample.mask is not None and sample.instances is not None
        np.testing.assert_array_equal(again.mask, sample.mask)
        before = objects(ones(sample), sample.instances)
        after = objects(again.segments, again.instances)
        assert before <= after
        # What is no segment is a crowd of its class.
        rest = {(index, True) for index in np.unique(sample.mask[sample.instances == 0]).tolist()}
        assert {(index, crowd) for index, crowd, _ in after - before} == rest - {(toy.space.ignore_index, True)}


@pytest.mark.parametrize("merged", [False, True])
def test_instances(merged: bool, tmp_path: Path) -> None:
    toy = Random("toy", FEW, "noisy_mask", count=9, segments=True)
    seen = 0
    for sample, again in there_and_back(toy, tmp_path, "coco-instances", merged):
        if again is None:
            assert not sample.segments
            continue
        np.testing.assert_array_equal(again.mask, sample.mask)
        assert objects(again.segments, again.instances) == objects(ones(sample), sample.instances)
        seen += len(again.segments)
    assert seen > 9


def test_outlines(tmp_path: Path) -> None:
    toy = Random("toy", FEW, "noisy_mask", count=9, segments=True)
    seen = 0
    for sample, again in there_and_back(toy, tmp_path, "yolo", merged=True):
        drawn = [one for one in ones(sample) if not one.iscrowd]
        if again is None:
            assert not drawn
            continue
        assert sample.instances is not None and sample.mask is not None and again.mask is not None
        kept = np.isin(sample.instances, [one.id for one in drawn])
        np.testing.assert_array_equal(again.mask, np.where(kept, sample.mask, toy.space.ignore_index))
        seen += len(drawn)
    assert seen > 9


@pytest.mark.parametrize(
    ("format", "merged"), [("coco-instances", False), ("coco-instances", True), ("hf", True), ("yolo", True)]
)
def test_boxes(format: str, merged: bool, tmp_path: Path) -> None:
    toy = Random("toy", FEW, "box", count=9)
    seen = 0
    for sample, again in there_and_back(toy, tmp_path, format, merged):
        assert again is not None
        listed = list(zip(sample.box_classes.tolist(), sample.iscrowd.tolist(), sample.boxes.tolist(), strict=True))
        expected = [one for one in listed if not one[1]] if format == "yolo" else listed
        assert [box.class_index for box in again.boxes] == [index for index, _, _ in expected]
        np.testing.assert_allclose(
            np.reshape([box.bbox for box in again.boxes], (-1, 4)),
            np.reshape([bbox for _, _, bbox in expected], (-1, 4)),
            atol=1e-4,
        )
        if format == "coco-instances":
            assert [box.iscrowd for box in again.boxes] == [crowd for _, crowd, _ in expected]
        seen += len(expected)
    assert seen > 9

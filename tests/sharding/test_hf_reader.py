"""Masks and boxes in the columns of a `datasets` dataset, on disk and from the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import httpx
import numpy as np
import pytest
from PIL import Image

from labelmerge.errors import LayoutError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.readers import hf_dataset
from labelmerge.sharding.shard import shard

from .hub_rows import CLASSES, IGNORE, MASK_FEATURES, MASK_LAYOUT, SIZE, Rows, encoded, mask_rows, recipe, save
from .listing import listed

Samples = Callable[[Path], dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("form", ["folder", "folders", "parquet", "arrow"])
def test_masks(form: str, tmp_path: Path, read_samples: Samples) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rows = mask_rows(37)
    own = recipe(tmp_path / "recipe", f"{save(rows, MASK_FEATURES, root, form)}\n{MASK_LAYOUT}", more=IGNORE)
    report = shard(own, root, "train", tmp_path / "out", samples_per_shard=10)
    assert (report.written, report.skipped, report.notes) == (37, (), {})
    assert verify([tmp_path / "out"]).problems == ()
    for row, sample in zip(rows, read_samples(tmp_path / "out/own/train").values(), strict=True):
        assert sample["jpg"] == row["photo"]["bytes"]  # as stored
        assert sample["json"]["source"]["native_id"] == row["photo"]["path"]
        np.testing.assert_array_equal(sample["mask.png"], np.asarray(Image.open(BytesIO(row["seg"]["bytes"]))))


def test_rows_can_be_read_in_any_order(tmp_path: Path) -> None:
    rows = mask_rows(40)
    own = recipe(tmp_path / "recipe", f"{save(rows, MASK_FEATURES, tmp_path, 'parquet')}\n{MASK_LAYOUT}", more=IGNORE)
    plan = listed(own, tmp_path, "train")
    assert plan.items[21].path == "train-00001-of-00002.parquet#00000001.jpg"
    for number in np.random.default_rng(0).permutation(40).tolist():
        assert hf_dataset.image(plan.source, plan.items[number]) == rows[number]["photo"]["bytes"]
    # A file that was replaced is read anew.
    save(rows[::-1], MASK_FEATURES, tmp_path, "parquet")
    assert hf_dataset.image(plan.source, plan.items[0]) == rows[39]["photo"]["bytes"]


def test_splits_and_words(tmp_path: Path) -> None:
    layout = f"{save(mask_rows(3), MASK_FEATURES, tmp_path, 'folders')}\n{MASK_LAYOUT}"
    own = recipe(tmp_path / "recipe", layout, more=f'{IGNORE}\n[splits]\nval = "validation"')
    assert [item.path for item in listed(own, tmp_path, "val").items][:1] == [
        "own_data/validation/data-00000-of-00001.arrow#00000000.jpg"
    ]
    with pytest.raises(LayoutError, match="has no split 'test', only train, validation. The recipe's"):
        listed(own, tmp_path, "test")


def test_array_and_binary_columns(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    masks = random.integers(0, 3, (4, *SIZE)).astype(np.uint8)
    image = encoded(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8), "PNG")
    features = datasets.Features({"image": datasets.Value("binary"), "m": datasets.Array2D(SIZE, "uint8")})
    rows = [{"image": image, "m": mask.tolist()} for mask in masks]
    for form in ("folder", "parquet"):
        own = recipe(tmp_path / "recipe", f'{save(rows, features, tmp_path, form)}\nmask_column = "m"')
        plan = listed(own, tmp_path, "train")
        for item, mask in zip(plan.items, masks, strict=True):
            assert hf_dataset.image(plan.source, item) == image
            np.testing.assert_array_equal(plan.read(item).mask, mask)


def box_rows(kind: str) -> Rows:
    image = {"bytes": encoded(np.zeros((*SIZE, 3), np.uint8), "PNG"), "path": "a.png"}
    random = np.random.default_rng(7)
    rows = []
    for count in (0, 3, 1):
        boxes = random.uniform(-2, 14, (count, 4)).round(2).tolist()
        labels = random.integers(0, 3, count).tolist()
        rows.append(
            {"image": image, "boxes": boxes, "labels": [CLASSES[n].upper() if kind == "text" else n for n in labels]}
        )
    return rows


def slow_boxes(row: Mapping[str, Any], corners: bool) -> list[tuple[int, tuple[float, ...]]]:
    """Class and corners of every box that has a part in the image."""
    found: list[tuple[int, tuple[float, ...]]] = []
    for (x, y, third, fourth), label in zip(row["boxes"], row["labels"], strict=True):
        right, bottom = (third, fourth) if corners else (x + third, y + fourth)
        left, top, right, bottom = max(x, 0), max(y, 0), min(right, SIZE[1]), min(bottom, SIZE[0])
        if left < right and top < bottom:
            number = label if isinstance(label, int) else [name.upper() for name in CLASSES].index(label)
            found.append((number, (left, top, right, bottom)))
    return found


@pytest.mark.parametrize("box_format", ["xywh", "xyxy"])
@pytest.mark.parametrize("shape", ["lists", "record", "records"])
@pytest.mark.parametrize("kind", ["numbers", "text", "names"])
def test_boxes(kind: str, shape: str, box_format: str, tmp_path: Path) -> None:
    rows = box_rows(kind)
    label = {
        "numbers": datasets.Value("int32"),
        "text": datasets.Value("string"),
        "names": datasets.ClassLabel(names=["Road", "CAR", "sky"]),
    }[kind]
    box = datasets.Sequence(datasets.Value("float64"), length=4)
    features: dict[str, Any] = {"image": datasets.Image()}
    columns = 'boxes_column = "boxes"\nclasses_column = "labels"'
    if shape == "lists":
        features |= {"boxes": datasets.Sequence(box), "labels": datasets.Sequence(label)}
    else:
        columns = 'boxes_column = "o.boxes"\nclasses_column = "o.labels"'
        record = {"boxes": datasets.Sequence(box), "labels": datasets.Sequence(label)}
        features["o"] = record if shape == "record" else [{"boxes": box, "labels": label}]
    stored = []
    for row in rows:
        parts: Any = {key: row[key] for key in ("boxes", "labels")}
        if shape == "records":
            parts = [{"boxes": b, "labels": n} for b, n in zip(row["boxes"], row["labels"], strict=True)]
        stored.append({"image": row["image"], **(parts if shape == "lists" else {"o": parts})})
    images = save(stored, datasets.Features(features), tmp_path, "parquet")
    options = f'[options]\nbox_format = "{box_format}"'
    plan = listed(recipe(tmp_path / "recipe", f"{images}\n{columns}", "box", options), tmp_path, "train")
    dropped = 0
    for row, item in zip(rows, plan.items, strict=True):
        annotation = plan.read(item, SIZE)
        expected = slow_boxes(row, box_format == "xyxy")
        assert [box.class_index for box in annotation.boxes] == [number for number, _ in expected]
        for box_, (_, corners) in zip(annotation.boxes, expected, strict=True):
            assert box_.bbox == pytest.approx(corners)
        dropped += len(row["boxes"]) - len(expected) - annotation.notes["zero_size_boxes"]
    assert dropped == 0


LISTS = 'images = "{split}.arrow"\nboxes_column = "boxes"\nclasses_column = "labels"'


def box_table(folder: Path, boxes: Any, labels: Any, label: Any = None) -> None:
    image = {"bytes": encoded(np.zeros((*SIZE, 3), np.uint8), "PNG"), "path": None}
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))),
            "labels": datasets.Sequence(label or datasets.Value("int64")),
        }
    )
    save([{"image": image, "boxes": boxes, "labels": labels}], features, folder, "arrow")


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([[0, 0, 1, 1]], [0, 1], "has 1 boxes, but 2 classes"),
        ([[0, 0, 1]], [0], r"its box \[0.0, 0.0, 1.0\] is not four numbers"),
        ([[0, 0, 1, None]], [0], "is not four numbers"),
        ([[0, 0, 1, 1]], [7], "its class 7 is unknown to the recipe"),
        ([[0, 0, 1, 1]], [-1], "its class -1 is unknown to the recipe"),
        ([[0, 0, 1, 1]], [None], "its class None is unknown to the recipe"),
    ],
)
def test_bad_boxes_are_a_sample_error(boxes: Any, labels: Any, message: str, tmp_path: Path) -> None:
    box_table(tmp_path, boxes, labels)
    plan = listed(recipe(tmp_path / "recipe", LISTS, "box"), tmp_path, "train")
    with pytest.raises(SampleError, match=message):
        plan.read(plan.item)


@pytest.mark.parametrize(
    ("ids", "expected", "without"),
    [
        ('other = "ignore"', [1], 2),
        ("ignore = [1]\nmap = {lane = 'road'}", [1, 0], 1),
        ("ignore = ['nothing']\nmap = {LANE = 2}", [1, 2], 1),
        ("ignore = [1]\nmap = {0 = 2, 2 = 0}", [2, 0], 1),
        ("ignore = [9]\noffset = -1\nother = 'ignore'", [0, 1], 1),
    ],
)
def test_what_the_names_in_the_file_mean(ids: str, expected: list[int], without: int, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["Car", "nothing", "lane"])
    box_table(tmp_path, [[0, 0, 1, 1]] * 3, [0, 1, 2], names)
    plan = listed(recipe(tmp_path / "recipe", LISTS, "box", f"[ids]\n{ids}"), tmp_path, "train")
    annotation = plan.read(plan.item)
    assert [box.class_index for box in annotation.boxes] == expected
    assert annotation.notes == {"boxes_without_class": without}


def test_names_of_another_dataset_are_refused(tmp_path: Path) -> None:
    box_table(tmp_path, [[0, 0, 1, 1]], [0], datasets.ClassLabel(names=["Car", "nothing", "lane"]))
    with pytest.raises(
        LayoutError, match="2 of the 3 classes that its column 'labels' names are none of own's: 'nothi"
    ):
        listed(recipe(tmp_path / "recipe", LISTS, "box"), tmp_path, "train")


def test_boxes_that_are_no_numbers_are_dropped(tmp_path: Path) -> None:
    box_table(tmp_path, [[float("nan"), 0, 1, 1], [0, 0, float("inf"), 2]], [0, 1])
    plan = listed(recipe(tmp_path / "recipe", LISTS, "box"), tmp_path, "train")
    annotation = plan.read(plan.item)
    assert [box.bbox for box in annotation.boxes] == [(0, 0, 16, 2)] and annotation.notes == {"zero_size_boxes": 1}


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself is stood in for by Parquet files; the Arrow files under the root are made by `datasets`."""
    rows = mask_rows(5)
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    root.mkdir()
    save(rows, MASK_FEATURES, source, "parquet")
    load, asked = datasets.load_dataset, []

    def fake(name: str, config: str | None, **options: Any) -> Any:
        asked.append((name, config, options["split"], options["revision"]))
        return load("parquet", data_files={"train": str(source / "*.parquet")}, features=MASK_FEATURES,
                    split=options["split"], cache_dir=options["cache_dir"])  # fmt: skip

    monkeypatch.setattr(datasets, "load_dataset", fake)
    monkeypatch.setattr(hf_dataset, "ask_hub", lambda: None)
    own = recipe(tmp_path / "recipe", f'hub = "who/what"\nconfig = "small"\nrevision = "1"\n{MASK_LAYOUT}', more=IGNORE)
    report = shard(own, root, "train", tmp_path / "out")
    assert (report.written, report.skipped) == (5, ())
    assert set(asked) == {("who/what", "small", "train", "1")}
    assert all(item.path.startswith("parquet/") for item in listed(own, root, "train").items)


def test_what_the_hub_has_not_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_split(*args: Any, **options: Any) -> Any:
        raise ValueError("Unknown split 'train'. Should be one of ['test'].\nAnd more.")

    monkeypatch.setattr(hf_dataset, "ask_hub", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", no_such_split)
    with pytest.raises(LayoutError) as caught:
        listed(recipe(tmp_path / "recipe", f'hub = "who/what"\n{MASK_LAYOUT}'), tmp_path, "train")
    assert str(caught.value) == (
        "who/what: can't be loaded from the hub (Unknown split 'train'. Should be one of ['test'].)"
    )


def test_an_unreachable_hub_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(hf_dataset, "ask_hub", nobody)
    own = recipe(tmp_path / "recipe", f'hub = "who/what"\n{MASK_LAYOUT}')
    with pytest.raises(LayoutError) as caught:
        listed(own, tmp_path, "train")
    assert str(caught.value) == (
        "who/what: the hub can't be reached (Name or service not known). Without a connection, fetch the dataset's "
        "Parquet files elsewhere, and name them as layout.images"
    )

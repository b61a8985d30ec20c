"""Hugging Face datasets, written by `datasets` itself, against the rows that went into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import Recipe, load_recipe
from labelmerge.errors import LabelmergeError, LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures import arrow
from labelmerge.sharding.readers import hf_dataset
from labelmerge.sharding.shard import shard

from .listing import listed

Array = npt.NDArray[Any]
Samples = Callable[[Path], dict[str, dict[str, Any]]]

SIZE = (12, 16)
CLASSES = ["road", "car", "sky"]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    datasets.disable_progress_bars()


def encoded(pixels: Array, kind: str) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def recipe(folder: Path, layout: str, kind: str = "mask", more: str = "") -> Recipe:
    """A recipe of one's own, `[layout]` and what else there is."""
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{index},{name}\n" for index, name in enumerate(CLASSES))
    (folder / "own.csv").write_text(f"index,name\n{rows}")
    text = f'name = "own"\nannotation_type = "{kind}"\nreader = "hf_dataset"\ndescriptions = "own.csv"\n'
    (folder / "own.toml").write_text(f"{text}[layout]\n{layout}\n{more}\n")
    return load_recipe(folder / "own.toml")


Rows = list[dict[str, Any]]


def mask_rows(count: int, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        pixels = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        mask = random.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
        image = {"bytes": encoded(pixels, "JPEG"), "path": f"{number}.jpg"}
        rows.append({"id": number, "photo": image, "seg": {"bytes": encoded(mask, "PNG"), "path": None}})
    return rows


MASK_FEATURES = datasets.Features({"id": datasets.Value("int64"), "photo": datasets.Image(), "seg": datasets.Image()})
MASK_LAYOUT = 'image_column = "photo"\nmask_column = "seg"'
IGNORE = "[ids]\nignore = [255]"


def save(rows: Rows, features: Any, root: Path, form: str) -> str:
    """Write rows as the split `train` in one of the forms on disk; what `layout.images` is for it."""
    table = datasets.Dataset.from_list(rows, features=features)
    if form == "folder":
        table.save_to_disk(root / "own_data", num_shards=2)
        return 'images = "own_data"'
    if form == "folders":
        datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(root / "own_data")
        return 'images = "own_data"'
    if form == "parquet":
        half = len(rows) // 2
        for number, part in enumerate((table.select(range(half)), table.select(range(half, len(rows))))):
            part.to_parquet(root / f"train-{number:05d}-of-00002.parquet", batch_size=2)
        return 'images = "{split}-*.parquet"'
    with pa.ipc.new_file(root / "train.arrow", table.data.schema) as writer:
        writer.write_table(table.data.table)
    return 'images = "{split}.arrow"'


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


# --- boxes ------------------------------------------------------------------------------------------------------------


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


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "kind", "more", "message"),
    [
        ('mask_column = "seg"', "mask", "", r"has no column 'image'; its columns are id \(int64\), photo \(struct<"),
        (MASK_LAYOUT.replace("seg", "id"), "mask", "", "has a column 'id' that holds no mask, but int64; its columns"),
        ('image_column = "id"\nmask_column = "seg"', "mask", "", "a column 'id' that holds no image, but int64"),
        ('image_column = "photo"\nboxes_column = "seg.bytes"\nclasses_column = "id"', "box", "", "holds no boxes"),
        ('image_column = "photo"\nboxes_column = "seg.x"\nclasses_column = "id"', "box", "", "has no column 'seg.x'"),
    ],
)
def test_columns_that_are_not_there(layout: str, kind: str, more: str, message: str, tmp_path: Path) -> None:
    images = save(mask_rows(2), MASK_FEATURES, tmp_path, "parquet")
    with pytest.raises(LayoutError, match=message):
        listed(recipe(tmp_path / "recipe", f"{images}\n{layout}", kind, more), tmp_path, "train")


@pytest.mark.parametrize(
    ("layout", "kind", "more", "message"),
    [
        ('images = "*.parquet"', "mask", "", "layout.mask_column is missing"),
        ('images = "*.parquet"\nboxes_column = "b"', "box", "", "layout.classes_column is missing"),
        ('images = "*.parquet"\nmask_column = ["a"]', "mask", "", "layout.mask_column must be the name of a column"),
        ('images = "*.parquet"\nmask_column = "a"\nboxes_column = "b"', "mask", "", "boxes_column is not for mask"),
        ('images = "*.parquet"\nhub = "a/b"\nmask_column = "m"', "mask", "", "layout.hub and layout.images exclude"),
        (
            'images = "*.parquet"\nconfig = "a"\nmask_column = "m"',
            "mask",
            "",
            "layout.config and layout.images exclude",
        ),
        ('images = "*.parquet"\nboxes_column = "b"\nclasses_column = "c"', "box", "[ids]\nother = 3", "ids.other is 3"),
        ('mask_column = "m"', "mask", "", "layout.images or layout.hub must say where the dataset is"),
        ('hub = ["a"]\nmask_column = "m"', "mask", "", "layout.hub, config and revision must be names"),
        (
            'images = "*.parquet"\nmask_column = "m"',
            "mask",
            '[options]\nbox_format = "yx"',
            "box_format must be 'xywh' or",
        ),
    ],
)
def test_recipes_that_make_no_sense(layout: str, kind: str, more: str, message: str, tmp_path: Path) -> None:
    save(mask_rows(2), MASK_FEATURES, tmp_path, "parquet")
    with pytest.raises(RecipeError, match=message):
        listed(recipe(tmp_path / "recipe", layout, kind, more), tmp_path, "train")


def test_other_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text('{"_data_files": [{"filename": 3}]}')
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for images, message in (
        ("empty", "is no folder that save_to_disk made. For Parquet files, add"),
        ("*.csv", "is neither a Parquet nor an Arrow file"),
        ("broken", "is no folder that save_to_disk made"),
        ("*.parquet", "can't be read"),
    ):
        with pytest.raises(LayoutError, match=message):
            listed(recipe(tmp_path / "recipe", f'images = "{images}"\nmask_column = "m"'), tmp_path, "train")


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        ({"bytes": None, "path": "inside/a.jpg"}, None),
        ({"bytes": None, "path": "{root}/inside/a.jpg"}, None),
        ({"bytes": None, "path": "../secret.jpg"}, "its image is stored elsewhere, outside the root: ../secret.jpg"),
        ({"bytes": None, "path": "/etc/hostname"}, "its image is stored elsewhere, outside the root: /etc/hostname"),
        ({"bytes": None, "path": "inside/b.jpg"}, "inside/b.jpg: can't be read (No such file or directory)"),
        ({"bytes": b"no image", "path": "a.jpg"}, "is not a readable image"),
        (None, "holds no image"),
    ],
)
def test_images_by_path_stay_inside_the_root(photo: Any, reason: str | None, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    good, bad = mask_rows(2)
    (root / "inside/a.jpg").write_bytes(good["photo"]["bytes"])
    (tmp_path / "secret.jpg").write_bytes(good["photo"]["bytes"])
    if photo and photo["path"]:
        photo = {**photo, "path": photo["path"].format(root=root)}
    images = save([good, {**bad, "photo": photo}], MASK_FEATURES, root, "arrow")
    report = shard(
        recipe(tmp_path / "recipe", f"{images}\n{MASK_LAYOUT}", more=IGNORE), root, "train", tmp_path / "out"
    )
    assert [skip["reason"] for skip in report.skipped] == ([] if reason is None else [reason])


def test_row_groups_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_MAX_ROW_GROUP", 1000)
    own = recipe(tmp_path / "recipe", f"{save(mask_rows(4), MASK_FEATURES, tmp_path, 'parquet')}\n{MASK_LAYOUT}")
    with pytest.raises(LayoutError, match="has a row group of .* Write it anew with smaller row groups"):
        listed(own, tmp_path, "train")


# --- the hub ----------------------------------------------------------------------------------------------------------


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
        "who/what: can't be had from the hub (Unknown split 'train'. Should be one of ['test'].)"
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


# --- damage -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["train.arrow", "train.parquet"]),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 3000),
)
def test_any_damage_gives_samples_or_clear_errors(
    tmp_path_factory: pytest.TempPathFactory, name: str, flips: list[tuple[int, int]], cut: int
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    table = datasets.Dataset.from_list(mask_rows(3), features=MASK_FEATURES)
    if name.endswith("parquet"):
        table.to_parquet(root / name)
    else:
        save(mask_rows(3), MASK_FEATURES, root, "arrow")
    data = bytearray((root / name).read_bytes())
    for place, value in flips:
        data[-1 - place % len(data)] = value
    (root / name).write_bytes(data[: len(data) - cut] if cut < 500 else data)
    own = recipe(root / "recipe", f'images = "{name}"\n{MASK_LAYOUT}', more=IGNORE)
    try:
        report = shard(own, root, "train", root / "out")
        assert report.found == len(report.skipped) + report.written
    except LabelmergeError as error:
        assert "\n" not in str(error)

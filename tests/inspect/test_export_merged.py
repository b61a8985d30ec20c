"""Three datasets as one, read by the tools that trainers read with, compared with the masks that were drawn."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import LabelmergeError, ShardError, TaxonomyError, UsageError
from labelmerge.inspect.export_merged import export_merged
from labelmerge.inspect.formats.outlines import outline
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet

from ..companies import COUNTS, DOCS, draw, recipes

TAXONOMY = """dataset,index,name,concepts
gate,2,person,person
gate,0,car,car
gate,1,bus,bus
depot,0,road,road
depot,1,vehicle,car;bus
depot,2,sky,sky
yard,0,bus,bus
yard,1,car,car
"""
CLASSES = ["person", "car", "bus", "road", "sky"]
CLASS_OF = {"depot": {0: 3, 2: 4}, "gate": {0: 1, 1: 2, 2: 0}, "yard": {0: 2, 1: 1}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the three datasets, each with its own classes, and a taxonomy."""
    folder = tmp_path_factory.mktemp("companies")
    draw(folder)
    for dataset, path in recipes(folder).items():
        for split in COUNTS[dataset]:
            shard(load_recipe(path), folder / dataset, split, folder / "shards")
    (folder / "company.csv").write_text(TAXONOMY)
    return folder


@pytest.fixture
def export(world: Path, tmp_path: Path) -> Callable[..., Any]:
    """Exports all shards, or the `datasets` named; the report, whose folder is new."""

    def go(format: str, *datasets: str, **settings: Any) -> Any:
        folders = [world / "shards" / name for name in datasets] or [world / "shards"]
        return export_merged(folders, format, tmp_path / "out", taxonomy=world / "company.csv", **settings)

    return go


def truth(world: Path, key: str) -> npt.NDArray[np.int64] | None:
    """The mask of a sample in the class list, value by value; None where it has none."""
    dataset, split, number = key.split("-")
    mask = ShardSet.open(world / "shards" / dataset / split).read(int(number)).mask
    if mask is None:
        return None
    return np.array([[CLASS_OF[dataset].get(int(value), 255) for value in row] for row in mask])


def test_index_pngs_and_the_class_list(world: Path, export: Callable[..., Any]) -> None:
    from torchvision.transforms.v2.functional import pil_to_tensor

    report = export("index-png")
    assert (report.images, report.splits, list(report.classes)) == (9, ("train", "val"), CLASSES)
    assert report.left_out == ("yard train has boxes, but no masks: `labelmerge relabel --checkpoint RUN` makes some",)
    lost = [(one.dataset, one.name, one.concepts, one.pixels) for one in report.lost]
    assert lost == [("depot", "vehicle", ("car", "bus"), 3360)]
    out = report.folder
    assert (out / "classes.txt").read_text().split() == CLASSES
    rows = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
    masks = sorted(out.glob("masks/*/*.png"))
    images = {path.stem: path for path in out.glob("images/*/*")}
    assert len(masks) == len(images) == 9 and images.keys() == {path.stem for path in masks}
    for path in masks:
        expected = truth(world, path.stem)
        assert path.parent.name == images[path.stem].parent.name == path.stem.split("-")[1]
        with Image.open(path) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), expected)
            for row in rows:
                colour = tuple(bytes.fromhex(row["colour"][1:]))
                assert set(map(tuple, np.asarray(image.convert("RGB"))[expected == int(row["index"])])) <= {colour}
        dataset, split, number = path.stem.split("-")
        source = ShardSet.open(world / "shards" / dataset / split).fetch(int(number)).members
        assert images[path.stem].read_bytes() == source.get("jpg", source.get("png"))
        with Image.open(images[path.stem]) as image:
            assert pil_to_tensor(image).shape == (3, 48, 64)
    fragment: dict[str, Any] = {}
    exec((out / "mmseg.py").read_text(), fragment)  # as mmengine reads a configuration
    assert list(fragment["metainfo"]["classes"]) == CLASSES and fragment["num_classes"] == 5
    for name in ("train", "val"):
        for one in fragment[f"{name}_datasets"]:
            found = list((out / one["data_prefix"]["img_path"]).glob(f"*{one['img_suffix']}"))
            seg = out / one["data_prefix"]["seg_map_path"]
            assert found and all((seg / f"{path.stem}{one['seg_map_suffix']}").is_file() for path in found)


def test_coco_panoptic_of_several_datasets(world: Path, export: Callable[..., Any]) -> None:
    out = export("coco-panoptic").folder
    seen: list[int] = []
    for split in ("train", "val"):
        told = json.loads((out / f"annotations/panoptic_{split}.json").read_text())
        assert [(one["id"], one["name"]) for one in told["categories"]] == list(enumerate(CLASSES, start=1))
        names = {one["id"]: one["file_name"] for one in told["images"]}
        seen += names
        for annotation in told["annotations"]:
            key = annotation["file_name"].removesuffix(".png")
            image = names[annotation["image_id"]]
            assert image.startswith(key) and (out / split / image).is_file()
            rgb = np.asarray(Image.open(out / f"annotations/panoptic_{split}/{key}.png")).astype(np.int64)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            found = np.full(ids.shape, 255)
            for one in annotation["segments_info"]:
                found[ids == one["id"]] = one["category_id"] - 1
                assert one["area"] == (ids == one["id"]).sum()
            np.testing.assert_array_equal(found, truth(world, key))
    assert sorted(seen) == list(range(1, 10)), "ids are unique over datasets and splits"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools at NumPy 2
def test_coco_instances_are_what_pycocotools_reads(world: Path, export: Callable[..., Any]) -> None:
    from pycocotools.coco import COCO

    report = export("coco-instances")
    assert report.things == ("person", "car", "bus") and len(report.left_out) == 2
    coco = COCO(report.folder / "annotations/instances_train.json")
    assert {one["name"]: one["id"] for one in coco.loadCats(coco.getCatIds())} == {"person": 1, "car": 2, "bus": 3}
    assert len(coco.getImgIds()) == 6 and len(coco.getAnnIds()) == 12
    for image in coco.loadImgs(coco.getImgIds()):
        expected = truth(world, image["file_name"].partition(".")[0])
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            x, y, width, height = annotation["bbox"]
            if expected is None:
                assert "segmentation" not in annotation and image["dataset"] == "yard"
            else:
                mask = coco.annToMask(annotation).astype(bool)
                assert (expected[mask] == annotation["category_id"] - 1).all() and mask.sum() == annotation["area"]
                assert mask[y : y + height, x : x + width].sum() == mask.sum()


def test_yolo_boxes_and_outlines(world: Path, export: Callable[..., Any], tmp_path: Path) -> None:
    report = export("yolo")
    assert report.task == "detect" and report.annotations == 12, "one set has boxes alone"
    data = (report.folder / "data.yaml").read_text()
    assert data.startswith('train: images/train\nnc: 5\nnames:\n  0: "person"\n  1: "car"\n')
    for path in report.folder.glob("labels/train/yard-*.txt"):
        sample = ShardSet.open(world / "shards/yard/train").read(int(path.stem[-9:]))
        rows = [line.split() for line in path.read_text().splitlines()]
        assert [int(row[0]) for row in rows] == [CLASS_OF["yard"][int(index)] for index in sample.box_classes]
        for row, (x0, y0, x1, y1) in zip(rows, sample.boxes, strict=True):
            share = [(x0 + x1) / 128, (y0 + y1) / 96, (x1 - x0) / 64, (y1 - y0) / 48]
            np.testing.assert_allclose(list(map(float, row[1:])), share, atol=1e-5)
        assert (report.folder / f"images/train/{path.stem}.png").is_file()
    segments = export_merged([world / "shards/gate"], "yolo", tmp_path / "segments", taxonomy=world / "company.csv")
    assert segments.task == "segment" and segments.annotations == 6
    for path in segments.folder.glob("labels/train/*.txt"):
        expected = truth(world, path.stem)
        assert expected is not None
        for line in path.read_text().splitlines():
            index, *numbers = line.split()
            polygon = np.array(numbers, dtype=float).reshape(-1, 2) * (64, 48)
            np.testing.assert_array_equal(within(polygon, (48, 64)), expected == int(index))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_ultralytics_reads_every_line(
    export: Callable[..., Any], task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    utils = pytest.importorskip("ultralytics.data.utils", reason="ultralytics is not installed")
    report = export("yolo", "gate", *(["yard"] if task == "detect" else []), task=task)
    file = report.folder / "data.yaml"
    file.write_text("val: images/train\n" + file.read_text())  # it wants one
    data = utils.check_det_dataset(str(file), autodownload=False)
    dataset = importlib.import_module("ultralytics.data.dataset").YOLODataset
    found = dataset(img_path=data["train"], data=data, task=task, imgsz=64, augment=False)
    lines = [line for path in (report.folder / "labels/train").iterdir() for line in path.read_text().splitlines()]
    assert list(data["names"].values()) == CLASSES and sum(len(each["cls"]) for each in found.labels) == len(lines) > 5
    assert sorted(int(kind) for each in found.labels for kind in each["cls"].ravel()) == sorted(
        int(line.split()[0]) for line in lines
    )
    if task == "segment":
        assert all(len(each["segments"]) == len(each["cls"]) for each in found.labels)


def test_mmengine_reads_the_fragment(export: Callable[..., Any], tmp_path: Path) -> None:
    config = pytest.importorskip("mmengine.config", reason="mmengine is not installed").Config
    folder = export("index-png").folder
    (shown,) = re.findall(r"```python\n(_base_ =.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(shown.replace("merged/mmseg.py", f"{folder.name}/mmseg.py"))
    read = config.fromfile(tmp_path / "mine.py")
    assert read.model.decode_head == {"num_classes": len(CLASSES), "ignore_index": 255}
    for each in read.train_dataloader.dataset.datasets:
        images, masks = (Path(each.data_root, each.data_prefix[kind]) for kind in ("img_path", "seg_map_path"))
        names = {path.stem for path in images.iterdir() if path.suffix == each.img_suffix}
        assert names and names <= {path.stem for path in masks.iterdir()}
        assert list(each.metainfo.classes) == CLASSES


def within(polygon: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which pixels' centres a polygon holds, by the even-odd rule: one ray to the right from each."""
    found = np.zeros(size, dtype=bool)
    for y in range(size[0]):
        for x in range(size[1]):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if (y0 > y + 0.5) != (y1 > y + 0.5):
                    crossings += x0 + (y + 0.5 - y0) / (y1 - y0) * (x1 - x0) > x + 0.5
            found[y, x] = crossings % 2
    return found


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_outlines_hold_their_masks_with_holes_and_parts(share: float) -> None:
    for seed in range(8):
        mask = np.random.default_rng(seed).random((7, 9)) < share
        mask[3, 3] = True
        np.testing.assert_array_equal(within(outline(mask), mask.shape), mask)


@pytest.mark.parametrize("format", ["index-png", "yolo", "coco-panoptic", "coco-instances", "hf"])
def test_a_flipped_bit_of_an_image_is_not_exported(world: Path, tmp_path: Path, format: str) -> None:
    shutil.copytree(world / "shards", tmp_path / "shards")
    for path in (tmp_path / "shards").rglob("*-train-000000.tar"):
        with tarfile.open(path) as tar:
            images = [m for m in tar if m.name.split(".", 1)[1] in ("jpg", "png")]
        place = images[0].offset_data + images[0].size // 2
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
    with pytest.raises(ShardError, match="-train-000000.tar: its content does not match the manifest's sha256"):
        export_merged([tmp_path / "shards"], format, tmp_path / "out", taxonomy=world / "company.csv")
    assert not (tmp_path / "out").exists()


def test_hugging_face_opens_the_folder(world: Path, export: Callable[..., Any], tmp_path: Path) -> None:
    from datasets import load_dataset

    report = export("hf")
    loaded = load_dataset(str(report.folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 10, "val": 2}
    assert loaded["train"].features["objects"]["category"].feature.names == CLASSES
    for rows in loaded.values():
        for row in rows:
            expected = truth(world, row["key"])
            assert row["image"].size == (64, 48) and row["key"].startswith(row["dataset"])
            if expected is None:
                assert row["mask"] is None
            else:
                np.testing.assert_array_equal(np.asarray(row["mask"]), expected)
            if row["dataset"] != "depot":
                sample = ShardSet.open(world / f"shards/{row['dataset']}/train").read(int(row["key"][-9:]))
                assert {name: len(each) for name, each in row["objects"].items()} == dict.fromkeys(row["objects"], 2)
                if expected is None:
                    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in sample.boxes.tolist()]
                    assert row["objects"]["bbox"] == boxes
                    assert row["objects"]["category"] == [CLASS_OF["yard"][int(i)] for i in sample.box_classes]
                    assert row["objects"]["iscrowd"] == (sample.iscrowd | sample.group_of).tolist()
                else:
                    assert row["objects"]["iscrowd"] == [bool(each["iscrowd"]) for each in sample.segments]


def test_many_classes_need_sixteen_bits(world: Path, tmp_path: Path) -> None:
    rows = "".join(f"other,{number},thing {number},thing {number}\n" for number in range(300))
    (tmp_path / "wide.csv").write_text(TAXONOMY.replace("gate,2", f"{rows}gate,2", 1))
    folder = world / "shards/depot/val"
    report = export_merged([folder], "index-png", tmp_path / "wide", taxonomy=tmp_path / "wide.csv")
    expected = truth(world, "depot-val-000000000")
    assert expected is not None
    values = np.asarray(Image.open(report.folder / "masks/val/depot-val-000000000.png")).astype(np.int64)
    np.testing.assert_array_equal(values, np.where(expected == 255, 65535, np.add(expected, 300)))


def test_shards_of_one_space_need_no_taxonomy_and_others_do(world: Path, tmp_path: Path) -> None:
    for dataset in ("gate", "yard"):
        recipe = load_recipe(world / f"{dataset}.toml")
        shard(recipe, world / dataset, "train", tmp_path / "one", taxonomy=world / "company.csv")
    for number, taxonomy in enumerate((None, world / "company.csv")):
        report = export_merged([tmp_path / "one"], "coco-instances", tmp_path / str(number), taxonomy=taxonomy)
        assert list(report.classes) == CLASSES and report.things == ("person", "car", "bus")
        assert report.annotations == 12
    with pytest.raises(UsageError, match=r"depot and gate have different label spaces. Give --taxonomy"):
        export_merged([world / "shards"], "index-png", tmp_path / "out")


@pytest.mark.parametrize(
    ("format", "settings", "error", "message"),
    [
        ("index_png", {}, UsageError, "unknown format 'index_png'. Did you mean index-png"),
        ("index-png", {"push": "me/mine"}, UsageError, "--push is for --format hf alone"),
        ("hf", {"push": "mine"}, UsageError, "'mine' is not the name of a repository. Write OWNER/NAME"),
        ("hf", {"images": False}, UsageError, "hold the images"),
        ("hf", {"task": "detect"}, UsageError, "--task is for --format yolo alone"),
        ("hf", {"things": ["car"]}, UsageError, "don't tell things from stuff. Leave --things out"),
        ("index-png", {"things": ["car"]}, UsageError, "don't tell things from stuff"),
        ("yolo", {"things": ["cat"]}, UsageError, "no class is called 'cat'"),
        ("coco-instances", {"taxonomy": "depot"}, TaxonomyError, "has no row for gate"),
    ],
)
def test_what_makes_no_sense(
    world: Path, tmp_path: Path, format: str, settings: dict[str, Any], error: type[LabelmergeError], message: str
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("".join(re.findall("(?:dataset|depot).*\n", TAXONOMY)))
    taxonomy = table if settings.get("taxonomy") else world / "company.csv"
    with pytest.raises(error, match=message):
        export_merged([world / "shards"], format, tmp_path / "out", **{**settings, "taxonomy": taxonomy})
    assert not (tmp_path / "out").exists()


def test_options_of_other_formats_are_refused_for_one_dataset_too(
    run: Callable[..., Any], world: Path, tmp_path: Path
) -> None:
    words = ["export", world / "shards/gate", "--format", "coco-instances", "--out", tmp_path / "out"]
    for more, message in (["--task", "detect"], "--task is for"), (["--push", "a/b"], "--push is for"):
        result = run(*words, *more)
        assert result.exit_code == 2 and message in result.stderr and not (tmp_path / "out").exists()


def test_a_list_of_things_may_have_been_saved_by_a_spreadsheet(
    run: Callable[..., Any], world: Path, tmp_path: Path
) -> None:
    (tmp_path / "things.txt").write_bytes("car\r\n".encode("utf-8-sig"))
    words = ["export", world / "shards/gate", "--format", "coco-instances", "--out", tmp_path / "out", "--json"]
    assert json.loads(run(*words, "--things", tmp_path / "things.txt").stdout)["things"] == ["car"]


def test_what_such_files_cannot_hold(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="nothing to write as index-png: yard train has boxes, but no masks"):
        export_merged([world / "shards/yard"], "index-png", tmp_path / "out")
    with pytest.raises(ShardError, match=r"depot train has masks of classes, but neither objects nor boxes"):
        export_merged([world / "shards/depot"], "yolo", tmp_path / "out")


def test_the_command(run: Callable[..., Any], world: Path, tmp_path: Path) -> None:
    words = ["export", world / "shards/depot", world / "shards/gate", "--taxonomy", world / "company.csv"]
    result = run(*words, "--format", "index-png", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "WARNING: depot: 'vehicle' may be car, bus: 3,360 pixels became `no label`" in result.stdout
    assert "`labelmerge relabel --checkpoint RUN` splits such labels" in result.stdout
    manifests = [
        json.loads(path.read_bytes())
        for name in ("depot", "gate")
        for path in (world / "shards" / name).glob("*/manifest.json")
    ]
    labelled = sum(sum(each["class_pixels"].values()) for each in manifests)
    assert f"Together these are 3,360 of {labelled:,} labelled pixels" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Wrote 9 images of depot, gate (train, val) to ")
    told = json.loads(run(*words, "--format", "yolo", "--out", tmp_path / "yolo", "--json").stdout)
    assert told["task"] == "segment" and told["lost"][0]["concepts"] == ["car", "bus"]
    one = run("export", world / "shards/gate", "--format", "coco-instances", "--out", tmp_path / "gate", "--json")
    assert json.loads(one.stdout)["dataset"] == "gate", "one dataset keeps its own ids"
    shard(load_recipe(world / "gate.toml"), world / "gate", "train", tmp_path / "s", taxonomy=world / "company.csv")
    in_one = run("export", tmp_path / "s", "--format", "coco-instances", "--out", tmp_path / "gate2", "--json")
    assert json.loads(in_one.stdout)["classes"] == CLASSES, "one that was merged has the class list's"


@pytest.mark.parametrize("reader", ["coco_instances", "coco_boxes"])
def test_crowds_that_yolo_cant_mark_are_counted(reader: str, run: Callable[..., Any], tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "images/train").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.new("RGB", (64, 48)).save(root / "images/train/a.jpg")
    one = {"image_id": 1, "category_id": 1, "area": 100, "iscrowd": 0}
    found = [
        {**one, "id": 1, "bbox": [2, 3, 10, 10], "segmentation": [[2, 3, 12, 3, 12, 13, 2, 13]]},
        {**one, "id": 2, "bbox": [0, 0, 64, 48], "iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 3072]}},
    ]
    images = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    told = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "car"}]}
    (root / "annotations/train.json").write_text(json.dumps(told))
    kind = "box" if reader == "coco_boxes" else "noisy_mask"
    (tmp_path / "toy.toml").write_text(
        f'name = "toy"\nreader = "{reader}"\nannotation_type = "{kind}"\ndescriptions = "toy.csv"\n'
        '[layout]\nimages = "images/{split}"\nannotations = "annotations/{split}.json"\n'
    )
    (tmp_path / "toy.csv").write_text("index,name\n0,car\n")
    shard(load_recipe(tmp_path / "toy.toml"), root, "train", tmp_path / "shards")
    result = run("export", tmp_path / "shards", "--format", "yolo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "left out: 1 crowd or depiction, which yolo can't mark" in result.stdout
    (path,) = (tmp_path / "out/labels").rglob("*.txt")
    assert len(path.read_text().splitlines()) == 1

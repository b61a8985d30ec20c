"""Pascal Context and SUN RGB-D, in the MATLAB files that they are published in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard

from .listing import listed
from .matlab_files import SIZE, Array, Samples, cells, mat

AUTHORS = "/n/fs/sun3d/data/SUNRGBD"


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(list(str(path).encode())).integers(0, 256, (*size, 3), dtype=np.uint8)).save(
        path
    )


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Two train images and one for validation, and an image of VOC 2010 that Pascal Context leaves out."""
    root = tmp_path / "context"
    for stem in ("2008_000002", "2008_000003", "2008_000007", "2008_009999"):
        picture(root / f"VOCdevkit/VOC2010/JPEGImages/{stem}.jpg")
    lists = root / "VOCdevkit/VOC2010/ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_000002\n2008_000003\n")
    (lists / "val.txt").write_text("2008_000007\n")
    values = np.random.default_rng(2).integers(0, 460, SIZE).astype(np.uint16)
    values[0] = [0, 1, 2, 9, 258, 397, 80, 459]
    for stem in ("2008_000002", "2008_000007"):
        mat(root / f"trainval/{stem}.mat", LabelMap=values)
    mat(root / "trainval/2008_000003.mat", LabelMap=values.astype(np.float64))
    return root


def test_pascal_context(context: Path, class_lists: Path, tmp_path: Path, read_samples: Samples) -> None:
    recipe = load_recipe("pascal_context")
    assert shard(recipe, context, "train", tmp_path / "out").written == 2
    assert shard(recipe, context, "val", tmp_path / "out").written == 1
    assert verify([tmp_path / "out"]).problems == ()
    # Slowly, by name: what a label is called in the list of 459, and the number of that name in the list of 59.
    names = (class_lists / "pascal_context_459.txt").read_text().split("\n")
    classes = (class_lists / "pascal_context_59.txt").read_text().strip().split("\n")
    other = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}
    stored = scipy.io.loadmat(context / "trainval/2008_000002.mat")["LabelMap"]
    expected = np.full(SIZE, 255)
    for row, column in np.ndindex(SIZE):
        name = names[stored[row, column] - 1] if stored[row, column] else "none"
        if other.get(name, name) in classes:
            expected[row, column] = classes.index(other.get(name, name))
    samples = {
        **read_samples(tmp_path / "out/pascal_context/train"),
        **read_samples(tmp_path / "out/pascal_context/val"),
    }
    assert len(samples) == 3 and (expected != 255).any()
    for sample in samples.values():
        np.testing.assert_array_equal(sample["mask.png"], expected)
        assert "jpg" in sample


def test_pascal_context_with_all_its_labels(context: Path, tmp_path: Path, read_samples: Samples) -> None:
    assert shard(load_recipe("pascal_context_459"), context, "train", tmp_path / "out").written == 2
    values = scipy.io.loadmat(context / "trainval/2008_000002.mat")["LabelMap"].astype(int)
    expected = np.where(np.isin(values, (0, 431)), 65535, values - 1)
    for sample in read_samples(tmp_path / "out/pascal_context_459/train").values():
        np.testing.assert_array_equal(sample["mask.png"], expected)
    names = load_label_space(load_recipe("pascal_context_459"))
    assert names.name_of(430) == "unknown" and names.name_of(458) == "wool"


def test_every_class_of_pascal_context_is_one_of_the_459(class_lists: Path) -> None:
    recipe = load_recipe("pascal_context")
    names = (class_lists / "pascal_context_459.txt").read_text().strip().split("\n")
    assert sorted(recipe.ids["map"].values()) == sorted(load_label_space(recipe).names)
    odd = {(names[int(value) - 1], name) for value, name in recipe.ids["map"].items() if names[int(value) - 1] != name}
    assert odd == {("table", "diningtable"), ("bedclothes", "bedcloth"), ("cloth", "clothes")}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"Labels": np.ones(SIZE, np.uint16)}, "has no variable 'LabelMap' (only 'Labels')"),
        ({"LabelMap": np.full(SIZE, 0.5)}, "'LabelMap' holds labels that are not whole numbers"),
        ({"LabelMap": np.full(SIZE, np.nan)}, "'LabelMap' holds labels that do not fit 16 bits"),
        ({"LabelMap": np.full(SIZE, -1.0)}, "'LabelMap' holds labels that do not fit 16 bits"),
        ({"LabelMap": np.full(SIZE, 70000)}, "'LabelMap' holds labels that do not fit 16 bits"),
        (
            {"LabelMap": np.ones((2, 3, 4))},
            "'LabelMap' is not a picture of labels, [height, width], but float64 [2, 3, 4]",
        ),
        ({"LabelMap": np.ones((3, 4))}, "the image is 8x6, but its mask is 4x3"),
        ({"LabelMap": np.zeros((0, 4))}, "'LabelMap' is not a picture of labels, [height, width], but float64 [0, 4]"),
        ({"LabelMap": "road"}, "'LabelMap' is not a picture of labels, [height, width], but str"),
        ({"LabelMap": cells(["road"])}, "'LabelMap' is not a picture of labels, [height, width], but list"),
        ({"LabelMap": np.ones(SIZE) * 1j}, "its 'LabelMap' is neither numbers nor text, cells nor structs"),
    ],
)
def test_a_bad_file_is_a_recorded_skip(content: Mapping[str, Any], reason: str, context: Path, tmp_path: Path) -> None:
    mat(context / "trainval/2008_000003.mat", **content)
    report = shard(load_recipe("pascal_context"), context, "train", tmp_path / "out")
    (skip,) = report.skipped
    assert report.written == 1 and skip["path"] == "VOCdevkit/VOC2010/JPEGImages/2008_000003.jpg"
    # scipy's int64 arrays are stored in the smallest type that fits
    assert skip["reason"].removeprefix("trainval/2008_000003.mat: ").replace("uint8 [", "float64 [") == reason


NAMES = {
    "kv1/NYUdata/NYU0001": (["wall", "Night Stand", "book", "some thing"], True),
    "kv2/kinect2data/000002-resize": (["floor_mat", "refrigerator", "boxes", "tv"], False),
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103": (["chairs", "wall\t", "cup", "cup"], False),
}


KEPT: dict[str, list[str | None]] = {
    "kv1/NYUdata/NYU0001": ["wall", "night_stand", "books", None],
    "kv2/kinect2data/000002-resize": ["floor_mat", "fridge", "box", "tv"],
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103": ["chair", "wall", None, None],
}


@pytest.fixture
def sun(tmp_path: Path) -> Path:
    """Two train frames and a test frame, with the toolbox's list of splits beside them."""
    root = tmp_path / "sun"
    for number, (frame, (names, column)) in enumerate(NAMES.items()):
        folder = root / "SUNRGBD" / frame
        picture(folder / "image" / f"{number}.jpg")
        picture(folder / "fullres" / f"{number}.jpg", (12, 16))
        labels = np.random.default_rng(number).integers(0, 5, SIZE).astype(np.uint16)
        mat(folder / "seg.mat", seglabel=labels, names=cells(names, column))
    frames = list(NAMES)
    # In the original, some folders end in a slash.
    train = cells([f"{AUTHORS}/{frames[0]}", f"{AUTHORS}/{frames[2]}/"])
    split = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    mat(split, alltrain=train, alltest=cells([f"{AUTHORS}/{frames[1]}"]))
    return root


def labels_by_name(root: Path, frame: str, names: Sequence[str | None]) -> Array:
    stored = scipy.io.loadmat(root / "SUNRGBD" / frame / "seg.mat")["seglabel"]
    space = load_label_space(load_recipe("sunrgbd"))
    expected = np.full(SIZE, 255)
    for row, column in np.ndindex(SIZE):
        name = names[stored[row, column] - 1] if stored[row, column] else None
        if name is not None:
            expected[row, column] = space.names.index(name)
    return expected


def test_sunrgbd_raw(sun: Path, tmp_path: Path, read_samples: Samples) -> None:
    report = shard(load_recipe("sunrgbd"), sun, "train", tmp_path / "out")
    assert shard(load_recipe("sunrgbd"), sun, "test", tmp_path / "out").written == 1
    assert (report.written, report.skipped) == (2, ())
    assert report.notes == {"label 'some thing' is not a class": 1, "label 'cup' is not a class": 2}
    assert verify([tmp_path / "out"]).problems == ()
    samples = {**read_samples(tmp_path / "out/sunrgbd/train"), **read_samples(tmp_path / "out/sunrgbd/test")}
    assert len(samples) == 3
    for sample in samples.values():
        frame = sample["json"]["source"]["path"].removeprefix("SUNRGBD/").rsplit("/", 2)[0]
        np.testing.assert_array_equal(sample["mask.png"], labels_by_name(sun, frame, KEPT[frame]))


def test_without_the_list_the_split_of_a_frame_is_unknown(sun: Path) -> None:
    (sun / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat").unlink()
    with pytest.raises(
        LayoutError, match="no list of images: expected SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat or"
    ):
        listed(load_recipe("sunrgbd"), sun, "train")


def test_label_pngs_are_preferred_to_free_text(sun: Path) -> None:
    picture(sun / "image/train/img-000001.jpg")
    (sun / "label37/train").mkdir(parents=True)
    Image.fromarray(np.ones(SIZE, np.uint8)).save(sun / "label37/train/00000001.png")
    plan = listed(load_recipe("sunrgbd"), sun, "train")
    assert (plan.source.variant, plan.item.annotation) == (None, "label37/train/00000001.png")


def test_bad_frames_are_recorded(sun: Path) -> None:
    folder = sun / "SUNRGBD/kv1/NYUdata/NYU0001"
    mat(folder / "seg.mat", seglabel=np.full(SIZE, 3, np.uint8), names=cells(["wall"]))
    (sun / "SUNRGBD/xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103/image/2.jpg").unlink()
    plan = listed(load_recipe("sunrgbd"), sun, "train")
    assert [skip.path for skip in plan.skips] == [
        "n/fs/sun3d/data/SUNRGBD/xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103"
    ]
    with pytest.raises(SampleError, match="label 3 has no name: 'names' has 1"):
        plan.read(plan.item, SIZE)


def toolbox(root: Path, labels: Mapping[str, Array], **more: Any) -> Path:
    """The toolbox's two files: the frames' paths, and by reference their labels, [W, H], in the same order."""
    paths = [f"{AUTHORS}/{frame}/image/{number}.jpg" for number, frame in enumerate(NAMES)]
    frames = np.zeros((1, len(paths)), dtype=[("sequenceName", object), ("rgbpath", object), ("K", object)])
    for number, path in enumerate(paths):
        frames[0, number] = ("SUNRGBD", path, np.eye(3))
    folder = root / "SUNRGBDtoolbox/Metadata"
    mat(folder / "SUNRGBDMeta.mat", SUNRGBDMeta=frames)
    with h5py.File(folder / "SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        references = file.create_group("SUNRGBD2Dseg").create_dataset("seglabel", (len(paths), 1), dtype=h5py.ref_dtype)
        for number, frame in enumerate(NAMES):
            if frame in labels:
                references[number, 0] = file.create_dataset(f"#refs#/{number}", data=labels[frame].T, **more).ref
    return folder / "SUNRGBD2Dseg.mat"


def test_sunrgbd_toolbox(sun: Path, tmp_path: Path, read_samples: Samples) -> None:
    labels = {f: np.random.default_rng(n).integers(0, 38, SIZE).astype(np.float64) for n, f in enumerate(NAMES)}
    toolbox(sun, labels, compression="gzip")
    report = shard(load_recipe("sunrgbd"), sun, "train", tmp_path / "out")
    assert (report.written, report.skipped, report.notes) == (2, (), {})
    assert shard(load_recipe("sunrgbd"), sun, "val", tmp_path / "out").written == 1
    assert json.loads((tmp_path / "out/sunrgbd/val/manifest.json").read_text())["variant"] == "toolbox"
    samples = {**read_samples(tmp_path / "out/sunrgbd/train"), **read_samples(tmp_path / "out/sunrgbd/val")}
    for sample in samples.values():
        frame = sample["json"]["source"]["path"].removeprefix("SUNRGBD/").rsplit("/", 2)[0]
        np.testing.assert_array_equal(sample["mask.png"], np.where(labels[frame] == 0, 255, labels[frame] - 1))
    assert {s["json"]["source"]["native_id"] for s in samples.values()} == {"1", "2", "3"}


def test_a_damaged_toolbox_says_so(sun: Path) -> None:
    recipe, frames = load_recipe("sunrgbd"), list(NAMES)
    path = toolbox(sun, {frames[0]: np.ones((3, 3), np.uint8)})
    plan = listed(recipe, sun, "train")
    reasons = []
    for item in plan.items:
        with pytest.raises(SampleError) as caught:
            plan.read(item, SIZE)
        reasons.append(caught.value.what)
    assert reasons == ["its labels of frame 1 are 3 x 3, but the image is 8x6", "has no labels of frame 3"]
    with h5py.File(path, "a") as file:
        del file["SUNRGBD2Dseg"]["seglabel"]
        file["SUNRGBD2Dseg"]["seglabel"] = np.zeros((3, 1))
    with pytest.raises(LayoutError, match="'seglabel' is not a list of references"):
        listed(recipe, sun, "train")
    with h5py.File(path, "w") as file:
        file.create_group("SUNRGBD2Dseg").create_dataset("seglabel", (7, 1), dtype=h5py.ref_dtype)
    with pytest.raises(LayoutError, match=r"has labels of 7 frames, but SUNRGBDMeta.mat lists 3"):
        listed(recipe, sun, "train")
    path.write_bytes(b"no HDF5")
    with pytest.raises(LayoutError, match="can't be read as HDF5"):
        listed(recipe, sun, "train")


def test_recipes_that_say_too_little_are_refused(context: Path, tmp_path: Path) -> None:
    text = load_recipe("pascal_context").text
    names = [f"{index},{name}\n" for index, name in enumerate(load_label_space(load_recipe("pascal_context")).names)]
    (tmp_path / "pascal_context.csv").write_text("index,name\n" + "".join(names))
    for old, new, message in (
        ('key = "LabelMap"', "key = 3", "options.key must name the array of labels"),
        ('key = "LabelMap"', 'key = "L"\nnames_key = 4', "options.names_key must name the list"),
        ('key = "LabelMap"', 'key = "L"\nnames_key = "n"', "ids.other and options.names_key can't both be given"),
    ):
        (tmp_path / "own.toml").write_text(text.replace(old, new))
        with pytest.raises(RecipeError, match=message):
            listed(load_recipe(tmp_path / "own.toml"), context, "train")

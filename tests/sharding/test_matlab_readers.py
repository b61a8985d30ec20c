"""Pascal Context, NYU Depth v2 and SUN RGB-D as they are published: MATLAB files.

No authentic file of theirs is small enough to be kept beside the checkout, so these are made from the datasets'
documentation: MATLAB 5 files by scipy, HDF5 files by h5py in the layout that MATLAB 7.3 writes. For NYU Depth v2 there
is a picture of real labels, put into such a file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LabelmergeError, LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures import matlab
from labelmerge.sharding.readers import hdf5_stack
from labelmerge.sharding.shard import shard

from .listing import listed

Array = npt.NDArray[Any]
Samples = Callable[[Path], dict[str, dict[str, Any]]]

SIZE = (6, 8)
AUTHORS = "/n/fs/sun3d/data/SUNRGBD"


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(list(str(path).encode())).integers(0, 256, (*size, 3), dtype=np.uint8)).save(
        path
    )


def mat(path: Path, /, _compress: bool = True, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content, do_compression=_compress)


def cells(texts: Sequence[Any], column: bool = False) -> Array:
    found = np.empty((len(texts), 1) if column else (1, len(texts)), dtype=object)
    found.ravel()[:] = texts
    return found


# --- MATLAB 5 files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u8", "f4", "f8"])
def test_arrays_are_as_scipy_reads_them(dtype: str, compress: bool, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 200, (5, 7)).astype(dtype)
    mat(tmp_path / "a.mat", compress, other="text", LabelMap=values)
    read = matlab.load(tmp_path / "a.mat", "LabelMap")
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, scipy.io.loadmat(tmp_path / "a.mat")["LabelMap"])
    assert matlab.load(tmp_path / "a.mat", "other") == "text"


def test_cells_and_structs(tmp_path: Path) -> None:
    frames = np.array([("a/b.jpg", 1.5, cells(["x"])), ("ü.jpg", 2.5, cells([]))], dtype=[(n, object) for n in "pqr"])
    mat(tmp_path / "a.mat", names=cells(["wall", np.zeros((2, 2)), "bed", cells(["in"])], column=True), frames=frames)
    names = matlab.load(tmp_path / "a.mat", "names")
    assert matlab.texts(names) == ["wall", "", "bed", ""]
    assert isinstance(names, list) and names[3] == ["in"]
    assert matlab.load(tmp_path / "a.mat", "frames", ("p",)) == [{"p": "a/b.jpg"}, {"p": "ü.jpg"}]
    assert matlab.load(tmp_path / "a.mat", "frames", ("r",)) == [{"r": ["x"]}, {"r": []}]


def big_endian() -> bytes:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    body = element(6, struct.pack(">II", 11, 0)) + element(5, struct.pack(">ii", 2, 2)) + element(1, b"x")
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\x01\x00MI"
        + element(14, body + element(4, struct.pack(">4H", *range(4))))
    )


def test_files_of_big_endian_machines(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(big_endian())
    read = matlab.load(tmp_path / "a.mat", "x")
    assert isinstance(read, np.ndarray) and read.tolist() == [[0, 2], [1, 3]]
    np.testing.assert_array_equal(read, scipy.io.loadmat(tmp_path / "a.mat")["x"])


def declared(shape: tuple[int, int], kind: int = 9, data: bytes = b"\1") -> bytes:
    """A file with one variable `x`, of this class and shape, and this many bytes of it."""

    def element(number: int, content: bytes) -> bytes:
        return struct.pack("<II", number, len(content)) + content + b"\0" * (-len(content) % 8)

    body = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *shape)) + element(1, b"x")
    return b"MATLAB".ljust(124) + b"\x00\x01IM" + element(14, body + element(2, data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no MATLAB file of version 5 to 7"),
        (b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n", "is a MATLAB 7.3 file"),
        (declared((2, 2))[:150], "it ends too early"),
        (declared((1, 1))[:124] + b"\x00\x01IM", r"has no variable 'x' \(only none at all\)"),
        (declared((2**31 - 1, 2**31 - 1)), "1 numbers, not 2147483647 x 2147483647"),
        (declared((-1, 4)), "no dimensions"),
        (declared((2**31 - 1, 2**31 - 1), kind=1), "type 2 is no array"),
        (declared((2**31 - 1, 2**31 - 1), kind=2), "names of fields|damaged"),
        (declared((1, 1), kind=17), "'x' is neither numbers nor text"),
        (declared((1, 1))[:128] + struct.pack("<II", 15, 8) + b"notazlib", "damaged MATLAB file"),
    ],
)
def test_damaged_files_are_one_clear_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(SampleError, match=message):
        matlab.load(tmp_path / "a.mat", "x")


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_BYTES", 1 << 20)
    packed = zlib.compress(b"\0" * (8 << 20))
    (tmp_path / "a.mat").write_bytes(declared((1, 1))[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(SampleError, match="unpacks to more than 1 MiB"):
        matlab.load(tmp_path / "a.mat", "x")


def sample_bytes() -> bytes:
    out = BytesIO()
    frames = np.array([("a", 1)], dtype=[("p", object), ("q", object)])
    content = {"names": cells(["wall", "bed"]), "frames": frames, "LabelMap": np.arange(6, dtype=np.uint16)}
    scipy.io.savemat(out, content)
    return out.getvalue()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(100, 700), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(["names", "frames", "LabelMap"]),
    st.integers(0, 700),
)
def test_any_bytes_give_a_value_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], name: str, cut: int
) -> None:
    data = bytearray(sample_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.mat"
    path.write_bytes(data[: len(data) - cut] if cut < 100 else data)
    try:
        matlab.load(path, name, ("p",))
    except SampleError as error:
        assert "\n" not in str(error) and str(path) in str(error)


# --- Pascal Context ---------------------------------------------------------------------------------------------------


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
        ({"LabelMap": np.full(SIZE, 0.5)}, "'LabelMap' holds labels that are no whole numbers"),
        ({"LabelMap": np.full(SIZE, np.nan)}, "'LabelMap' holds labels that are no 16-bit numbers"),
        ({"LabelMap": np.full(SIZE, -1.0)}, "'LabelMap' holds labels that are no 16-bit numbers"),
        ({"LabelMap": np.full(SIZE, 70000)}, "'LabelMap' holds labels that are no 16-bit numbers"),
        (
            {"LabelMap": np.ones((2, 3, 4))},
            "'LabelMap' is no picture of labels, [height, width], but float64 [2, 3, 4]",
        ),
        ({"LabelMap": np.ones((3, 4))}, "the image is 8x6, but its mask is 4x3"),
        ({"LabelMap": np.zeros((0, 4))}, "'LabelMap' is no picture of labels, [height, width], but float64 [0, 4]"),
        ({"LabelMap": "road"}, "'LabelMap' is no picture of labels, [height, width], but str"),
        ({"LabelMap": cells(["road"])}, "'LabelMap' is no picture of labels, [height, width], but list"),
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


# --- SUN RGB-D, as it is published ------------------------------------------------------------------------------------

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
    assert report.notes == {"label 'some thing' is no class": 1, "label 'cup' is no class": 2}
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
    with pytest.raises(LayoutError, match="'seglabel' is no list of references"):
        listed(recipe, sun, "train")
    with h5py.File(path, "w") as file:
        file.create_group("SUNRGBD2Dseg").create_dataset("seglabel", (7, 1), dtype=h5py.ref_dtype)
    with pytest.raises(LayoutError, match=r"has labels of 7 frames, but SUNRGBDMeta.mat lists 3"):
        listed(recipe, sun, "train")
    path.write_bytes(b"no HDF5")
    with pytest.raises(LayoutError, match="can't be read as HDF5"):
        listed(recipe, sun, "train")


# --- NYU Depth v2 -----------------------------------------------------------------------------------------------------


def nyu(root: Path, images: Array, labels: Array, **splits: Any) -> Path:
    """[N, H, W, 3] images and [N, H, W] labels, as MATLAB 7.3 writes its [H, W, 3, N] and [H, W, N]."""
    root.mkdir(exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("images", data=images.transpose(0, 3, 2, 1), chunks=True, compression="gzip")
        file.create_dataset("labels", data=labels.transpose(0, 2, 1), chunks=True, compression="gzip")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    numbers = {"trainNdxs": [[2], [4]], "testNdxs": [[1], [3]], **splits}
    arrays: dict[str, Any] = {name: np.array(value, dtype=np.uint16) for name, value in numbers.items()}
    mat(root / "splits.mat", True, **arrays)
    return path


@pytest.fixture
def stack() -> tuple[Array, Array]:
    random = np.random.default_rng(3)
    return (
        random.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8),
        random.integers(0, 895, (4, *SIZE)).astype(np.uint16),
    )


def test_nyu(stack: tuple[Array, Array], class_lists: Path, tmp_path: Path, read_samples: Samples) -> None:
    images, labels = stack
    nyu(tmp_path / "nyu", images, labels)
    for split in ("train", "val"):
        report = shard(load_recipe("nyuv2"), tmp_path / "nyu", split, tmp_path / "out")
        assert (report.written, report.skipped, report.notes) == (2, (), {})
    assert verify([tmp_path / "out"]).problems == ()
    rows = (class_lists / "nyuv2_894_to_40.tsv").read_text().strip().split("\n")[1:]
    forty = {0: 0, **{int(row.split("\t")[0]): int(row.split("\t")[1]) for row in rows}}
    for split, numbers in (("train", (2, 4)), ("val", (1, 3))):
        for number, sample in zip(numbers, read_samples(tmp_path / "out/nyuv2" / split).values(), strict=True):
            assert sample["json"]["source"]["path"] == f"nyu_depth_v2_labeled.mat#{number:04d}"
            assert sample["json"]["source"]["native_id"] == str(number)
            np.testing.assert_array_equal(sample["png"], images[number - 1])
            expected = np.zeros(SIZE, np.uint8)
            for row, column in np.ndindex(SIZE):
                value = forty[int(labels[number - 1, row, column])]
                expected[row, column] = 255 if value == 0 else value - 1
            np.testing.assert_array_equal(sample["mask.png"], expected)


def test_real_labels_of_nyu(fixtures: Path, tmp_path: Path, read_samples: Samples) -> None:
    folder = fixtures / "nyuv2/derived_sample"
    image = np.asarray(Image.open(folder / "image/sample.png").convert("RGB"))
    forty = np.asarray(Image.open(folder / "label40/sample.png"))
    # Of the 894 labels, the first that becomes each of the 40.
    mapping = load_recipe("nyuv2").ids["map"]
    first = np.array([0, *(min(int(k) for k, v in mapping.items() if v == index) for index in range(40))], np.uint16)
    nyu(tmp_path / "nyu", image[None], first[forty][None], testNdxs=[[1]])
    assert shard(load_recipe("nyuv2"), tmp_path / "nyu", "test", tmp_path / "out").written == 1
    (sample,) = read_samples(tmp_path / "out/nyuv2/test").values()
    facts = json.loads((fixtures / "expected.json").read_text())["nyuv2/derived_sample/label40/sample.png"]["raw"]
    values, counts = np.unique(sample["mask.png"], return_counts=True)
    have = {str((value + 1) % 256): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
    assert have == facts


def test_numbers_that_the_file_lacks_are_recorded(stack: tuple[Array, Array], tmp_path: Path) -> None:
    nyu(tmp_path / "nyu", *stack, trainNdxs=[[0], [4], [5], [4]])
    plan = listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")
    assert [item.path for item in plan.items] == ["nyu_depth_v2_labeled.mat#0004"]
    assert [skip.path for skip in plan.skips] == ["nyu_depth_v2_labeled.mat#0000", "nyu_depth_v2_labeled.mat#0005"]


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_pieces_may_span_images(chunk: int, stack: tuple[Array, Array], tmp_path: Path) -> None:
    path = nyu(tmp_path / "nyu", *stack, trainNdxs=[[1], [2], [3], [4]])
    with h5py.File(path, "a") as file:
        del file["images"]
        file.create_dataset("images", data=stack[0].transpose(0, 3, 2, 1), chunks=(chunk, 1, 5, 4), compression="gzip")
    plan = listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")
    for number in (3, 0, 2, 1):
        image = Image.open(BytesIO(hdf5_stack.image(plan.source, plan.items[number])))
        np.testing.assert_array_equal(np.asarray(image), stack[0][number])


def test_only_what_is_asked_for_is_read(stack: tuple[Array, Array], tmp_path: Path) -> None:
    path = nyu(tmp_path / "nyu", *stack)
    with h5py.File(path, "a") as file:  # 2 TB of images, of which the first ones are there
        del file["images"], file["labels"]
        file.create_dataset("images", (1 << 20, 3, 800, 800), "u1", chunks=(1, 3, 800, 800))
        file.create_dataset("labels", (1 << 20, 800, 800), "u2", chunks=(1, 800, 800))
    plan = listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")
    assert plan.read(plan.items[0]).mask.shape == (800, 800)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("images", None, r"has no array 'images' \(only labels\)"),
        ("labels", np.zeros((4, 6, 8), np.uint16), r"its labels are uint16 \[4, 6, 8\], not \[4, 8, 6\]"),
        ("labels", np.zeros((4, 8, 6), "S3"), "its labels are |S3"),
        ("images", np.zeros((4, 8, 6), np.uint8), r"its images are uint8 \[4, 8, 6\], not uint8 \[N, 3, W, H\]"),
        ("images", np.zeros((4, 3, 8, 6)), r"its images are float64 \[4, 3, 8, 6\], not uint8"),
        ("images", h5py.ExternalLink("other.h5", "/x"), "has no array 'images'"),
        ("images", h5py.SoftLink("/labels"), "has no array 'images'"),
    ],
)
def test_another_layout_is_refused(
    name: str, data: Any, message: str, stack: tuple[Array, Array], tmp_path: Path
) -> None:
    path = nyu(tmp_path / "nyu", *stack)
    with h5py.File(path, "a") as file:
        del file[name]
        if data is not None:
            file[name] = data
    with pytest.raises(LayoutError, match=message):
        listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")


def test_numbers_in_other_files_are_not_followed(stack: tuple[Array, Array], tmp_path: Path) -> None:
    path = nyu(tmp_path / "nyu", *stack)
    (tmp_path / "secret").write_bytes(bytes(4 * 3 * 8 * 6))
    with h5py.File(path, "a") as file:
        del file["images"]
        file.create_dataset("images", (4, 3, 8, 6), "u1", external=[(str(tmp_path / "secret"), 0, 4 * 3 * 8 * 6)])
    with pytest.raises(LayoutError, match="whose numbers lie in other files"):
        listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")


def test_a_truncated_file_is_one_clear_error(stack: tuple[Array, Array], tmp_path: Path) -> None:
    path = nyu(tmp_path / "nyu", *stack)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(LayoutError, match="can't be read as HDF5"):
        listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(512, 12000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_flip_in_hdf5_gives_samples_or_clear_errors(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("flips")
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    path = nyu(root, images, random.integers(0, 895, (4, *SIZE)).astype(np.uint16))
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        report = shard(load_recipe("nyuv2"), root, "train", root / "out")
        assert report.found == 2
    except LabelmergeError as error:
        assert "\n" not in str(error)


def test_without_h5py_the_extra_is_named(
    stack: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nyu(tmp_path / "nyu", *stack)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(LabelmergeError, match=r"needs h5py. pip install 'labelmerge-seg\[matlab\]'"):
        listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")


def test_recipes_that_say_too_little_are_refused(context: Path, tmp_path: Path) -> None:
    text = load_recipe("pascal_context").text
    names = [f"{index},{name}\n" for index, name in enumerate(load_label_space(load_recipe("pascal_context")).names)]
    (tmp_path / "pascal_context.csv").write_text("index,name\n" + "".join(names))
    for old, new, message in (
        ('key = "LabelMap"', "key = 3", "options.key must name the array of labels"),
        ('key = "LabelMap"', 'key = "L"\nnames_key = 4', "options.names_key must name the list"),
        ('key = "LabelMap"', 'key = "L"\nnames_key = "n"', "ids.other and options.names_key exclude each other"),
    ):
        (tmp_path / "own.toml").write_text(text.replace(old, new))
        with pytest.raises(RecipeError, match=message):
            listed(load_recipe(tmp_path / "own.toml"), context, "train")

"""NYU Depth v2: images and labels in one HDF5 file."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import LabelmergeError, LayoutError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.readers import hdf5_stack
from labelmerge.sharding.shard import shard

from .listing import listed
from .matlab_files import SIZE, Array, Samples, mat


def depths_of(labels: Array) -> Array:
    """Metres, one and a bit for each label."""
    metres: Array = labels.astype(np.float32) / 100 + 1
    return metres


def nyu(root: Path, images: Array, labels: Array, **splits: Any) -> Path:
    """[N, H, W, 3] images and [N, H, W] labels, as MATLAB 7.3 writes its [H, W, 3, N] and [H, W, N]; and depths."""
    root.mkdir(exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("images", data=images.transpose(0, 3, 2, 1), chunks=True, compression="gzip")
        file.create_dataset("labels", data=labels.transpose(0, 2, 1), chunks=True, compression="gzip")
        file.create_dataset("depths", data=depths_of(labels).transpose(0, 2, 1), chunks=True, compression="gzip")
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
            millimetres = np.rint(depths_of(labels[number - 1]).astype(np.float64) * 1000)
            np.testing.assert_array_equal(sample["depth.png"], millimetres)


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
        del file["images"], file["labels"], file["depths"]
        file.create_dataset("images", (1 << 20, 3, 800, 800), "u1", chunks=(1, 3, 800, 800))
        file.create_dataset("labels", (1 << 20, 800, 800), "u2", chunks=(1, 800, 800))
        file.create_dataset("depths", (1 << 20, 800, 800), "f4", chunks=(1, 800, 800))
    plan = listed(load_recipe("nyuv2"), tmp_path / "nyu", "train")
    assert plan.read(plan.items[0]).mask.shape == (800, 800)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("images", None, r"has no array 'images' \(only depths, labels\)"),
        ("labels", np.zeros((4, 6, 8), np.uint16), r"its labels are uint16 \[4, 6, 8\], not \[4, 8, 6\]"),
        ("labels", np.zeros((4, 8, 6), "S3"), "its labels are |S3"),
        ("images", np.zeros((4, 8, 6), np.uint8), r"its images are uint8 \[4, 8, 6\], not uint8 \[N, 3, W, H\]"),
        ("images", np.zeros((4, 3, 8, 6)), r"its images are float64 \[4, 3, 8, 6\], not uint8"),
        ("images", h5py.ExternalLink("other.h5", "/x"), "has no array 'images'"),
        ("images", h5py.SoftLink("/labels"), "has no array 'images'"),
        ("depths", None, "has no array 'depths'"),
        ("depths", np.zeros((4, 8, 5)), r"its depths are float64 \[4, 8, 5\], not \[4, 8, 6\]"),
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
    with pytest.raises(LayoutError, match="its numbers lie in other files"):
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

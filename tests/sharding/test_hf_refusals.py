"""`datasets` datasets that don't fit their recipe, or are damaged: one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmerge.errors import LabelmergeError, LayoutError, RecipeError
from labelmerge.sharding.pictures import arrow
from labelmerge.sharding.shard import shard

from .hub_rows import IGNORE, MASK_FEATURES, MASK_LAYOUT, mask_rows, recipe, save
from .listing import listed


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    datasets.disable_progress_bars()


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
        (
            'images = "*.parquet"\nmask_column = "a"\nboxes_column = "b"',
            "mask",
            "",
            "does not go with mask",
        ),
        (
            'images = "*.parquet"\nhub = "a/b"\nmask_column = "m"',
            "mask",
            "",
            "hub and layout.images can't both be given",
        ),
        (
            'images = "*.parquet"\nconfig = "a"\nmask_column = "m"',
            "mask",
            "",
            "layout.config and layout.images can't both be given",
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
        ("empty", "is not a folder that save_to_disk made. For Parquet files, add"),
        ("*.csv", "is neither a Parquet nor an Arrow file"),
        ("broken", "is not a folder that save_to_disk made"),
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
    with pytest.raises(LayoutError, match="has a row group of .* Write it again with smaller row groups"):
        listed(own, tmp_path, "train")


def test_a_small_file_that_unfolds_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by packing, and once by one large value that every row names."""
    monkeypatch.setattr(arrow, "_SMALL", 1 << 20)
    large = pa.array([b"x" * (2 << 20)])
    for name, rows in (("packed", large), ("named", pa.DictionaryArray.from_arrays(np.zeros(900, np.int32), large))):
        nothing = pa.array([b""] * len(rows))
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"photo": rows, "labels": nothing}), path, compression="zstd")
        assert path.stat().st_size < 100_000
        own = recipe(tmp_path / name, f'images = "{name}.parquet"\n{MASK_LAYOUT}')
        with pytest.raises(LayoutError, match="too much to be read into memory"):
            listed(own, tmp_path, "train")


def test_many_rows_that_share_a_value_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_MAX_BATCH", 2000)
    folder = save(mask_rows(4), MASK_FEATURES, tmp_path, "parquet")
    own = recipe(tmp_path / "recipe", f"{folder}\n{MASK_LAYOUT}", more=IGNORE)
    report = shard(own, tmp_path, "train", tmp_path / "out")
    assert report.written == 4 and not report.skipped


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

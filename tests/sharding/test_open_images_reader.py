"""Open Images: one mask for each object, listed in CSV files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError
from labelmerge.sharding.shard import shard

from .listing import Listed, listed
from .tables import SIZE

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


DOG, CAT, PERSON = "/m/0bt9lr", "/m/01yrx", "/m/01g317"


HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"


class OpenImages:
    """Made-up pictures in the official layout."""

    def __init__(self, own: Own) -> None:
        self.own, self.root, self.rows = own, own.root, [HEADER]
        (self.root / "classes-segmentation.txt").write_text(f"{DOG}\n{PERSON}\n")
        (self.root / "class-descriptions-boxable.csv").write_text(f"{DOG},Dog\n{CAT},Cat\n{PERSON},Person\n")

    def mask(self, image: str, label: str, box: str, values: Any, written: bool = True) -> None:
        name = f"{image}_{label.strip('/').replace('/', '')}_{box}.png"
        self.rows.append(f"{name},{image},{label},{box},0.25,0.75,0.000000,0.5,0.8,\n")
        if written:
            target = self.root / "masks" / "train" / image[0] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values, dtype=bool)).save(target)

    def plan(self) -> Listed:
        (self.root / "train-annotations-object-segmentation.csv").write_text("".join(self.rows))
        return listed(load_recipe("openimages"), self.root, "train")


def test_open_images(own: Own) -> None:
    data = OpenImages(own)
    own.image("train_0/0a.jpg")
    own.image("train_f/fb.jpg")
    own.image("train_f/fc.jpg")
    own.image("train_f/unlisted.jpg")
    dog, person = np.zeros((24, 32), bool), np.zeros((12, 16), bool)
    dog[4:20, 8:30] = True  # twice the image's size
    person[4:6, 6:8] = True
    data.mask("0a", PERSON, "00000001", person)
    data.mask("0a", DOG, "00000002", dog)
    data.mask("0a", DOG, "00000003", np.zeros((12, 16), bool))
    data.mask("0a", DOG, "00000004", person, written=False)
    data.mask("0a", CAT, "00000005", person)
    data.mask("fb", DOG, "00000006", person, written=False)
    data.mask("fc", DOG, "00000007", np.zeros((12, 16), bool))
    data.mask("fd", DOG, "00000008", person)
    (own.root / "oidv6-train-annotations-bbox.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        f"0a,xclick,{DOG},1,0.250000012,0.75000002,0.0,0.49999998,-1,-1,1,0,0\n"
        f"0a,xclick,{PERSON},1,0.25,0.75,0.0,0.5,-1,-1,0,0,0\n"
    )
    plan = data.plan()
    space, full = plan.source.space, load_label_space(load_recipe("openimages"))
    assert space.name == "openimages" and set(space.names) == {"Dog", "Person"}
    assert all(full.name_of(index) == space.name_of(index) for index in space.indices)
    assert space.ignore_index == 65535
    of = {name: index for index, name in zip(space.indices, space.names, strict=True)}
    report = shard(load_recipe("openimages"), own.root, "train", own.folder / "out")
    assert {skip["path"]: skip["reason"] for skip in report.skipped} == {
        "train_f/fb.jpg": "none of its 1 masks is on disk",
        "train_f/fc.jpg": "none of its masks covers a pixel (empty masks: 1)",
        "fd": "named in the CSV, but there is no such image",
    }
    assert report.notes == {"empty_masks": 1, "masks_of_other_classes": 1, "missing_masks": 2}
    annotation = plan.read(plan.items[0])
    expected = np.full(SIZE, 65535, np.uint16)
    expected[2:10, 4:15] = of["Dog"]
    expected[4:6, 6:8] = of["Person"]
    np.testing.assert_array_equal(annotation.mask, expected)
    assert [(box.class_index, box.bbox, box.group_of) for box in annotation.boxes] == [
        (of["Person"], (4, 0, 12, 6), False),
        (of["Dog"], (4, 0, 12, 6), True),
    ]


@settings(max_examples=20, deadline=None)
@given(masks=st.lists(st.tuples(st.sampled_from([DOG, PERSON]), st.integers(0, 2**12 - 1)), min_size=1, max_size=5))
def test_small_masks_lie_on_top(new_own: Callable[[], Own], masks: list[tuple[str, int]]) -> None:
    """Every pixel has the class of the smallest mask that covers it, the last by name among equals."""
    grids = [np.array([int(bit) for bit in f"{bits:012b}"], bool).reshape(3, 4) for _, bits in masks]
    if not any(grid.any() for grid in grids):
        return
    data = OpenImages(new_own())
    data.own.image("train/0a.jpg")
    for number, ((label, _), grid) in enumerate(zip(masks, grids, strict=True)):
        data.mask("0a", label, f"{number:08x}", grid)
    plan = data.plan()
    painted = plan.read(plan.item).mask
    assert painted is not None
    names = {DOG: "Dog", PERSON: "Person"}
    for y in range(12):
        for x in range(16):
            around = [
                (grid.sum(), f"0a_{label.replace('/', '')}_{number:08x}", label)
                for number, ((label, _), grid) in enumerate(zip(masks, grids, strict=True))
                if grid[y // 4, x // 4]
            ]
            if not around:
                assert painted[y, x] == 65535
                continue
            smallest = min(size for size, _, _ in around)
            label = max(entry[1:] for entry in around if entry[0] == smallest)[1]
            assert plan.source.space.name_of(int(painted[y, x])) == names[label]


def test_open_images_boxes_are_clipped_and_the_first_of_two_files_is_read(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    for number, corners in enumerate(["-1,0.5,0,2", "-3,-2,0,1"]):
        data.mask("0a", DOG, f"{number:08x}", np.ones((12, 16)))
        data.rows[-1] = data.rows[-1].replace("0.25,0.75,0.000000,0.5", corners)
    (own.root / "masks/train/1").mkdir()
    for name in data.rows[1:]:
        Image.new("1", (16, 12)).save(own.root / "masks/train/1" / name.partition(",")[0])
    plan = data.plan()
    annotation = plan.read(plan.item)
    assert [box.bbox for box in annotation.boxes] == [(0, 0, 8, 12)]
    assert annotation.notes == {"zero_size_boxes": 1}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes-segmentation.txt", "/m/nobody\n", r"1 of 1 classes are, by .*, none of openimages: /m/nobody"),
        ("classes-segmentation.txt", "", "no class of the recipe is listed"),
        ("class-descriptions-boxable.csv", "/m/0bt9lr\n", "row 1 has too few fields"),
        ("train-annotations-object-segmentation.csv", "ImageID\n", "the header lacks MaskPath, LabelName, BoxXMin"),
        ("train-annotations-object-segmentation.csv", HEADER + "a,b\n", "row 1 has too few fields"),
        (
            "train-annotations-object-segmentation.csv",
            HEADER + f"a.png,0a,{DOG},1,x,1,0,1,1,\n",
            "no row can be used: 1 of them have a number",
        ),
        (
            "train-annotations-object-segmentation.csv",
            HEADER + f"a.png,0a,{DOG},1,nan,1,0,1,1,\n",
            "no row can be used: 1 of them have a number",
        ),
    ],
)
def test_malformed_open_images_files_are_one_clear_error(own: Own, file: str, text: str, message: str) -> None:
    OpenImages(own)
    own.image("train/0a.jpg")
    (own.root / "train-annotations-object-segmentation.csv").write_text(HEADER)
    (own.root / file).write_text(text)
    with pytest.raises(LayoutError, match=message):
        listed(load_recipe("openimages"), own.root, "train")


def test_a_malformed_row_of_open_images_is_counted_and_left_out(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    data.mask("0a", DOG, "00000001", np.ones((12, 16), bool))
    data.mask("0a", DOG, "00000002", np.ones((12, 16), bool))
    data.rows[-1] = data.rows[-1].replace("0.25", "nan")
    plan = data.plan()
    assert len(plan.read(plan.item).boxes) == 1 and plan.notes == {"malformed_rows": 1}


def test_open_images_flags_ids_and_thresholds(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    whole, part = np.ones((12, 16), bool), np.zeros((12, 16), bool)
    part[2:5, 3:9] = True
    data.mask("0a", PERSON, "00000001", whole)
    data.mask("0a", DOG, "00000002", part)
    data.mask("0a", DOG, "00000003", whole)
    data.mask("0a", DOG, "00000004", part)
    data.rows[3] = data.rows[3].replace(",0.8,", ",0.69,")
    data.rows[4] = data.rows[4].replace(",0.8,", ",,").replace("0.25,0.75", "0.1,0.9")
    (own.root / "annotations").mkdir()
    (own.root / "annotations/oidv6-train-annotations-bbox.csv").write_text(
        "IsDepiction,ImageID,LabelName,IsGroupOf,YMax,YMin,XMax,XMin\n"
        f"1,0a,{DOG},0,0.5,0,0.75,0.25\n-1,0a,{PERSON},-1,0.5,0,0.75,0.25\n1,0b,{PERSON},1,0.5,0,0.75,0.25\n"
        f"0,0a,{DOG},1,0.5,0,0.9,0.1\n1,0a,{CAT},1,oops,,,\n"
    )
    shipped = load_recipe("openimages")
    own.recipe_file.write_text(shipped.text + "\n[options]\nmin_predicted_iou = 0.7\n")
    (own.folder / "openimages.csv").write_text(shipped.descriptions.read_text())
    data.plan()
    plan = listed(own.recipe, own.root, "train")
    assert plan.item.native_id == "0a" and plan.notes == {"masks_below_min_predicted_iou": 1}
    boxes = plan.read(plan.item).boxes
    name = plan.source.space.name_of
    assert [(name(b.class_index), b.native_id, b.group_of, b.depiction) for b in boxes] == [
        ("Person", "00000001", False, False),
        ("Dog", "00000002", False, True),
        ("Dog", "00000004", True, False),
    ]
    for wrong in ("2", '"0.5"', "true"):
        own.recipe_file.write_text(shipped.text + f"\n[options]\nmin_predicted_iou = {wrong}\n")
        with pytest.raises(RecipeError, match="min_predicted_iou is"):
            listed(own.recipe, own.root, "train")


def test_open_images_masks_that_do_not_fit(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    own.image("secret.png")
    covered = np.ones((12, 16), bool)
    data.mask("0a", DOG, "00000001", covered)
    data.mask("0a", DOG, "00000002", np.ones((32, 24), bool))  # the image has been turned, the mask has not
    data.mask("0a", DOG, "00000003", np.ones((25, 33), bool))
    for name in ("../../../secret.png", "/etc/passwd", "a\\b.png", "sub/0a.png", "..", ""):
        data.rows.append(f"{name},0a,{DOG},00000009,0,1,0,1,0.8,\n")
    data.rows.append(data.rows[1])
    plan = data.plan()
    assert plan.notes == {"mask_paths_refused": 4, "missing_masks": 2}
    annotation = plan.read(plan.item)
    assert annotation.notes == {"masks_of_another_shape": 1}
    assert [box.native_id for box in annotation.boxes] == ["00000001", "00000003"]


def test_masks_of_a_class_and_of_its_parent_are_painted_large_first(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    (own.root / "classes-segmentation.txt").write_text(f"{PERSON}\n/m/03bt1vf\n")
    with (own.root / "class-descriptions-boxable.csv").open("a") as file:
        file.write("/m/03bt1vf,Woman\n")
    outer, inner = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    outer[1:11, 1:15], inner[3:8, 4:9] = True, True
    data.mask("0a", "/m/03bt1vf", "00000001", inner)
    data.mask("0a", PERSON, "00000002", outer)
    plan = data.plan()
    mask = plan.read(plan.item).mask
    assert mask is not None
    of = {name: index for index, name in zip(plan.source.space.indices, plan.source.space.names, strict=True)}
    np.testing.assert_array_equal(mask, np.where(inner, of["Woman"], np.where(outer, of["Person"], 255)))


def test_a_tiny_open_images_set(fixtures: Path, own: Own) -> None:
    """Its classes are not the real ones, so a recipe of its own; the list of classes in use is made up."""
    shipped = load_recipe("openimages")
    own.recipe_file.write_text(shipped.text.replace("openimages.csv", "tiny.csv"))
    (own.folder / "tiny.csv").write_text("index,name\n" + "".join(f"{n},Generic label #{n}\n" for n in range(4)))
    for folder in ("images", "masks", "annotations"):
        (own.root / folder).symlink_to(fixtures / "openimages" / "tiny_v6" / folder)
    (own.root / "classes-segmentation.txt").write_text("/m/0\n/m/1\n")
    plan = listed(own.recipe, own.root, "train")
    with Image.open(own.root / "masks/train/b_m0_01234567.png") as stored:
        covered = np.asarray(stored) != 0
    assert np.count_nonzero(covered) == 4
    annotation = plan.read(plan.item, (2, 8))
    np.testing.assert_array_equal(annotation.mask, np.where(covered, 0, 255))
    assert [box.native_id for box in annotation.boxes] == ["01234567"]
    assert [box.bbox for box in annotation.boxes] == [(0.2 * 8, 0.3 * 2, 8, 0.5 * 2)]


def test_published_rows_of_open_images_are_read(fixtures: Path, own: Own) -> None:
    rows = fixtures / "openimages" / "real_rows" / "annotations"
    (own.root / "annotations").symlink_to(rows)
    (own.root / "classes-segmentation.txt").write_text("/m/04yx4\n/m/09j2d\n")
    own.image("train/677c122b0eaa5d16.jpg")
    name = "677c122b0eaa5d16_m04yx4_9a041d52.png"
    (own.root / "masks/train/6").mkdir(parents=True)
    Image.new("1", (16, 12), 1).save(own.root / "masks/train/6" / name)
    plan = listed(load_recipe("openimages"), own.root, "train")
    assert set(plan.source.space.names) == {"Man", "Clothing"}
    (box,) = plan.read(plan.item).boxes
    assert box.native_id == "9a041d52" and box.bbox == (0.8875 * 16, 0.454167 * 12, 0.960938 * 16, 0.720833 * 12)
    assert [(skip.path, skip.reason) for skip in plan.skips] == [
        ("05529ae018130c68", "named in the CSV, but there is no such image")
    ]

"""Depths beside images: what the pattern finds, what values become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from labelmerge.errors import LabelmergeError, LayoutError, RecipeError, SampleError
from labelmerge.inspect.stats import stats, table
from labelmerge.inspect.verify import verify
from labelmerge.predict.relabel import relabel
from labelmerge.sharding.depths import TOO_FAR, Meaning, depth_map
from labelmerge.sharding.raw import open_raw
from labelmerge.sharding.shard import shard
from labelmerge.shardset.depth_maps import decode_depth, metres
from labelmerge.shardset.pixels import png_bytes
from labelmerge.shardset.shardset import ShardSet

from ..inspect.damage import KEY, faults, rewrite
from .conftest import RECIPE

if TYPE_CHECKING:
    from .conftest import Own

Samples = Callable[[Path], dict[str, dict[str, Any]]]
WITH_DEPTH = RECIPE.replace("[ids]", 'depth = "depth/{split}/{stem}.png"\n\n[options]\ndepth_unit = "mm"\n\n[ids]')


def with_depths(own: Own, count: int = 3, dtype: type = np.uint16) -> list[np.ndarray[Any, Any]]:
    """Images, masks and depths of which some are unknown; the depths."""
    own.write_recipe(WITH_DEPTH)
    own.pairs(count)
    rng = np.random.default_rng(5)
    made: list[np.ndarray[Any, Any]] = [rng.integers(0, 60000, (12, 16)).astype(dtype) for _ in range(count)]
    (own.root / "depth/train").mkdir(parents=True)
    for number, depths in enumerate(made):
        depths[0, :3] = 0
        Image.fromarray(depths).save(own.root / f"depth/train/{number:03d}.png")
    return made


def test_depths_are_kept_verified_counted_and_read(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    made = with_depths(own)
    report = shard(own.recipe, own.root, "train", tmp_path / "out")
    assert (report.written, report.notes) == (3, {})
    folder = tmp_path / "out/my_streets/train"
    found = read_samples(folder)
    for depths, sample in zip(made, found.values(), strict=True):
        np.testing.assert_array_equal(sample["depth.png"], depths)
    known = int(sum(np.count_nonzero(depths) for depths in made))
    assert json.loads((folder / "manifest.json").read_text())["depth"] == {"unit": "mm", "known_pixels": known}
    assert verify([tmp_path / "out"]).problems == ()
    assert f"depths in mm, known at {100 * known / (3 * 192):.2f} % of the pixels" in table(stats([folder])[0])
    shards = ShardSet.open(folder)
    assert (shards.has_depth, shards.depth_unit, shards.depth_pixels) == (True, "mm", known)
    assert shards.read(1).depth is None, "only where somebody asks"
    read = shards.read(1, depth=True)
    assert read.instances is None and read.depth is not None
    np.testing.assert_array_equal(read.depth, made[1])
    region = shards.fetch(2, but=()).depth_region((3, 2, 11, 9))
    np.testing.assert_array_equal(region, made[2][2:9, 3:11])
    raw = open_raw(own.recipe, own.root, "train")
    assert raw.has_depth and raw.read(0).depth is None
    np.testing.assert_array_equal(raw.read(0, depth=True).depth, made[0])


def test_depths_shrink_by_the_nearest_value_and_keep_their_unit(own: Own, tmp_path: Path) -> None:
    made = with_depths(own)
    shard(own.recipe, own.root, "train", tmp_path / "out", short_edge=6)
    small = ShardSet.open(tmp_path / "out/my_streets/train").read(0, depth=True)
    assert small.depth is not None
    np.testing.assert_array_equal(small.depth, made[0][1::2, 1::2])
    assert verify([tmp_path / "out"]).problems == ()


def test_an_image_without_depth_is_skipped_and_says_where_it_was_looked_for(own: Own, tmp_path: Path) -> None:
    with_depths(own)
    (own.root / "depth/train/001.png").unlink()
    Image.new("L", (5, 5), 7).save(own.root / "depth/train/002.png")
    report = shard(own.recipe, own.root, "train", tmp_path / "out")
    assert report.written == 1
    assert [skip["reason"] for skip in report.skipped] == [
        "no depth: expected depth/train/001.png",
        "the image is 16x12, but its picture of depths is 5x5",
    ]
    assert verify([tmp_path / "out"]).problems == ()


@pytest.mark.parametrize(
    ("unit", "values", "wanted", "stored"),
    [
        ("mm", np.array([[0, 1, 65535]], np.uint16), [0, 1, 65535], "mm"),
        ("m/256", np.array([[0, 256, 20000]], np.uint16), [0, 256, 20000], "m/256"),
        ("m", np.array([[0.0, 2.5, 0.0001]], np.float32), [0, 2500, 1], "mm"),
        ("cm", np.array([[0, 3, 255]], np.uint8), [0, 30, 2550], "mm"),
        ("mm", np.array([[np.nan, np.inf, -3.0]], np.float32), [0, 0, 0], "mm"),
        ("m", np.array([[65.5, 66.0, 1.0]], np.float64), [65500, 0, 1000], "mm"),
        ("relative", np.array([[0, 3, 900]], np.uint16), [0, 3, 900], "relative"),
        ("relative", np.array([[0.0, 0.5, 1.0]], np.float32), [0, 32768, 65535], "relative"),
    ],
)
def test_units(unit: str, values: np.ndarray[Any, Any], wanted: list[int], stored: str, own: Own) -> None:
    own.write_recipe(WITH_DEPTH.replace('"mm"', f'"{unit}"'))
    own.pairs(1)
    meaning = Meaning.of(open_source_of(own))
    assert meaning.unit == stored
    depths, far = depth_map(values, meaning, Path("x"))
    assert (depths.tolist(), far) == ([wanted], int(unit == "m" and 66.0 in values))


def open_source_of(own: Own) -> Any:
    from labelmerge.sharding.source.locate import open_source

    return open_source(own.recipe, own.root, "train")


@given(
    arrays.arrays(np.float64, (3, 4), elements=st.floats(-10, 1e6) | st.just(np.nan)),
    st.sampled_from(["mm", "m/256", "m"]),
)
def test_depths_are_the_nearest_that_can_be_stored(values: np.ndarray[Any, Any], unit: str) -> None:
    meaning = Meaning("mm" if unit == "m" else unit, 1000.0 if unit == "m" else 1.0, (7.0,))
    depths, far = depth_map(values, meaning, Path("x"))
    for (row, column), value in np.ndenumerate(values):
        wanted = value * meaning.factor
        if not value > 0 or value == 7:
            assert depths[row, column] == 0
        elif wanted >= 65535.5 + 1e-6:
            assert depths[row, column] == 0
        elif wanted < 65535.4:
            assert abs(depths[row, column] - max(wanted, 1)) <= 0.5 + 1e-6
    assert far == sum(depths[at] == 0 and value > 0 and value != 7 for at, value in np.ndenumerate(values))


def test_arrays_tiffs_and_values_that_mean_nothing(own: Own, tmp_path: Path) -> None:
    own.write_recipe(
        WITH_DEPTH.replace('"depth/{split}/{stem}.png"', '["deep/{stem}.npy", "deep/{stem}.tif"]').replace(
            '"mm"', '"m"\ndepth_unknown = [80]'
        )
    )
    own.pairs(2)
    (own.root / "deep").mkdir()
    depths = np.linspace(1, 90, 12 * 16, dtype=np.float32).reshape(12, 16)
    depths[3, 3] = 80
    np.save(own.root / "deep/000.npy", depths[:, :, None])
    Image.fromarray(depths).save(own.root / "deep/001.tif")
    report = shard(own.recipe, own.root, "train", tmp_path / "out")
    assert report.written == 2 and report.notes == {TOO_FAR: 2 * int((depths > 65.5355).sum() - 1)}
    found = [ShardSet.open(tmp_path / "out/my_streets/train").read(n, depth=True).depth for n in (0, 1)]
    wanted = np.where((depths > 65.5355) | (depths == 80), 0, np.rint(depths.astype(np.float64) * 1000))
    for each in found:
        np.testing.assert_array_equal(each, wanted)


def test_every_reader_of_files_takes_depths(own: Own, tmp_path: Path) -> None:
    """Images alone, and COCO's boxes, whose images are a folder."""
    own.image("pictures/a/one.jpg")
    (own.root / "deep/a").mkdir(parents=True)
    Image.fromarray(np.full((12, 16), 40, np.uint16)).save(own.root / "deep/a/one.png")
    boxes = {
        "images": [{"id": 1, "file_name": "a/one.jpg", "width": 16, "height": 12}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(["road", "car", "sky"])],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}],
    }
    (own.root / "boxes.json").write_text(json.dumps(boxes))
    layouts = {
        "images": ("image", 'images = "pictures/**/*.jpg"'),
        "coco_boxes": ("box", 'images = "pictures"\nannotations = "boxes.json"'),
    }
    for reader, (kind, layout) in layouts.items():
        own.write_recipe(
            f'name = "my_streets"\nannotation_type = "{kind}"\nreader = "{reader}"\ndescriptions = "my_streets.csv"\n'
            f'[layout]\n{layout}\ndepth = "deep/{{stem}}.png"\n[options]\ndepth_unit = "relative"\n'
        )
        report = shard(own.recipe, own.root, "train", tmp_path / reader)
        assert report.written == 1, report.skipped
        sample = ShardSet.open(tmp_path / reader / "my_streets/train").read(0, depth=True)
        assert sample.depth is not None and (sample.depth == 40).all()
        assert verify([tmp_path / reader]).problems == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"mm"', '"feet"'), "options.depth_unit: unknown unit 'feet' of depths: it must be m, cm, mm, m/N"),
        (('depth_unit = "mm"', ""), "options.depth_unit is None: beside depths, it must say what a value is"),
        (('"mm"', '"mm"\ndepth_unknown = 5'), "options.depth_unknown must be a list of numbers"),
        (('"depth/{split}/{stem}.png"', "3"), "layout.depth must be a pattern"),
    ],
)
def test_recipes_that_make_no_sense_are_refused_before_anything_is_read(
    change: tuple[str, str], message: str, own: Own, tmp_path: Path
) -> None:
    own.write_recipe(WITH_DEPTH.replace(*change))
    own.pairs(1)
    with pytest.raises(RecipeError, match=message.replace("/", "/")):
        shard(own.recipe, own.root, "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_in_one_file_have_no_depths_beside_them(own: Own, tmp_path: Path) -> None:
    own.write_recipe(
        'name = "my_streets"\nannotation_type = "mask"\nreader = "hdf5_stack"\ndescriptions = "my_streets.csv"\n'
        '[layout]\nimages = "all.mat"\ndepth = "deep/*.png"\n'
    )
    with pytest.raises(RecipeError, match=r"unknown key layout\.depth"):
        shard(own.recipe, own.root, "train", tmp_path / "out")


def test_damaged_depths_are_one_line_each(own: Own, tmp_path: Path) -> None:
    with_depths(own, 2)
    for name, data in (("000", b"\x93NUMPY garbage"), ("001", b"nothing")):
        (own.root / f"depth/train/{name}.png").unlink()
        (own.root / f"depth/train/{name}.npy").write_bytes(data)
    own.write_recipe(WITH_DEPTH.replace("depth/{split}/{stem}.png", "depth/{split}/{stem}.npy"))
    with pytest.raises(LayoutError, match="is not a readable array of NumPy's"):
        shard(own.recipe, own.root, "train", tmp_path / "out")


def test_verify_finds_wrong_depths(own: Own, tmp_path: Path) -> None:
    with_depths(own, 2)
    shard(own.recipe, own.root, "train", tmp_path / "out")
    folder = tmp_path / "out/my_streets/train"
    rewrite(folder, lambda members: {**members, f"{KEY}.depth.png": png_bytes(np.zeros((12, 16), np.uint16))})
    assert faults(folder) == ["manifest.json: depth does not agree with the samples"]
    rewrite(folder, lambda members: {**members, f"{KEY}.depth.png": png_bytes(np.ones((12, 16), np.uint8))})
    assert "my_streets-train-000000.tar:my_streets-train-000000001: depth.png has 8 bits, not 16" in faults(folder)
    with pytest.raises(SampleError, match="uint8, not uint16"):
        ShardSet.open(folder).read(1, depth=True)


def test_relabelled_shards_keep_depths(own: Own, tmp_path: Path) -> None:
    made = with_depths(own, 2)
    shard(own.recipe, own.root, "train", tmp_path / "out")
    (tmp_path / "words.csv").write_text(
        "dataset,index,name,concepts\nmy_streets,0,road,road\nmy_streets,1,car,car\nmy_streets,2,sky,sky\n"
    )
    relabel([tmp_path / "out"], tmp_path / "words.csv", tmp_path / "new")
    assert verify([tmp_path / "new"]).problems == ()
    depth = ShardSet.open(tmp_path / "new/my_streets/train").read(1, depth=True).depth
    np.testing.assert_array_equal(depth, made[1])


@pytest.mark.parametrize("said", [None, {"unit": "feet", "known_pixels": 1}, {"unit": "mm"}, "mm"])
def test_a_manifest_must_say_what_depths_mean(said: object, own: Own, tmp_path: Path) -> None:
    with_depths(own, 1)
    shard(own.recipe, own.root, "train", tmp_path / "out")
    path = tmp_path / "out/my_streets/train/manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(
        json.dumps({**manifest, "depth": said} if said else {k: manifest[k] for k in manifest if k != "depth"})
    )
    with pytest.raises(LabelmergeError, match="depth"):
        ShardSet.open(path.parent)


def test_a_changed_picture_of_depths_is_noticed(own: Own, tmp_path: Path) -> None:
    """A shard is made again where what it was made from has changed."""
    with_depths(own, 2)
    recipe = own.recipe
    shard(recipe, own.root, "train", tmp_path / "out", part=(1, 2), samples_per_shard=1)
    Image.fromarray(np.full((12, 16), 9, np.uint16)).save(own.root / "depth/train/000.png")
    shard(recipe, own.root, "train", tmp_path / "out", samples_per_shard=1)
    depth = ShardSet.open(tmp_path / "out/my_streets/train").read(0, depth=True).depth
    assert depth is not None and (depth == 9).all()


def test_units_in_metres() -> None:
    assert [metres(unit) for unit in ("m", "mm", "m/256", "relative")] == [1.0, 0.001, 1 / 256, None]
    for unit in ("", "km", "m/0", "m/", "mm/2"):
        with pytest.raises(ValueError, match="unknown unit"):
            metres(unit)


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_what_is_written_is_read(values: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(decode_depth(png_bytes(values), values.shape), values)

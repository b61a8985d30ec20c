"""The numbers of `labelmerge stats` are the samples' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelmerge.errors import ShardError
from labelmerge.inspect.stats import SplitStats, _general, class_tables, share, size, stats, table
from labelmerge.labels import LabelSpace
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own

Samples = Callable[[Path], dict[str, dict[str, Any]]]


@pytest.fixture
def out(own: Own, tmp_path: Path) -> Path:
    """A train split of four images, of which two are unusable, and a val split without class 1."""
    own.pairs(4)
    own.mask("masks/train/001.png", size=(3, 3))
    own.mask("masks/train/002.png", size=(3, 5))
    own.image("images/val/000.jpg", (20, 30))
    own.mask("masks/val/000.png", np.full((20, 30), 2, np.uint8))
    for split in ("train", "val"):
        shard(own.recipe, own.root, split, tmp_path / "out", samples_per_shard=1)
    return tmp_path / "out"


def test_numbers(out: Path, read_samples: Samples) -> None:
    (train, val), unfinished = stats([out])
    masks = [sample["mask.png"] for sample in read_samples(out / "my_streets/train").values()]
    assert not unfinished
    assert (train.samples, train.shards, train.pixels, train.smallest, train.largest) == (2, 2, 384, (12, 16), (12, 16))
    assert train.bytes == sum(path.stat().st_size for path in out.glob("my_streets/train/*.tar"))
    assert train.skipped == {"the image is … but its mask is …": 2}
    assert train.class_pixels == {index: sum(int((mask == index).sum()) for mask in masks) for index in (0, 1, 2)}
    assert train.ignored_share == sum(int((mask == 255).sum()) for mask in masks) / 384
    assert (train.classes_seen, train.never_seen) == (3, ())
    assert (val.split, val.classes_seen, val.never_seen, val.class_pixels[2]) == ("val", 1, ("road", "car"), 600)


def test_the_table(out: Path) -> None:
    splits, _ = stats([out])
    lines = table(splits).splitlines()
    assert lines[0].split() == [
        *("dataset", "split", "type", "role", "samples", "skipped"),
        *("shards", "size", "images", "classes", "labelled", "ignored"),
    ]
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[1].split()[:7] == ["my_streets", "train", "mask", "train", "2", "2", "2"]
    assert lines[3].split()[:4] == ["total", "3", "2", "3"]
    assert "my_streets train: 2 skipped: the image is … but its mask is …" in lines
    assert lines[-1] == "my_streets val: never seen: road, car"
    classes = class_tables(splits).splitlines()
    assert classes[0] == "my_streets: 3 classes"
    assert classes[1].split() == ["class", "index", "train", "pixels", "share", "val", "pixels", "share"]
    shares = [float(line.split()[3]) for line in classes[2:]]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 0.02


def test_365_classes_fit_a_terminal() -> None:
    space = LabelSpace.of("many", [f"Thing {number}" for number in range(365)])
    counts = {index: 3**index if index % 5 == 0 and index < 40 else 0 for index in space.indices}
    none = dict.fromkeys(space.indices, 0)
    split = SplitStats(
        *(Path("many/train"), "many", "train", "box", "train", 9, 1, 10**12, {}, {"zero_size_boxes": 1200}, 100),
        *((3, 4), (5, 6), 0, 0, sum(counts.values()), none, counts, space),
    )
    lines = table([split]).splitlines()
    assert all(len(line) < 150 for line in lines)
    assert lines[1].split()[-4:-1] == ["4x3–6x5", "8/365", f"{split.boxes:,}"]
    assert lines[2] == "many train: zero size boxes: 1,200"
    assert lines[3].startswith("many train: never seen: Thing 1, Thing 2, Thing 3, ") and lines[3].endswith(" more")
    head, _, *rows = class_tables([split]).splitlines()
    assert head == "many: 365 classes, of which 357 never occur"
    assert [row[: len("Thing 35")].strip() for row in rows[:3]] == ["Thing 35", "Thing 30", "Thing 25"]
    assert len(rows) == 8 and len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (1e-9, "<0.01 %"), (0.00005, "0.01 %"), (0.12345, "12.35 %"), (1, "100.00 %")]
)
def test_shares(part: float, text: str) -> None:
    assert share(part) == text


def test_sizes() -> None:
    assert [size(count) for count in (0, 999, 1000, 1.5e9, 2e12, 5e15)] == [
        *("0 B", "999 B", "1 kB", "1.5 GB", "2 TB", "5e+03 TB"),
    ]


def test_unfinished_and_damaged(out: Path, run: Run) -> None:
    (out / "my_streets/val/manifest.json").unlink()
    result = run("stats", out)
    assert result.exit_code == 0 and f"{out}/my_streets/val: unfinished\n" in result.stdout
    assert result.stdout.splitlines()[-1] == "2 samples in 1 finished split."
    path = out / "my_streets/train/manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"class_pixels": {"7": 1}}))
    with pytest.raises(ShardError, match="counts class 7, which is not in its label space"):
        stats([out])
    path.write_text("{")
    assert run("stats", out).exit_code == 1


def test_the_command(out: Path, run: Run) -> None:
    assert run("stats", out, "--classes").stdout.splitlines()[-1] == "3 samples in 2 finished splits."
    data = json.loads(run("stats", out, "--json").stdout)
    train = data["splits"][0]
    assert (train["classes_seen"], train["per_class"][0]["name"], data["unfinished"]) == (3, "road", [])
    assert sum(one["pixel_share"] for one in train["per_class"]) == pytest.approx(1)


def test_reasons_that_differ_by_their_numbers_are_one() -> None:
    said = {_general(f"masks/{n}.png: mask values unknown to the recipe: {n} ({9 * n} px); name them") for n in (1, 72)}
    assert said == {"… mask values unknown to the recipe: …; name them"}

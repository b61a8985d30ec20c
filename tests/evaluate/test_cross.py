"""What a checkpoint calls one dataset's pixels in the words of the others, against a loop that asks list by list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError, UsageError
from labelmerge.evaluate.cross import count_predictions
from labelmerge.evaluate.sets import open_sets
from labelmerge.labels import LabelSpace
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views

STREETS = LabelSpace("streets", (0, 3, 7), ("road", "car", "sky"))
ROOMS = LabelSpace.of("rooms", ["wall", "floor", "counter", "sky"])  # its sky is the streets' sky
YARDS = LabelSpace.of("yards", ["grass", "lawn"])
SPACES = (STREETS, ROOMS, YARDS)


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    labels = [
        (space.name, index, name, f"About {name}.")
        for space in SPACES
        for index, name in zip(space.indices, space.names, strict=True)
    ]
    bank = tools.bank(labels)
    bank.save(tmp_path / "bank")
    tools.run(tmp_path / "run", bank)
    rng = np.random.default_rng(0)
    for space in SPACES:
        samples = []
        for height, width in ((24, 33), (40, 17), (16, 16), (20, 20)):
            image = np.kron(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
            mask = rng.choice([*space.indices, 255], size=(height, width)).astype(np.uint8)
            samples.append((tools.png(image.astype(np.uint8)[:height, :width]), tools.png(mask)))
        tools.split(tmp_path / "shards" / space.name / "val", space, samples)
    return tmp_path


def test_counts_are_those_of_a_loop(world: Path) -> None:
    found = count_predictions(world / "run", [world / "shards"], world / "bank")
    assert [(own.rows[0][0], own.columns[0][0]) for own in found] == [
        (a, b) for a in ("rooms", "streets", "yards") for b in ("rooms", "streets", "yards")
    ]
    trained, bank = load_trained(world / "run"), Bank.load(world / "bank")
    spaces = {space.name: space for space in SPACES}
    for confusion in found:
        rows, columns = spaces[confusion.rows[0][0]], spaces[confusion.columns[0][0]]
        (data,) = open_sets([world / "shards" / rows.name], (), None)
        predictor = trained.predictor(LabelList.of(columns, bank), Views())
        expected = np.zeros((len(rows), len(columns)), dtype=np.int64)
        for number in range(data.count):
            picture = data.read(number, False, False)
            assert picture.mask is not None
            for truth, guess in zip(
                picture.mask.ravel().tolist(), predictor.classes(picture.image).ravel().tolist(), strict=True
            ):
                if truth != 255:
                    expected[rows.indices.index(truth), guess] += 1
        np.testing.assert_array_equal(confusion.pixels, expected)
        assert confusion.rows == rows.keys and confusion.columns == columns.keys


def test_the_seed_draws_the_images(world: Path) -> None:
    def counts(seed: int, limit: int) -> list[Any]:
        found = count_predictions(world / "run", [world / "shards"], None, limit=limit, seed=seed)
        return [own.pixels.tolist() for own in found]

    assert counts(0, 2) == counts(0, 2) and counts(0, 4) == counts(5, 99)
    assert len({str(counts(seed, 1)) for seed in range(6)}) > 1


def test_what_cannot_be_looked_at(world: Path, tools: Any) -> None:
    with pytest.raises(UsageError, match="only rooms has masks here"):
        count_predictions(world / "run", [world / "shards" / "rooms"], world / "bank")
    with pytest.raises(UsageError, match="a limit of 0 images"):
        count_predictions(world / "run", [world / "shards"], world / "bank", limit=0)
    boxes = LabelSpace.of("boxes", ["car"])
    tools.split(
        world / "more" / "boxes" / "val",
        boxes,
        [(tools.png(np.zeros((9, 9, 3), np.uint8)), None)],
        annotation_type="box",
    )
    found = count_predictions(world / "run", [world / "shards", world / "more"], world / "bank")
    assert len(found) == 9, "boxes are left out"
    lawn = LabelSpace.of("lawns", ["lawn"])
    broken = tools.split(world / "broken" / "lawns" / "val", lawn, [(b"no image", b"no mask")])
    labels = [
        ("lawns", 0, "lawn", ""),
        *[(s.name, i, n, "") for s in SPACES for i, n in zip(s.indices, s.names, strict=True)],
    ]
    tools.bank(labels).save(world / "bank2")
    with pytest.raises(ShardError, match="none of 1 images can be used"):
        count_predictions(world / "run", [broken, world / "shards"], world / "bank2")


def test_merge_takes_a_checkpoint_as_evidence(world: Path, run: Callable[..., Any]) -> None:
    common = ["merge", "--bank", world / "bank", "--out", world / "merge"]
    done = run(*common, "--shards", world / "shards", "--checkpoint", world / "run", "--images", 2)
    assert done.exit_code == 0, done.output
    table = (world / "merge" / "taxonomy.csv").read_text()
    assert table.startswith("dataset,index,name,concepts,evidence") and "text" in table
    for wrong, said in (
        (["--checkpoint", world / "run"], "--checkpoint needs --shards"),
        (
            ["--checkpoint", world / "run", "--shards", world / "shards", "--merge", "name"],
            "is evidence for --merge concepts",
        ),
        (["--images", 3], "--images is how many"),
    ):
        done = run(*common, *wrong)
        assert done.exit_code == 2 and said in done.output

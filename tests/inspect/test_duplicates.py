"""The same image twice, in shards that are trained and evaluated on."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labelmerge.inspect.duplicates import Found, Images
from labelmerge.inspect.verify import verify

from .damage import add

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own


def test_duplicates_and_leaks(own: Own, tmp_path: Path, images: list[bytes]) -> None:
    a, b, c, d, e, f = images
    add(own, tmp_path, "streets", "train", {"0": a, "1": b, "2": c, "3": a, "4": a})
    add(own, tmp_path, "streets", "val", {"0": b, "1": f})
    add(own, tmp_path, "roads", "train", {"0": d, "1": c})
    add(own, tmp_path, "exam", "train", {"0": d, "1": e, "2": a}, role="eval")
    report = verify([tmp_path], workers=2)
    assert report.problems == ()
    found = [
        (o.kind, *(Path(p).relative_to(tmp_path).as_posix() for p in (o.first, o.second)), o.images)
        for o in report.overlaps
    ]
    assert found == [
        ("leak", "roads/train", "exam/train", 1),
        ("leak", "streets/train", "exam/train", 3),
        ("leak", "streets/train", "streets/val", 1),
        ("shared", "roads/train", "streets/train", 1),
        ("within", "streets/train", "streets/train", 2),
    ]
    assert report.overlaps[0].examples == (("roads-train-000000000", "exam-train-000000000"),)
    assert report.overlaps[1].examples == (("streets-train-000000000", "exam-train-000000002"),)
    assert report.overlaps[4].examples == (("streets-train-000000000", "streets-train-000000003"),)


def test_the_command_tells_of_leaks_but_blames_only_on_demand(
    run: Run, own: Own, tmp_path: Path, images: list[bytes]
) -> None:
    add(own, tmp_path / "a", "streets", "train", {"0": images[0], "1": images[1]})
    add(own, tmp_path / "b", "exam", "test", {"0": images[1]}, role="eval")
    result = run("verify", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"LEAK: 1 image of {tmp_path}/a/streets/train is in {tmp_path}/b/exam/test "
        "(streets-train-000000001 is exam-test-000000000)",
        "No fault in 3 samples in 2 shards of 2 splits, but training images are in evaluation sets.",
    ]
    assert run("verify", tmp_path / "a", tmp_path / "b", "--no-leaks").exit_code == 1
    assert run("verify", tmp_path / "a", "--no-leaks").exit_code == 0
    data = json.loads(run("verify", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert data["overlaps"][0]["kind"] == "leak"


def test_millions_of_images_fit() -> None:
    found, count = Found(), 50_000
    random = np.random.default_rng(0)
    for split in range(4):
        hashes = random.integers(0, 256, (count, 16), dtype=np.uint8)
        hashes[7] = 0
        tracemalloc.start()
        found.add(split, range(count), hashes.tobytes())
        tracemalloc.stop()
    tracemalloc.start()
    splits = [Images(Path(f"{split}"), "x", "train", split < 3) for split in range(4)]
    overlaps = found.overlaps(splits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [overlap.kind for overlap in overlaps] == ["leak"] * 3 + ["shared"] * 3
    assert peak < 150 * 4 * count  # bytes for each image while they are sorted: 300 MB for 2 million

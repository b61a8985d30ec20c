"""The toy village's depths: near things in front, the ground a plane, the sky farthest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.demo import depths
from labelmerge.demo.depths import scene_depth
from labelmerge.demo.worlds import draw_samples
from labelmerge.files import write_bytes
from labelmerge.inspect.verify import verify
from labelmerge.shardset.shardset import ShardSet


@pytest.fixture
def village(tmp_path: Path) -> Path:
    from importlib.resources import files

    for name in ("village.toml", "village.csv"):
        write_bytes(tmp_path / name, files("labelmerge.demo").joinpath(name).read_bytes())
    return tmp_path


def test_depths_follow_the_scene(village: Path) -> None:
    for sample in draw_samples("village", village, 12, seed=3):
        scene, depth = sample.scene, scene_depth(sample.scene, sample.things)
        assert depth.dtype == np.uint16 and depth.shape == sample.classes.shape and depth.min() > 0
        nearest = np.iinfo(np.uint16).max
        for number, thing in enumerate(scene.things):
            seen = depth[sample.things == number]
            if not seen.size:
                continue
            if thing.countable:  # a thing has one depth, and none is behind an earlier one
                assert len(set(seen.tolist())) == 1 and seen[0] <= nearest
                nearest = int(seen[0])
            elif thing.concept == "sky":
                assert (seen == depth.max()).all()
            elif thing.concept != "interior_wall":  # the ground is nearer further down
                rows = np.nonzero(sample.things == number)[0]
                assert (np.diff(seen[np.argsort(rows, kind="stable")].astype(int)) <= 0).all()


def test_the_command_makes_what_a_comparison_needs(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depths, "SPLITS", {"train": 2, "val": 1})
    done = run("demo", "--depth", "--out", tmp_path / "toy")
    assert done.exit_code == 0 and "Wrote the toy village with depths" in done.output, done.output
    assert verify([tmp_path / "toy/shards"]).problems == ()
    sets = [ShardSet.open(tmp_path / "toy/shards/village" / split) for split in ("train", "val")]
    assert [(len(each), each.depth_unit, each.role) for each in sets] == [
        (2, "relative", "train"),
        (1, "relative", "train"),
    ]
    assert sets[0].depth_pixels == 2 * 84 * 112
    assert (tmp_path / "toy/bank/bank.json").is_file()
    assert run("demo", "--depth", "--quick", "--out", tmp_path / "toy").exit_code == 2

"""A dataset that no image of can be used, and what is left of the try: nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labelmerge.errors import LayoutError, UsageError
from labelmerge.sharding.shard import check, shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def test_nothing_usable_is_an_error(own: Own, tmp_path: Path) -> None:
    own.image("images/train/a.jpg")
    with pytest.raises(LayoutError, match="the only file found is unusable .images/train/a.jpg: no annotation"):
        shard(own.recipe, own.root, "train", tmp_path)
    assert not any(tmp_path.iterdir())
    own.mask("masks/train/a.png", size=(3, 3))
    for _ in range(2):
        with pytest.raises(LayoutError, match="none of the images can be used .1 found"):
            shard(own.recipe, own.root, "train", tmp_path)
        assert not any(tmp_path.iterdir()), "what is mended may then be another recipe"


def test_faults_of_one_kind_are_summed_up(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    for number in range(4):
        own.mask(f"masks/train/{number:03d}.png", size=(3, 3))
    with pytest.raises(LayoutError, match=r"4 found: images/train/000.jpg: [^;]* \(and 3 more like it\)\)"):
        shard(own.recipe, own.root, "train", tmp_path)


def test_a_recipe_called_as_a_dataset_that_ships_is_refused(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    recipe = replace(own.recipe, name="camvid")
    with pytest.raises(UsageError, match="is called camvid, like a shipped dataset, but has other classes"):
        shard(recipe, own.root, "train", tmp_path)
    with pytest.raises(UsageError, match="is called camvid"):
        check(recipe, own.root, "train")
    assert not any(tmp_path.iterdir())

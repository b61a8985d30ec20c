"""What sharding's tests use, and shards to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labelmerge.sharding.shard import shard

from ..sharding.conftest import new_own, own, read_samples

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

__all__ = ["new_own", "own", "read_samples"]


@pytest.fixture
def folder(own: Own, tmp_path: Path) -> Path:
    """Shards of four images."""
    own.pairs(4)
    report = shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    assert report.folder is not None
    return report.folder


@pytest.fixture
def images(own: Own) -> list[bytes]:
    return [own.image(f"other/{number}.jpg") for number in range(6)]

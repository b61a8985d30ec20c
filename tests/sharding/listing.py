"""What a reader lists for a split, all in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labelmerge.catalog import Recipe
from labelmerge.sharding.plan import make_plan
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.source import Annotation, Item, Skip, Source


@dataclass(frozen=True)
class Listed:
    source: Source
    items: tuple[Item, ...]
    skips: tuple[Skip, ...]
    notes: Mapping[str, int]

    @property
    def item(self) -> Item:
        """The only item."""
        (item,) = self.items
        return item

    def read(self, item: Item, size: tuple[int, int] = (12, 16)) -> Annotation:
        """The item's annotation, for an image of this (height, width)."""
        return READERS[self.source.reader].read(self.source, item, size)


def listed(recipe: Recipe, root: Path, split: str, **options: Any) -> Listed:
    """Plan a split as `labelmerge shard` does."""
    with TemporaryDirectory() as scratch, make_plan(recipe, root, split, Path(scratch), **options) as plan:
        items = tuple(item for number in range(len(plan.sizes)) for _, item in plan.task(number).items)
        return Listed(plan.source, items, plan.skips, plan.notes)

"""Images alone, for methods that learn from unlabelled ones: ``annotation_type = "image"``.

Every file that `layout.images` finds is a sample. The recipe's descriptions say which labels the images may show; none
of them occurs in the shards.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from labelmerge.sharding.source.layout import find, places
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(types=("image",), layout=("images",))
label_space = None
image = None
files = None


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images, sorted by path; raises LayoutError."""
    patterns = [base + place for base in source.bases for place in places(source, "images")]
    found = {match.path for pattern in patterns for match in find(source.root, pattern)}
    return (Item(path, None) for path in sorted(found))


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Nothing is known of an image."""
    return Annotation()

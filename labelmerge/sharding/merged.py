"""A person's mapping table applied at shard time: classes become groups, the same numbers in every dataset.

For tools that want one label space and nothing of meaning. labelmerge's own training takes the mapping itself
(`labelmerge train --merge table`), and then the shards can stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labelmerge.errors import BankError, RecipeError
from labelmerge.labels import LabelSpace
from labelmerge.merge.mapping import read_mapping
from labelmerge.sharding.source.source import Annotation


@dataclass(frozen=True)
class Merge:
    """Which group each class of a dataset belongs to.

    Attributes:
        space: the groups that the dataset has: their numbers are places in the whole table, so that a group has the
            same number in every dataset's shards.
        group_of: the group's number, by class index.
    """

    space: LabelSpace
    group_of: Mapping[int, int]

    def apply(self, annotation: Annotation, space: LabelSpace) -> Annotation:
        """The same annotation with groups for the classes of `space`."""
        mask = annotation.mask
        if mask is not None:
            table = space.lookup(self.group_of, self.space.ignore_index).astype(self.space.dtype)
            mask = table[mask]
        return replace(
            annotation,
            mask=mask,
            boxes=tuple(replace(box, class_index=self.group_of[box.class_index]) for box in annotation.boxes),
            segments=tuple(replace(part, class_index=self.group_of[part.class_index]) for part in annotation.segments),
        )


def read_merge(path: Path, space: LabelSpace) -> Merge:
    """Read a mapping table for one dataset; its rows of other datasets only count groups.

    Args:
        path: as `labelmerge merge` writes it.
        space: the dataset's classes; the table may also have classes that these files lack.

    Raises:
        BankError: the table can't be read, or is not of this dataset's classes.
    """
    names = dict(zip(space.keys, space.names, strict=True))
    groups = read_mapping(path, names, others=True)
    if not names.keys() <= groups.keys():
        raise BankError(
            f"has no row for {space.name}",
            where=path,
            fix=f"Make it with a bank that has {space.name}: `labelmerge merge --bank BANK --out DIR`",
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    group_of = {index: numbers[groups[space.name, index]] for index in space.indices}
    names_of = {numbers[group]: group for group in groups.values()}
    used = sorted(set(group_of.values()))
    try:
        merged = LabelSpace(space.name, tuple(used), tuple(names_of[number] for number in used))
    except RecipeError as error:
        raise BankError(error.what, where=path) from error
    return Merge(merged, group_of)

"""A person's mapping table applied at shard time: classes become groups, the same numbers in every dataset.

For tools that want one label space and nothing of meaning. labelmerge's own training takes the mapping itself
(`labelmerge train --merge table`), and then the shards can stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labelmerge.errors import RecipeError, TaxonomyError
from labelmerge.labels import LabelSpace
from labelmerge.merge.taxonomy import read_taxonomy
from labelmerge.sharding.source.source import Annotation
from labelmerge.text import some


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
    """Read a taxonomy for one dataset; its rows of other datasets only count concepts.

    Args:
        path: as `labelmerge merge` writes it.
        space: the dataset's classes; the table may also have classes that these files lack.

    Raises:
        TaxonomyError: the table can't be read, is not of this dataset's classes, or gives one of them several concepts.
    """
    names = dict(zip(space.keys, space.names, strict=True))
    taxonomy = read_taxonomy(path, names, others=True)
    if not all(key in taxonomy for key in names):
        raise TaxonomyError(
            f"has no row for {space.name}",
            where=path,
            fix=f"Make it with a bank that has {space.name}: `labelmerge merge --bank BANK --out DIR`",
        )
    several = [taxonomy[key] for key in names if len(taxonomy[key].concepts) > 1]
    if several:
        shown = some(f"{entry.key[1]} ({entry.name}) may be {', '.join(entry.concepts[:3])}" for entry in several)
        raise TaxonomyError(
            f"labels of {space.name} stand for several concepts, and only a model can tell which: {shown}",
            where=path,
            fix="Give each of them one concept, or make shards without --taxonomy and use `labelmerge relabel`",
        )
    numbers = {concept: number for number, concept in enumerate(taxonomy.concepts)}
    group_of = {index: numbers[taxonomy[space.name, index].concepts[0]] for index in space.indices}
    used = sorted(set(group_of.values()))
    try:
        merged = LabelSpace(space.name, tuple(used), tuple(taxonomy.concepts[number] for number in used))
    except RecipeError as error:
        raise TaxonomyError(error.what, where=path) from error
    return Merge(merged, group_of)

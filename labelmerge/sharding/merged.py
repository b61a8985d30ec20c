"""A taxonomy applied at shard time: classes become concepts, one label space for every dataset.

For tools that want one label space and nothing of meaning. labelmerge's own training takes the taxonomy itself
(`labelmerge train --taxonomy`), and then the shards can stay as they are.
"""

from __future__ import annotations

from pathlib import Path

from labelmerge.errors import TaxonomyError
from labelmerge.labels import LabelSpace
from labelmerge.merge.taxonomy import read_taxonomy, space_name
from labelmerge.sharding.source.source import ClassMap
from labelmerge.text import some


def read_class_map(path: Path, space: LabelSpace) -> ClassMap:
    """Read a taxonomy for one dataset. All its concepts are the classes, those of other datasets too.

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
    try:
        return ClassMap(taxonomy.space(space_name(path)), group_of)
    except TaxonomyError as error:
        raise TaxonomyError(error.what, where=path) from error

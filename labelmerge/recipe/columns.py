"""Hugging Face datasets on disk: Parquet files, and what `save_to_disk` made."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname
from typing import Any

import numpy as np
import pyarrow as pa

from labelmerge.catalog import SPLITS
from labelmerge.errors import LabelmergeError
from labelmerge.recipe.class_lists import class_lists
from labelmerge.recipe.pictures import ROLE, name_colours, name_values
from labelmerge.recipe.proposal import Proposal, indexed
from labelmerge.recipe.tree import Tree, split_of, template, words_of
from labelmerge.sharding.pictures.arrow import (
    DAMAGED,
    class_names,
    field_of,
    is_boxes,
    is_mask,
    is_picture,
    open_table,
    type_of,
)
from labelmerge.sharding.pictures.images import decode_exact, indices, packed_colours

_NUMBERED = re.compile(r"-\d{5}-of-\d{5}(?=\.parquet$)")
_BOXES = ("objects.bbox", "objects.boxes", "bbox", "bboxes", "boxes")
_CLASSES = ("category", "categories", "label", "labels", "class", "classes", "category_id")
_MOST_ROWS = 100


def columns(tree: Tree) -> Iterator[Proposal]:
    """Masks or boxes in the columns of a dataset."""
    for place, splits, sample in _places(tree):
        try:
            table = open_table(tree.root / sample)
            proposal = _masks(tree, table, sample) or _boxes(table.schema)
        except (*DAMAGED, LabelmergeError):
            continue
        if proposal is not None:
            proposal.layout = {"images": place, **proposal.layout}
            proposal.splits = splits
            yield proposal


def _places(tree: Tree) -> Iterator[tuple[str, dict[str, str], str]]:
    """For each dataset `layout.images`, the recipe's `[splits]`, and one of its files."""
    saved = [path for path in tree.paths if path.rpartition("/")[2] in ("dataset_dict.json", "state.json")]
    for path in sorted(saved, key=lambda path: ("dataset_dict" not in path, path)):
        folder = dirname(path)
        arrows = [each for each in tree.ending(".arrow") if each.startswith(f"{folder}/" if folder else "")]
        if "dataset_dict" in path and arrows:
            words = _json(tree.root / path).get("splits")
            known = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
            yield folder or ".", words_of((split_of(word), word) for word in known), arrows[0]
        elif arrows and not any("dataset_dict" in each for each in saved):
            yield folder or ".", {split: "" for split in SPLITS[1:]}, arrows[0]
    found: dict[str, list[str]] = {}
    for path in tree.ending(".parquet"):
        found.setdefault(_NUMBERED.sub("-*", template(path).text), []).append(path)
    for pattern, paths in found.items():
        made = [template(path) for path in paths]
        yield pattern, words_of((each.split, each.word) for each in made), paths[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _masks(tree: Tree, table: Any, sample: str) -> Proposal | None:
    names = [column.name for column in table.schema]
    pictures = [name for name in names if is_picture(table.schema.field(name).type)]
    masks = [name for name in names if ROLE.search(name) and is_mask(table.schema.field(name).type)]
    images = [name for name in pictures if name not in masks]
    if not masks or not images:
        return None
    values, look = Counter[int](), ""
    rows = 0
    for number in range(_MOST_ROWS):
        try:
            value = field_of(table.row(number, (masks[0],)), masks[0])
            stored, look = _stored(value, Path(sample))
        except IndexError:
            break
        found, counts = np.unique(stored, return_counts=True)
        values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        rows += 1
    if not values:
        return None
    proposal = Proposal(
        what=f"a Hugging Face dataset with {'colour' if look == 'colour' else 'index'} masks",
        reader="hf_dataset",
        kind="mask",
        layout={"image_column": images[0], "mask_column": masks[0]},
        classes={},
        named=False,
    )
    (name_colours if look == "colour" else name_values)(proposal, values, class_lists(tree))
    proposal.what = proposal.what.replace("one beside each image", "in a Hugging Face dataset")
    proposal.remarks.append(f"Values are those of the first {rows} masks of {sample}.")
    return proposal


def _stored(value: Any, where: Path) -> tuple[Any, str]:
    """The values or packed colours of a mask, and which of the two."""
    if isinstance(value, list):
        array = np.array(value)
        if array.ndim == 3:
            red, green, blue = (array[:, :, place].astype(np.uint32) for place in range(3))
            return red << 16 | green << 8 | blue, "colour"
        return array, "index"
    data = value["bytes"] if isinstance(value, dict) else value
    colour = decode_exact(data, where).mode in ("RGB", "RGBA")
    return (packed_colours(data, where), "colour") if colour else (indices(data, where), "index")


def _boxes(schema: pa.Schema) -> Proposal | None:
    pictures = [column.name for column in schema if is_picture(column.type)]
    for boxes in _BOXES:
        kind = type_of(schema, boxes)
        parent = f"{boxes.rpartition('.')[0]}." if "." in boxes else ""
        classes = next((f"{parent}{name}" for name in _CLASSES if type_of(schema, f"{parent}{name}")), None)
        if pictures and classes and kind is not None and is_boxes(kind):
            names = class_names(schema, classes)
            return Proposal(
                what="a Hugging Face dataset with boxes",
                reader="hf_dataset",
                kind="box",
                layout={"image_column": pictures[0], "boxes_column": boxes, "classes_column": classes},
                classes=indexed(list(names)) if names else {0: "class 0"},
                named=bool(names),
                remarks=['Boxes are taken as [x, y, width, height]; options.box_format = "xyxy" if they are corners.'],
            )
    return None

"""A sample's JSON: what is known of it besides its pixels (docs/architecture.md, "Shards")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labelmerge.shardset.manifest import Types, wrong_types

LISTS = ("present", "boxes", "segments")
"""The fields of a sample's JSON that are JSON texts themselves, and are always there."""
ANNOTATED = "annotated"
"""Another one, in splits whose images were annotated for different classes: the indices of those that this one was."""

SAMPLE_TYPES: Types = {
    "key": str,
    "dataset": str,
    "split": str,
    "annotation_type": str,
    "label_space": str,
    "height": int,
    "width": int,
    "original_height": int,
    "original_width": int,
    "source": dict,
    "present": str,
    "boxes": str,
    "segments": str,
}
SOURCE_TYPES: Types = {"path": str, "native_id": str, "sha256": str}
BOX_TYPES: Types = {
    "bbox": list,
    "class_index": int,
    "iscrowd": bool,
    "group_of": bool,
    "depiction": bool,
    "reflected": bool,
    "area": (int, float),
    "native_id": str,
}
SEGMENT_TYPES: Types = {
    "id": int,
    "class_index": int,
    "category_id": int,
    "iscrowd": bool,
    "area": int,
    "native_id": str,
}


def meta_bytes(meta: Mapping[str, Any]) -> bytes:
    """The content of a sample's ``json`` member: compact, in the order of `meta`, and its lists as texts of their own.

    Readers that take a field's type from the first samples (Hugging Face's datasets) can't see one in an empty list.
    """
    return _text(
        {name: _text(value) if name in (*LISTS, ANNOTATED) else value for name, value in meta.items()}
    ).encode()


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def unpacked(data: bytes) -> dict[str, Any]:
    """The inverse of `meta_bytes`, for an object that may lack any field. Raises ValueError or TypeError."""
    meta: dict[str, Any] = json.loads(data)
    return {**meta, **{name: json.loads(meta[name]) for name in (*LISTS, ANNOTATED) if name in meta}}


def parse(data: bytes) -> dict[str, Any]:
    """The inverse of `meta_bytes`; raises ValueError where a field is missing or of another type."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json can't be read ({error})") from error
    if wrong := wrong_types(meta, SAMPLE_TYPES) or wrong_types(meta["source"], SOURCE_TYPES):
        raise ValueError(f"json: {wrong}")
    if not isinstance(meta.get(ANNOTATED, ""), str):
        raise ValueError(f"json: {ANNOTATED!r} is a {type(meta[ANNOTATED]).__name__}")
    for name in (*LISTS, *((ANNOTATED,) if ANNOTATED in meta else ())):
        try:
            meta[name] = json.loads(meta[name])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"json: {name} is not a JSON text ({error})") from error
        if not isinstance(meta[name], list):
            raise ValueError(f"json: {name} is not a list")
    return dict(meta)

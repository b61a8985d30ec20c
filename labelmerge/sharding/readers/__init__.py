"""One file per annotation format: a reader lists the items of a source and decodes one annotation at a time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import cast

from labelmerge.sharding.source.source import Reader


class _Readers(Mapping[str, Reader]):
    """Modules of this folder; each is imported when it is asked for: a process needs one, and starts sooner."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getitem__(self, name: str) -> Reader:
        if name not in self._names:
            raise KeyError(name)
        return cast(Reader, importlib.import_module(f"{__name__}.{name}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


READERS: Mapping[str, Reader] = _Readers(
    "index_png",
    "colour_png",
    "ade20k_seg",
    "polygons",
    "panoptic",
    "mask_per_object",
    "coco_boxes",
    "coco_instances",
    "video_instances",
    "yolo",
    "labelme",
    "voc_xml",
    "cvat",
    "supervisely",
    "mat",
    "hdf5_stack",
    "sun_toolbox",
    "hf_dataset",
    "images",
)

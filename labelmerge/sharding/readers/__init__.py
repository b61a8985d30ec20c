"""One file per annotation format: a reader lists the candidates of a source and decodes one annotation at a time."""

from __future__ import annotations

from labelmerge.sharding.readers import (
    ade20k_seg,
    coco_boxes,
    colour_png,
    index_png,
    mask_per_object,
    panoptic,
    polygons,
)
from labelmerge.sharding.sample import Reader

READERS: dict[str, Reader] = {
    "index_png": index_png,
    "colour_png": colour_png,
    "ade20k_seg": ade20k_seg,
    "polygons": polygons,
    "panoptic": panoptic,
    "mask_per_object": mask_per_object,
    "coco_boxes": coco_boxes,
}

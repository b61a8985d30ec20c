"""One file per annotation format: a reader lists the candidates of a source and decodes one annotation at a time."""

from __future__ import annotations

from labelmerge.sharding.readers import coco_boxes, index_png, mask_per_object, panoptic, polygons
from labelmerge.sharding.sample import Reader

READERS: dict[str, Reader] = {
    "index_png": index_png,
    "polygons": polygons,
    "panoptic": panoptic,
    "mask_per_object": mask_per_object,
    "coco_boxes": coco_boxes,
}

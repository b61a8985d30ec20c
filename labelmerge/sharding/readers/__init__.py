"""One file per annotation format: a reader lists the candidates of a source and decodes one annotation at a time."""

from __future__ import annotations

from labelmerge.sharding.readers import (
    ade20k_seg,
    coco_boxes,
    coco_instances,
    colour_png,
    hdf5_stack,
    hf_dataset,
    index_png,
    mask_per_object,
    mat,
    panoptic,
    polygons,
    sun_toolbox,
    video_instances,
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
    "coco_instances": coco_instances,
    "video_instances": video_instances,
    "mat": mat,
    "hdf5_stack": hdf5_stack,
    "sun_toolbox": sun_toolbox,
    "hf_dataset": hf_dataset,
}

"""What COCO's files say of one image: segments and their picture, objects, boxes.

The formats: cocodataset.org/#format-data and cocodataset/panopticapi.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np
from PIL import Image

from labelmerge.inspect.samples import Array, Record
from labelmerge.shardset.pixels import png_bytes


def panoptic(
    mask: Array,
    instances: Array | None,
    segments: Sequence[Record],
    ids: Mapping[int, int],
    ignore_index: int,
    things: Container[int] = (),
) -> tuple[list[Record], bytes]:
    """The segments of one image and their PNG: what the mask has besides the segments is one more for each class.

    Of things it is a crowd: how many they are isn't known. `eval --task panoptic` counts them so, too.

    Args:
        mask: ``[H, W]`` class indices.
        instances: ``[H, W]`` segment ids; None where there are none.
        segments: as in a sample's JSON.
        ids: category id by class index.
        ignore_index: no label, in `mask`.
        things: classes that are things.
    """
    listed = {segment["id"]: segment for segment in segments}
    numbers = np.zeros_like(mask, dtype=np.uint32)
    if instances is not None:
        known = np.zeros(1 << 16, dtype=np.uint32)
        known[list(listed)] = list(listed)
        numbers = known[instances]
    free = numbers == 0
    number_of = np.zeros(1 << 16, dtype=np.uint32)
    pixels = np.bincount(mask[free], minlength=1 << 16)
    pixels[ignore_index] = 0
    for number, index in enumerate(np.flatnonzero(pixels).tolist(), start=max(listed, default=0) + 1):
        number_of[index] = number
        listed[number] = {"class_index": index, "iscrowd": index in things}
    numbers = np.where(free, number_of[mask], numbers)
    records = [
        {
            "id": number,
            "category_id": ids[listed[number]["class_index"]],
            "area": area,
            "bbox": bbox,
            "iscrowd": int(listed[number]["iscrowd"]),
        }
        for number, area, bbox in regions(numbers)
    ]
    every = np.arange(max(listed, default=0) + 1)
    rgb = np.stack([every & 255, every >> 8 & 255, every >> 16], axis=-1).astype(np.uint8)[numbers]
    return records, png_bytes(Image.fromarray(rgb))


def regions(numbers: Array) -> Iterator[tuple[int, int, list[int]]]:
    """Value, area and [x, y, width, height] of every value but 0 in [H, W], ascending."""
    width = numbers.shape[1]
    flat = numbers.ravel()
    order = np.argsort(flat.astype(np.uint16) if flat.max() < 1 << 16 else flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    ends = np.append(starts[1:], flat.size)
    left, right = (extreme.reduceat(order % width, starts) for extreme in (np.minimum, np.maximum))
    for start, end, x0, x1 in zip(starts.tolist(), ends.tolist(), left.tolist(), right.tolist(), strict=True):
        if value := int(flat[order[start]]):
            # The sort is stable: a region's pixels are still in their order, from its top row to its last.
            y0, y1 = int(order[start]) // width, int(order[end - 1]) // width
            yield value, end - start, [x0, y0, x1 - x0 + 1, y1 - y0 + 1]


def objects(instances: Array, segments: Sequence[Record], ids: Mapping[int, int]) -> Iterator[Record]:
    """The segments of one image whose class is among `ids`, as RLE.

    Args:
        instances: ``[H, W]`` segment ids.
        segments: as in a sample's JSON.
        ids: category id by class index.
    """
    from pycocotools import mask as rle

    numbers = np.asfortranarray(instances)
    found = {value: (area, bbox) for value, area, bbox in regions(numbers)}
    for segment in segments:
        if segment["class_index"] in ids:
            area, bbox = found[segment["id"]]
            encoded = rle.encode((numbers == segment["id"]).astype(np.uint8))
            yield {
                "category_id": ids[segment["class_index"]],
                "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode()},
                "area": area,
                "bbox": bbox,
                "iscrowd": int(segment["iscrowd"]),
            }


def boxes(listed: Iterable[Record], ids: Mapping[int, int]) -> Iterator[Record]:
    """Boxes as annotations without a mask.

    Args:
        listed: as in a sample's JSON.
        ids: category id by class index.
    """
    for box in listed:
        x0, y0, x1, y1 = box["bbox"]
        yield {
            "category_id": ids[box["class_index"]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": box["area"],
            "iscrowd": int(box["iscrowd"] or box["group_of"]),
            "isfake": int(box["depiction"]),
            "isreflected": int(box["reflected"]),
        }


def text(value: object) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_list(stream: IO[str], records: Iterable[Record], empty: bool) -> bool:
    """Write more elements of a JSON list; whether the list is still empty."""
    for record in records:
        stream.write(("\n" if empty else ",\n") + text(record))
        empty = False
    return empty

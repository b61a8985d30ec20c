"""Boxes as COCO has them, and the sizes of images that COCO lists."""

from __future__ import annotations

from collections.abc import Sequence

from labelmerge.errors import SampleError
from labelmerge.sharding.source.source import Item, Source, clip

FAR = 1e6  # pixels; no picture is so large


def clipped(bbox: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | str:
    """The corners of a box [x, y, width, height] inside an image of (height, width); or what to count it as."""
    if not all(abs(value) <= FAR for value in bbox):  # nor is NaN
        return "absurd_boxes"
    x, y, width, height = bbox
    corners = clip((x, y, x + width, y + height), size)
    return "zero_size_boxes" if corners is None else corners


def check_size(source: Source, item: Item, listed: tuple[int, int] | None, size: tuple[int, int]) -> None:
    """Raises SampleError where the size that a JSON lists, if it lists one, is not the image's."""
    if listed is not None and listed != size:
        raise SampleError(
            f"the JSON says {listed[1]}x{listed[0]}, but the image is {size[1]}x{size[0]}",
            where=source.root / item.path,
        )

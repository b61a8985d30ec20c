"""Is one sample of a shard what docs/architecture.md says?"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.depth_maps import DEPTH
from labelmerge.shardset.manifest import wrong_types
from labelmerge.shardset.meta import BOX_TYPES, SEGMENT_TYPES, parse
from labelmerge.shardset.pixels import decode_whole, refuse_huge
from labelmerge.shardset.run_lengths import histogram
from labelmerge.shardset.tar import shown


class Remark(str):
    """What is odd about a sample, but no fault."""


_FORMATS = {"jpg": "JPEG", "png": "PNG"}
_MASK_MODES = ("L", "I;16")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Float32 readers of boxes may step this far over the border.
_BORDER = 1e-3

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What the manifest says of every sample of a split."""

    dataset: str
    split: str
    annotation_type: str
    members: tuple[str, ...]
    space: LabelSpace

    def number(self, key: str) -> int | None:
        """The number in a sample's key; None where it is not a key of this split."""
        head = f"{self.dataset}-{self.split}-"
        digits = key.removeprefix(head)
        return int(digits) if key.startswith(head) and re.fullmatch("[0-9]{9}", digits) else None


@dataclass
class Counts:
    """What is counted over samples, to be compared with the manifest."""

    pixels: Counter[int] = field(default_factory=Counter)
    boxes: Counter[int] = field(default_factory=Counter)
    depth_pixels: int = 0
    image_pixels: int = 0
    least: tuple[int, int] | None = None
    most: tuple[int, int] = (0, 0)
    embedding_sizes: set[int] = field(default_factory=set)

    def add_size(self, pixels: int, least: tuple[int, int], most: tuple[int, int]) -> None:
        """Take in images: all their pixels, and the extremes of (height, width)."""
        self.image_pixels += pixels
        before = self.least or least
        self.least = min(before[0], least[0]), min(before[1], least[1])
        self.most = max(self.most[0], most[0]), max(self.most[1], most[1])

    def add(self, other: Counts) -> None:
        """Take in what was counted elsewhere."""
        self.pixels.update(other.pixels)
        self.boxes.update(other.boxes)
        self.depth_pixels += other.depth_pixels
        self.embedding_sizes |= other.embedding_sizes
        if other.least is not None:
            self.add_size(other.image_pixels, other.least, other.most)


def check_sample(
    key: str, members: Mapping[str, bytes], expected: Expected, counts: Counts
) -> Generator[str, None, str | None]:
    """Yield a sample's faults and `Remark`s, and count what is in it.

    Args:
        key: from the names in the tar.
        members: contents by name.
        expected: from the manifest.
        counts: gets this sample's.

    Returns:
        The SHA-256 of the source image; None where the JSON doesn't say it.
    """
    if missing := sorted(set(expected.members) - members.keys()):
        yield f"members missing: {', '.join(missing)}"
    if extra := sorted(members.keys() - set(expected.members)):
        yield f"members that the manifest does not list: {', '.join(extra)}"
    if "json" not in members:
        return None
    try:
        meta = parse(members["json"])
    except ValueError as error:
        yield str(error)
        return None
    for name, value in (
        ("key", key),
        ("dataset", expected.dataset),
        ("split", expected.split),
        ("annotation_type", expected.annotation_type),
        ("label_space", expected.space.hash),
    ):
        if meta[name] != value:
            yield f"json: {name} is {shown(meta[name])}, not {value!r}"
    size = (meta["height"], meta["width"])
    for name in _FORMATS.keys() & members.keys():
        if (yield from _picture(name, members[name], size)) is not None:
            counts.add_size(size[0] * size[1], size, size)
    present = {box["class_index"] for box in meta["boxes"] if wrong_types(box, {"class_index": int}) is None}
    if "mask.png" in members:
        mask = yield from _picture("mask.png", members["mask.png"], size)
        if mask is not None:
            pixels = histogram(mask)
            counts.pixels.update(pixels)
            present = pixels.keys() - {expected.space.ignore_index}
            if outside := sorted(value for value in present if value not in expected.space):
                yield f"mask.png: values outside the label space: {', '.join(map(str, outside[:5]))}"
    yield from _check_boxes(meta, expected.space, counts)
    if "instances.png" in members:
        instances = yield from _picture("instances.png", members["instances.png"], size)
        if instances is not None:
            yield from _check_segments(meta["segments"], expected.space, histogram(instances))
    elif meta["segments"]:
        yield "json: has segments, but there is no instances.png"
    if DEPTH in members:
        depth = yield from _picture(DEPTH, members[DEPTH], size)
        if depth is not None and depth.dtype == np.uint8:
            yield f"{DEPTH} has 8 bits, not 16"
        elif depth is not None:
            counts.depth_pixels += int(np.count_nonzero(depth))
    if "box_embeddings.npy" in members:
        yield from _check_embeddings(members["box_embeddings.npy"], len(meta["boxes"]), counts)
    if meta["present"] != sorted(present):
        yield f"json: present is {shown(meta['present'])}, but the annotation has {shown(sorted(present))}"
    listed = meta.get("annotated", [])
    if not all(type(index) is int and index in expected.space for index in listed) or len({*listed}) < len(listed):
        yield f"json: annotated is {shown(listed)}, not classes of the label space, each once"
    if not _SHA256.fullmatch(meta["source"]["sha256"]):
        yield "json: source: sha256 is not a SHA-256"
        return None
    return str(meta["source"]["sha256"])


def _picture(name: str, data: bytes, size: tuple[int, int]) -> Generator[str, None, Array | None]:
    """The pixels of an image of (height, width), unless something is wrong with it. Size and kind are looked at before
    it is decoded: a small file can unfold to anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `refuse_huge` is stricter
            image = Image.open(BytesIO(data), formats=tuple(_FORMATS.values()))
        refuse_huge(image.size)
    except SampleError as error:
        yield f"{name} {error.what}"
        return None
    except Image.DecompressionBombError:
        yield f"{name} has more pixels than Pillow takes for safe"
        return None
    except Exception:  # Pillow's parsers raise about anything on damaged files
        yield f"{name} is neither a JPEG nor a PNG"
        return None
    if image.format != _FORMATS[name.rpartition(".")[2]]:
        yield f"{name} is a {image.format} file"
    if (image.height, image.width) != size:
        yield f"{name} is {image.width}x{image.height}, but the json says {size[1]}x{size[0]}"
        return None
    if name not in _FORMATS and image.mode not in _MASK_MODES:
        yield f"{name} is not a single-channel 8- or 16-bit PNG (mode {image.mode})"
        return None
    remarks: list[str] = []
    try:
        pixels = np.asarray(decode_whole(data, Path(name), remarks))
        yield from (Remark(f"{name}: {remark}") for remark in remarks)
        return pixels
    except SampleError as error:
        yield f"{name} {error.what}"
        return None


def _check_boxes(meta: Mapping[str, Any], space: LabelSpace, counts: Counts) -> Iterator[str]:
    for number, box in enumerate(meta["boxes"]):
        if wrong := wrong_types(box, BOX_TYPES):
            yield f"json: boxes[{number}]: {wrong}"
            continue
        corners = box["bbox"]
        if len(corners) != 4 or not all(map(_is_number, corners)) or not _is_number(box["area"]) or box["area"] < 0:
            yield f"json: boxes[{number}]: bbox must be four numbers, and area one of 0 or more"
            continue
        x0, y0, x1, y1 = corners
        if not (-_BORDER <= x0 < x1 <= meta["width"] + _BORDER and -_BORDER <= y0 < y1 <= meta["height"] + _BORDER):
            yield f"json: boxes[{number}]: {shown(corners)} is not a box inside the image"
        if box["class_index"] not in space:
            yield f"json: boxes[{number}]: class {box['class_index']} is not in the label space"
        else:
            counts.boxes[box["class_index"]] += 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _check_segments(segments: list[Any], space: LabelSpace, areas: Mapping[int, int]) -> Iterator[str]:
    listed: dict[int, int] = {}
    for number, segment in enumerate(segments):
        if wrong := wrong_types(segment, SEGMENT_TYPES):
            yield f"json: segments[{number}]: {wrong}"
            continue
        if segment["id"] in listed:
            yield f"json: segments[{number}]: id {segment['id']} occurs twice"
        listed[segment["id"]] = segment["area"]
        if segment["class_index"] not in space:
            yield f"json: segments[{number}]: class {segment['class_index']} is not in the label space"
    if listed != {value: area for value, area in areas.items() if value}:
        yield "instances.png and the segments of the json differ in ids or areas"


def _check_embeddings(data: bytes, boxes: int, counts: Counts) -> Iterator[str]:
    name = "box_embeddings.npy"
    stream = BytesIO(data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0 of the format")
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # NumPy evaluates the header as Python
        yield f"{name} is not a NumPy file ({shown(str(error))})"
        return
    if dtype != np.dtype("<f2") or columns_first or len(shape) != 2:
        yield f"{name} is {dtype}{list(shape)}, not float16 [boxes, D]"
        return
    if shape[0] != boxes or shape[1] < 1:
        yield f"{name} is {list(shape)}, but the json has {boxes} boxes"
        return
    if len(data) - stream.tell() != 2 * shape[0] * shape[1]:
        yield f"{name} has {len(data) - stream.tell()} bytes of numbers, but its header says {list(shape)}"
        return
    counts.embedding_sizes.add(shape[1])
    if not np.isfinite(np.frombuffer(data, "<f2", offset=stream.tell())).all():
        yield f"{name} has numbers that are not finite"

"""One sample of a shard: as it lies there, and decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.depth_maps import DEPTH, DepthMap, decode_depth
from labelmerge.shardset.meta import ANNOTATED, unpacked
from labelmerge.shardset.pixels import Mask, Region, decode_image, decode_mask, image_region, open_image

# What decoders raise at bytes that are not theirs, and a json that lacks something, or is made to do harm.
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        key: ``<dataset>-<split>-<9 digits>``.
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 or uint16 ``[H, W]``, class indices of the dataset's own label space; None in a box dataset.
        instances: uint16 ``[H, W]``, the segment ids that ``meta["segments"]`` describes; None where there are none or
            they were not asked for.
        boxes: float32 ``[P, 4]``, x0, y0, x1, y1 in pixels.
        box_classes: int64 ``[P]``, class indices of the dataset's own label space.
        iscrowd: bool ``[P]``, boxes that hold many things not told apart (COCO's word).
        group_of: bool ``[P]``, the same in Open Images' words.
        box_embeddings: float16 ``[P, D]``, teacher embeddings of the boxes; None where the shards have none.
        meta: the sample's whole ``json`` member.
        depth: uint16 ``[H, W]`` in the manifest's unit, 0 where it isn't known; None where there are no depths or they
            were not asked for.
    """

    key: str
    image: npt.NDArray[np.uint8]
    mask: Mask | None
    instances: npt.NDArray[np.uint16] | None
    boxes: npt.NDArray[np.float32]
    box_classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]
    group_of: npt.NDArray[np.bool_]
    box_embeddings: npt.NDArray[np.float16] | None
    meta: Mapping[str, Any] = field(repr=False)
    depth: DepthMap | None = None

    @property
    def path(self) -> str:
        """Of the image file in the dataset, relative to its root; "" where the meta doesn't say it."""
        source = self.meta.get("source")
        return str(source.get("path", "")) if isinstance(source, Mapping) else ""

    @property
    def annotated(self) -> frozenset[int] | None:
        """The indices of the classes that this image was annotated for; None where it has no list of its own."""
        return _annotated(self.meta)

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """What the values of `instances` mean, as in the JSON."""
        listed: Sequence[Mapping[str, Any]] = self.meta.get("segments") or ()
        return listed

    @property
    def pixel_area(self) -> float:
        """How many pixels of the original image a pixel is: above 1 where shards were shrunk."""
        height, width = self.image.shape[:2]
        original = self.meta.get("original_height", height), self.meta.get("original_width", width)
        return float(original[0] * original[1] / (height * width))


@dataclass(frozen=True)
class Decoded:
    """An image and its mask in memory; read like `Encoded`.

    Attributes:
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 or uint16 ``[H, W]``; None where the dataset has no masks.
        instances: segment ids, uint8 or uint16 ``[H, W]``; None where there are none or nobody asked for them.
        depth: uint16 ``[H, W]``, likewise.
    """

    image: npt.NDArray[np.uint8]
    mask: Mask | None
    instances: Mask | None = None
    depth: DepthMap | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def shrinks(self) -> bool:
        return False

    def region(self, box: Region, shrink: int = 1) -> npt.NDArray[np.uint8]:
        x0, y0, x1, y1 = box
        return self.image[y0:y1, x0:x1]

    def mask_region(self, box: Region) -> Mask | None:
        x0, y0, x1, y1 = box
        return None if self.mask is None else self.mask[y0:y1, x0:x1]

    def instances_region(self, box: Region) -> Mask | None:
        x0, y0, x1, y1 = box
        return None if self.instances is None else self.instances[y0:y1, x0:x1]

    def depth_region(self, box: Region) -> DepthMap | None:
        x0, y0, x1, y1 = box
        return None if self.depth is None else self.depth[y0:y1, x0:x1]

    @property
    def nbytes(self) -> int:
        """How much memory it holds, in bytes."""
        return sum(part.nbytes for part in (self.image, self.mask, self.instances, self.depth) if part is not None)


@dataclass(frozen=True)
class Boxes:
    """The boxes of a sample, as in `Sample`."""

    boxes: npt.NDArray[np.float32]
    box_classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]
    group_of: npt.NDArray[np.bool_]
    box_embeddings: npt.NDArray[np.float16] | None


NO_BOXES = Boxes(
    boxes=np.zeros((0, 4), dtype=np.float32),
    box_classes=np.zeros(0, dtype=np.int64),
    iscrowd=np.zeros(0, dtype=np.bool_),
    group_of=np.zeros(0, dtype=np.bool_),
    box_embeddings=None,
)


@dataclass(frozen=True)
class Segments:
    """The segments of a sample, things and stuff.

    Attributes:
        ids: int64 ``[N]``, their values in the map of instances; 0 means no segment.
        classes: int64 ``[N]``, class indices of the dataset's own label space.
        iscrowd: bool ``[N]``, segments that hold many things not told apart.
    """

    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Encoded:
    """One sample as it lies in the shard. Every method decodes only what it is asked for, anew each time.

    Attributes:
        key: ``<dataset>-<split>-<9 digits>``.
        members: the bytes of its files by kind, e.g. ``{"jpg": …, "mask.png": …}``.
        space, annotation_type: of the split.
        where: what errors say.
        size: height and width of the image, pixels, by its header.
        shrinks: whether `region` can be asked for less than full size: in JPEGs.

    Raises, as do all methods:
        SampleError: what was asked for is missing or damaged.
    """

    key: str
    members: Mapping[str, bytes] = field(repr=False)
    space: LabelSpace
    annotation_type: str
    where: str
    size: tuple[int, int] = field(init=False)
    shrinks: bool = field(init=False)

    def __post_init__(self) -> None:
        with self._named():
            header = open_image(self._image)
            object.__setattr__(self, "size", (header.size[1], header.size[0]))
            object.__setattr__(self, "shrinks", header.format == "JPEG")

    def decode(self) -> Sample:
        """The whole sample."""
        with self._named():
            meta = self._meta()
            image = decode_image(self._image)
            instances = self.members.get("instances.png")
            boxes = self._boxes(meta)
            return Sample(
                key=self.key,
                image=image,
                mask=self._mask(None),
                instances=None
                if instances is None
                else decode_mask(instances, "instances.png", self.size).astype(np.uint16, copy=False),
                boxes=boxes.boxes,
                box_classes=boxes.box_classes,
                iscrowd=boxes.iscrowd,
                group_of=boxes.group_of,
                box_embeddings=boxes.box_embeddings,
                meta=meta,
                depth=self.depth_region(None),
            )

    def region(self, box: Region, shrink: int = 1) -> npt.NDArray[np.uint8]:
        """The image within `box` (left, top, right, bottom; multiples of `shrink`), at a `shrink`-th of its size.

        Returns:
            uint8 ``[height // shrink, width // shrink, 3]``.
        """
        with self._named():
            return image_region(self._image, box, shrink)

    def mask_region(self, box: Region) -> Mask | None:
        """The mask within `box` (left, top, right, bottom); None where the dataset has no masks."""
        with self._named():
            return self._mask(box)

    def instances_region(self, box: Region | None) -> Mask | None:
        """The segment ids within `box` (left, top, right, bottom), or all; None where they were not fetched."""
        with self._named():
            data = self.members.get("instances.png")
            return None if data is None else decode_mask(data, "instances.png", self.size, box)

    def depth_region(self, box: Region | None) -> DepthMap | None:
        """The depths within `box` (left, top, right, bottom), or all; None where they were not fetched."""
        with self._named():
            data = self.members.get(DEPTH)
            return None if data is None else decode_depth(data, self.size, box)

    def picture(self) -> Decoded:
        """The whole image and mask, and the segment ids and depths where they were fetched."""
        with self._named():
            image, mask = decode_image(self._image), self._mask(None)
            return Decoded(image, mask, self.instances_region(None), self.depth_region(None))

    def segments(self) -> Segments:
        """The segments, from the json."""
        with self._named():
            entries = self._meta().get("segments") or []
            return Segments(
                ids=np.array([entry["id"] for entry in entries], dtype=np.int64),
                classes=np.array([entry["class_index"] for entry in entries], dtype=np.int64),
                iscrowd=np.array([bool(entry.get("iscrowd", False)) for entry in entries], dtype=np.bool_),
            )

    def boxes(self) -> Boxes:
        """The boxes, from the json."""
        with self._named():
            return self._boxes(self._meta())

    def annotated(self) -> frozenset[int] | None:
        """The indices of the classes that the image was annotated for, from the json; None: it has no own list."""
        with self._named():
            return _annotated(self._meta())

    @property
    def _image(self) -> bytes:
        data = self.members.get("jpg", self.members.get("png"))
        if data is None:
            raise SampleError("no image (jpg or png)")
        return data

    def _mask(self, box: Region | None) -> Mask | None:
        if self.annotation_type not in ("mask", "noisy_mask"):
            return None
        if "mask.png" not in self.members:
            raise SampleError("no mask.png")
        mask = decode_mask(self.members["mask.png"], "mask.png", self.size, box)
        if mask.dtype != self.space.dtype:
            raise SampleError(f"mask.png is {mask.dtype}, but its label space needs {np.dtype(self.space.dtype)}")
        return mask

    def _meta(self) -> dict[str, Any]:
        if "json" not in self.members:
            raise SampleError("no json")
        meta = unpacked(self.members["json"])
        if meta.get("label_space", self.space.hash) != self.space.hash:
            raise SampleError("its label space is not the manifest's")
        return meta

    def _boxes(self, meta: Mapping[str, Any]) -> Boxes:
        entries = meta.get("boxes") or []
        embeddings = None
        if "box_embeddings.npy" in self.members:
            embeddings = np.load(io.BytesIO(self.members["box_embeddings.npy"]), allow_pickle=False)
            if embeddings.ndim != 2 or len(embeddings) != len(entries):
                raise SampleError(f"{len(entries)} boxes but box embeddings {list(embeddings.shape)}")
            if not np.isfinite(embeddings).all():
                raise SampleError("its box embeddings hold values that are not finite")
        corners = np.array([entry["bbox"] for entry in entries], dtype=np.float32).reshape(len(entries), 4)
        if not np.isfinite(corners).all():
            raise SampleError("its boxes hold values that are not finite")
        return Boxes(
            boxes=corners,
            box_classes=np.array([entry["class_index"] for entry in entries], dtype=np.int64),
            iscrowd=np.array([bool(entry.get("iscrowd", False)) for entry in entries], dtype=np.bool_),
            group_of=np.array([bool(entry.get("group_of", False)) for entry in entries], dtype=np.bool_),
            box_embeddings=embeddings,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn whatever a decoder raises into a SampleError that says which sample it was."""
        try:
            yield
        except SampleError as error:
            raise SampleError(error.what, where=self.where) from error
        except UnidentifiedImageError as error:  # whose own words hold an address in memory, new each time
            what = "can't be decoded (an image or mask is in no format that Pillow knows)"
            raise SampleError(what, where=self.where) from error
        except _DAMAGED as error:
            what = f"can't be decoded ({type(error).__name__}: {error})"
            raise SampleError(what, where=self.where) from error
        except (struct.error, Image.DecompressionBombError) as error:
            raise SampleError(f"can't be decoded ({error})", where=self.where) from error


def _annotated(meta: Mapping[str, Any]) -> frozenset[int] | None:
    listed = meta.get(ANNOTATED)
    if listed is None:
        return None
    if not all(type(index) is int for index in listed):
        raise SampleError("its annotated classes are no numbers")
    return frozenset(listed)

"""What a method is given to learn from: views of equal size with all that is known about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from labelmerge.device import at_once
from labelmerge.loading.augment import Photometric, finish

M = TypeVar("M", Tensor, Tensor | None)

# What a part of a batch takes over as it is.
_WHOLE = ("step", "whole", "skipped")


@dataclass(frozen=True)
class Segments:
    """The segments of one view, things and stuff; those that the view cuts off altogether are left out.

    Attributes:
        ids: int64 ``[N]``, their values in `Batch.instances`.
        classes: int64 ``[N]``, as in `Batch.masks`; `IGNORE` for labels that are not in play.
        crowd: bool ``[N]``, segments that hold many things not told apart.
    """

    ids: Tensor
    classes: Tensor
    crowd: Tensor

    def to(self, device: torch.device) -> Segments:
        """The same on `device`."""
        return Segments(*(at_once(part, device) for part in (self.ids, self.classes, self.crowd)))


@dataclass(frozen=True)
class Batch:
    """B views of equal size, H × W. A step has one batch, or one for each size of view.

    Attributes:
        step: t; the batch is a function of it and the seed.
        images: uint8 ``[B, 3, H, W]``, RGB; normalising is left to the device that computes.
        masks: ``[B, H, W]``: the values that the mixture's tables give, or class indices of each sample's own label
            space where it has no tables; `IGNORE` (-1) where there is no label, and everywhere in samples without a
            mask. int64 after `to`; before, the smallest of int16 and int32 that holds them, a quarter or half of it
            to hand over.
        boxes: for each image float32 ``[P, 4]``, x0, y0, x1, y1 in pixels of the view; none in samples with masks.
            Crowds and groups are left out.
        box_classes: for each image int64 ``[P]``, like `masks`.
        box_embeddings: for each image float32 ``[P, D]`` from the shards, or None.
        datasets: for each image its dataset's name, which is its label space's name too.
        dataset_ids: int64 ``[B]``: the place of that name in `Mixture.datasets`.
        annotation_types: for each image ``mask`` | ``noisy_mask`` | ``box`` | ``image`` (without annotations).
        keys: for each image its sample's key.
        skipped: one line for each corrupt sample that was met and replaced.
        unfinished: for each image the change of colour and the blur that `to` will make, where the mixture defers them.
        places: for each image its place among the `whole` samples of the step, all processes and sizes of view
            together: what is drawn for a sample by its place is the same however the step is shared.
        whole: how many samples the step has.
        instances: int32 ``[B, H, W]``, segment ids, 0 for none; None where the method needs no segments.
        segments: for each image what its ids mean; None in datasets without segments, or where none are needed.
        others: further views of the same samples, in the same order, where the method needs several.
        depths: int32 ``[B, H, W]``, in each dataset's own unit, 0 where they aren't known; None where the method needs
            none.
        annotated: for each image int64 class indices of its dataset's own label space: those that it was annotated for;
            None where all images of its dataset were annotated alike. Empty where that is so of all datasets.
        shown: for each image top, bottom, left and right of the part of its view that shows it; the rest is padding.
        shares: float32 ``[B]``, how much of each sample's loss its mask has, where a method mixes images; None: all.
        closed: bool ``[B, C]``, which of a method's C classes do not compete at the labels of each mask, where a method
            mixes images that were annotated for different classes; None: all compete.
    """

    step: int
    images: Tensor
    masks: Tensor
    boxes: list[Tensor]
    box_classes: list[Tensor]
    box_embeddings: list[Tensor | None]
    datasets: list[str]
    dataset_ids: Tensor
    annotation_types: list[str]
    keys: list[str]
    skipped: list[str]
    unfinished: list[Photometric]
    places: list[int]
    whole: int
    instances: Tensor | None = None
    segments: list[Segments | None] = field(default_factory=list)
    others: tuple[Batch, ...] = ()
    annotated: list[Tensor | None] = field(default_factory=list)
    shown: list[tuple[int, int, int, int]] = field(default_factory=list)
    shares: Tensor | None = None
    closed: Tensor | None = None
    depths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, masks as int64, and its images finished there; nothing waits for a GPU.

        Boxes stay where they are: what is cut out of images, and how, is decided on the CPU.
        """
        images = at_once(self.images, device)
        if any(each != Photometric() for each in self.unfinished):
            images = images.clone() if images is self.images else images
            finish(images, self.unfinished)
        return replace(
            self,
            images=images,
            masks=at_once(self.masks, device).long(),
            box_classes=_moved(self.box_classes, device),
            box_embeddings=_moved(self.box_embeddings, device),
            dataset_ids=at_once(self.dataset_ids, device),
            unfinished=[Photometric()] * len(self.unfinished),
            instances=None if self.instances is None else at_once(self.instances, device),
            segments=[None if each is None else each.to(device) for each in self.segments],
            depths=None if self.depths is None else at_once(self.depths, device),
            others=tuple(view.to(device) for view in self.others),
        )

    def pixels_shown(self, row: int) -> int:
        """How many pixels of a view show its image."""
        top, bottom, left, right = self.shown[row]
        return (bottom - top) * (right - left)

    def inside(self, rows: Sequence[int]) -> Tensor | None:
        """bool ``[rows, H, W]``, where these views show their images; None where they do everywhere."""
        whole = self.images[0, 0].numel()
        if all(self.pixels_shown(row) == whole for row in rows):
            return None
        out = torch.zeros(len(rows), *self.images.shape[2:], dtype=torch.bool)
        for view, row in zip(out, rows, strict=True):
            top, bottom, left, right = self.shown[row]
            view[top:bottom, left:right] = True
        return at_once(out, self.images.device)

    def part(self, start: int, stop: int) -> Batch:
        """The batch of samples `start` to `stop` - 1 alone, in the same memory."""
        rows = slice(start, stop)
        each = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*_WHOLE, "others")}
        taken: dict[str, Any] = {name: None if value is None else value[rows] for name, value in each.items()}
        return replace(self, **taken, others=tuple(view.part(start, stop) for view in self.others))

    def pieces(self, count: int) -> list[Batch]:
        """The batch in `count` nearly equal pieces, none of them empty: in fewer where it has fewer samples."""
        size = len(self)
        count = min(count, size)
        if count == 1:
            return [self]
        return [self.part(size * i // count, size * (i + 1) // count) for i in range(count)]

    def pin_memory(self) -> Batch:
        """The same batch, ready for a fast copy to a GPU (called by torch's DataLoader)."""
        return replace(
            self,
            images=self.images.pin_memory(),
            masks=self.masks.pin_memory(),
            instances=None if self.instances is None else self.instances.pin_memory(),
            depths=None if self.depths is None else self.depths.pin_memory(),
            others=tuple(view.pin_memory() for view in self.others),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes every tensor is a file in shared memory. The large ones lie there already; for the many
        # small ones (boxes of each image) copying is cheaper than a file each, of which a process may have 1024 open.
        small = {
            "boxes": [boxes.numpy() for boxes in self.boxes],
            "box_classes": [classes.numpy() for classes in self.box_classes],
            "box_embeddings": [None if vectors is None else vectors.numpy() for vectors in self.box_embeddings],
            "segments": [
                None if each is None else (each.ids.numpy(), each.classes.numpy(), each.crowd.numpy())
                for each in self.segments
            ],
            "annotated": [None if listed is None else listed.numpy() for listed in self.annotated],
            "dataset_ids": self.dataset_ids.numpy(),
        }
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in small}
        return _batch_of, (others, small)


def _moved(parts: Sequence[M], device: torch.device) -> list[M]:
    """Small tensors (or None) on a device, in one copy for all of them."""
    tensors = [part for part in parts if part is not None]
    if not tensors or device.type == "cpu":
        return list(parts)
    moved = iter(torch.split(at_once(torch.cat(tensors), device), [len(part) for part in tensors]))
    return [part if part is None else next(moved) for part in parts]


def _batch_of(others: Mapping[str, Any], small: Mapping[str, Any]) -> Batch:
    """The batch that `Batch.__reduce__` took apart."""
    return Batch(
        **others,
        boxes=[torch.from_numpy(boxes) for boxes in small["boxes"]],
        box_classes=[torch.from_numpy(classes) for classes in small["box_classes"]],
        box_embeddings=[None if vectors is None else torch.from_numpy(vectors) for vectors in small["box_embeddings"]],
        segments=[None if each is None else Segments(*map(torch.from_numpy, each)) for each in small["segments"]],
        annotated=[None if listed is None else torch.from_numpy(listed) for listed in small["annotated"]],
        dataset_ids=torch.from_numpy(small["dataset_ids"]),
    )


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; in a loading process in the shared memory that its reader sees, so it isn't copied."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]  # as in torch's default_collate
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, torch.empty(shape, device="meta").stride())

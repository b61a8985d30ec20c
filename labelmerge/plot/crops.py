"""Crops of the images in shards that show what each label is given to."""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.errors import SampleError
from labelmerge.labels import LabelKey
from labelmerge.progress import Track, no_track
from labelmerge.shardset.sample import Encoded
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.text import counted

SIDE = 96
"""Of a crop, in pixels."""
CROPS = 3
"""Of a label, where nobody says how many."""

_GAP = 3  # transparent pixels between two crops
_LOOK = 2000  # samples of a split whose json is read
_TRIED = 2  # times as many samples as crops are wanted are decoded: the best of them are shown
_AROUND = 1.5  # a crop's side, in sides of what it shows
_LEAST = 32  # pixels of the image that a crop shows at least
_COARSE = 512  # masks are thinned out to this many pixels a side before their parts are measured
_ENOUGH = 0.05  # of the image: larger parts are not preferred to parts of this size
_DIM = 0.45  # what is left of the brightness around what a crop shows
_OUTLINE = (255, 255, 255)  # of what a crop shows, one pixel wide: seen in dark photographs too
_QUALITY = 55  # of WebP

_log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]


class _Crop(NamedTuple):
    share: float  # of the image, `_ENOUGH` at most
    pixels: Pixels  # [SIDE, SIDE, 3]


def label_crops(
    folders: Sequence[Path], bank: Bank, *, each: int = CROPS, track: Track = no_track
) -> dict[LabelKey, bytes]:
    """For each label that the shards hold, a strip of crops of the images that it is given to.

    A crop is a square around the largest connected part of the label's mask, or around a box; what is the label's is
    outlined, and all else darker. Samples are chosen by chance, so that the frames of one film don't fill a strip. At
    most 2,000 samples of a split are searched, the same ones every time. A sample that can't be read is left out and
    counted in the log.

    Args:
        folders: what `labelmerge shard` wrote: splits, datasets, or folders of datasets.
        bank: the labels; datasets that it lacks are left out.
        each: how many crops a label has at most.
        track: progress, one step for each image that is decoded.

    Returns:
        WebP images, `SIDE` pixels high, by label.

    Raises:
        ShardError: no manifest there, or a damaged one.
        BankError: the shards have other names for the bank's labels.
    """
    crops: dict[LabelKey, list[_Crop]] = defaultdict(list)
    wanted: list[tuple[ShardSet, int, list[int]]] = []
    known = set(bank.datasets())
    for folder in find_splits(folders):
        shards = ShardSet.open(folder)
        if shards.dataset in known:
            bank.refuse_other_names(shards.space)
            wanted += [(shards, *one) for one in _worth_a_look(shards, each * _TRIED)]
    lost = 0
    for shards, number, indices in track(wanted, "cutting crops of the labels", len(wanted)):
        try:
            for index, crop in _cut(shards.fetch(number), indices):
                crops[shards.space.name, index].append(crop)
        except SampleError as error:
            _log.debug("no crops of %s", error)
            lost += 1
    if lost:
        _log.warning("%s can't be read and show nothing on the page: see `labelmerge verify`", counted(lost, "sample"))
    return {key: _strip(_best(own, each)) for key, own in crops.items()}


def _best(crops: Sequence[_Crop], each: int) -> list[_Crop]:
    """The crops of the largest parts; where more are large enough than are wanted, some from all over the split."""
    enough = [crop for crop in crops if crop.share >= _ENOUGH]
    if each > 1 and len(enough) > each:
        return [enough[place * (len(enough) - 1) // (each - 1)] for place in range(each)]
    return sorted(crops, key=lambda crop: -crop.share)[:each]


def _worth_a_look(shards: ShardSet, most: int) -> Iterator[tuple[int, list[int]]]:
    """Samples to decode, in their order, each with the labels to cut out of it: at most `most` for a label."""
    left: dict[int, int] = defaultdict(lambda: most)
    chosen = {}
    for number in np.random.default_rng(0).permutation(len(shards))[:_LOOK].tolist():
        try:
            meta = shards.meta(number)
        except SampleError:
            continue  # a sample that is decoded says so
        found = [index for index in _labels_of(meta) if left[index] > 0]
        for index in found:
            left[index] -= 1
        if found:
            chosen[number] = found
    yield from sorted(chosen.items())


def _labels_of(meta: Mapping[str, Any]) -> list[int]:
    boxes = (entry["class_index"] for entry in meta.get("boxes") or () if not _many(entry))
    return sorted({*(meta.get("present") or ()), *boxes})


def _many(entry: Mapping[str, Any]) -> bool:
    """Whether a box holds many things that are not told apart."""
    return bool(entry.get("iscrowd") or entry.get("group_of"))


def _cut(sample: Encoded, indices: Sequence[int]) -> Iterator[tuple[int, _Crop]]:
    picture = sample.picture()
    height, width = picture.size
    if picture.mask is None:
        boxes = sample.boxes()
        alone = ~(boxes.iscrowd | boxes.group_of)
        for index in indices:
            own = boxes.boxes[alone & (boxes.box_classes == index)]
            if len(own):
                sizes = (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])
                x0, y0, x1, y1 = own[sizes.argmax()].tolist()
                shown = np.zeros((height, width), dtype=np.bool_)
                shown[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
                yield index, _crop(picture.image, shown, (x0, y0, x1, y1), float(sizes.max()))
        return
    for index in indices:
        shown = picture.mask == index
        if (part := _largest_part(shown)) is not None:
            yield index, _crop(picture.image, shown, *part)


def _largest_part(shown: npt.NDArray[np.bool_]) -> tuple[Box, float] | None:
    """The box around the largest connected part, and its area in pixels; None where there is none."""
    from scipy import ndimage

    step = max(1, max(shown.shape) // _COARSE)
    parts, _ = ndimage.label(shown[::step, ::step])
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 2:
        return None
    largest = int(sizes[1:].argmax()) + 1
    rows, columns = ndimage.find_objects(parts)[largest - 1]
    box = (columns.start * step, rows.start * step, columns.stop * step, rows.stop * step)
    return box, float(sizes[largest]) * step**2


def _crop(image: Pixels, shown: npt.NDArray[np.bool_], box: Box, area: float) -> _Crop:
    """The square around a box, moved into the image, with all that is not shown made dark."""
    height, width = shown.shape
    x0, y0, x1, y1 = box
    side = round(min(max(_AROUND * max(x1 - x0, y1 - y0), _LEAST), height, width))
    left = round(min(max((x0 + x1 - side) / 2, 0), width - side))
    top = round(min(max((y0 + y1 - side) / 2, 0), height - side))
    cut = np.s_[top : top + side, left : left + side]
    pixels = np.asarray(Image.fromarray(image[cut]).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    light = np.asarray(Image.fromarray(shown[cut].astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX))
    pixels *= _DIM + (1 - _DIM) * light[..., None]
    pixels[_edge(light >= 0.5)] = _OUTLINE
    return _Crop(min(area / (height * width), _ENOUGH), np.rint(pixels).astype(np.uint8))


def _edge(shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What is not shown and touches what is, by a side."""
    grown = np.pad(shown, 1)
    near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = near & ~shown
    return edge


def _strip(crops: Sequence[_Crop]) -> bytes:
    strip = np.zeros((SIDE, len(crops) * (SIDE + _GAP) - _GAP, 4), dtype=np.uint8)
    for place, crop in enumerate(crops):
        left = place * (SIDE + _GAP)
        strip[:, left : left + SIDE, :3] = crop.pixels
        strip[:, left : left + SIDE, 3] = 255
    out = io.BytesIO()
    Image.fromarray(strip).save(out, "webp", quality=_QUALITY, method=4)
    return out.getvalue()

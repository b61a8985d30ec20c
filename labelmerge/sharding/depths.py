"""Depths of a dataset: pictures that lie beside the images, or what a reader gives, as the shards have them.

Every reader whose images are files takes `layout.depth`, a pattern as for masks: a single-channel picture of 8 or 16
bits, of 32-bit numbers (TIFF), or an array of NumPy's (.npy). `options.depth_unit` says what a value is, and
`options.depth_unknown` lists values that mean "not known", besides 0, what is below it, and what is no number.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.pictures.images import decode_exact, read_file, stored_values
from labelmerge.sharding.source.layout import counterpart
from labelmerge.sharding.source.source import Source
from labelmerge.shardset.depth_maps import MOST, RELATIVE, UNKNOWN, DepthMap, metres
from labelmerge.shardset.pixels import refuse_huge

LAYOUT = "depth"
OPTIONS = ("depth_unit", "depth_unknown")
KEY = "depths_key"  # of readers whose images lie in one file

TOO_FAR = "depths_too_far_to_be_stored"
"""The note that counts pixels whose depth does not fit 16 bits, and is not known in the shards therefore."""

_MILLIMETRES = "mm"

Array = npt.NDArray[Any]


def has_depth(source: Source) -> bool:
    """Whether samples of a source have depths."""
    return LAYOUT in source.layout or KEY in source.options


@dataclass(frozen=True)
class Meaning:
    """What a dataset's own values mean, and what becomes of them.

    Attributes:
        unit: of the values in the shards: the dataset's own, or millimetres in place of larger units.
        factor: from a dataset's value to one of the shards.
        unknown: values of the dataset that are no depths.
    """

    unit: str
    factor: float
    unknown: tuple[float, ...]

    @classmethod
    def of(cls, source: Source) -> Meaning:
        """What the recipe says. Raises RecipeError."""
        said, where = source.options.get("depth_unit"), source.recipe.path
        if not isinstance(said, str):
            raise RecipeError(
                f"options.depth_unit is {said!r}: beside depths, it must say what a value is",
                where=where,
                fix='As in depth_unit = "mm"; docs/recipes.md lists the units',
            )
        try:
            metre = metres(said)
        except ValueError as error:
            raise RecipeError(f"options.depth_unit: {error}", where=where) from error
        unknown = source.options.get("depth_unknown", [])
        if not isinstance(unknown, list) or not all(type(value) in (int, float) for value in unknown):
            raise RecipeError("options.depth_unknown must be a list of numbers", where=where)
        small = metre is None or said in ("mm",) or "/" in said
        return cls(said if small else _MILLIMETRES, 1.0 if small or metre is None else metre * 1000, tuple(unknown))


def depth_map(values: Array, meaning: Meaning, where: Path) -> tuple[DepthMap, int]:
    """A dataset's depths as the shards have them, and how many of them were too far.

    Values are rounded; known ones never to 0. Relative ones that are no whole numbers are scaled so that the largest
    fits.

    Args:
        values: ``[H, W]`` numbers.

    Raises:
        SampleError: they are neither whole numbers nor floats, or of another shape.
    """
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise SampleError(f"its depths are {values.dtype} {list(values.shape)}, not numbers [H, W]", where=where)
    wide = values.astype(np.float64)
    known = np.isfinite(wide) & (wide > 0)
    for value in meaning.unknown:
        known &= wide != value
    wide = np.where(known, wide * meaning.factor, 0.0)
    most = float(wide.max(initial=0.0))
    if meaning.unit == RELATIVE and (most > MOST or (wide != np.floor(wide)).any()):
        wide *= MOST / most
    rounded = np.where(known, np.maximum(np.rint(wide), 1.0), UNKNOWN)
    far = rounded > MOST
    return np.where(far, UNKNOWN, rounded).astype(np.uint16), int(np.count_nonzero(far))


def depth_files(source: Source, path: str) -> tuple[str, ...]:
    """Where the depths of the image at `path` may lie, under the root; () where the source has no pictures of them."""
    return tuple(counterpart(source, path, LAYOUT)) if LAYOUT in source.layout else ()


def read_depth(source: Source, path: str) -> tuple[DepthMap, int]:
    """The depths of the image at `path`, from the first of its places that exists, as `depth_map` gives them.

    Raises:
        SampleError: none exists, or it can't be read.
        RecipeError: the recipe doesn't say what they mean.
    """
    meaning = Meaning.of(source)
    places = depth_files(source, path)
    place = next((place for place in places if os.path.isfile(source.root / place)), None)
    if place is None:
        raise SampleError(f"no depth: expected {' or '.join(places)}", where=source.root / path)
    where = source.root / place
    data = read_file(where)
    values = _array(data, where) if place.lower().endswith(".npy") else stored_values(decode_exact(data, where), data)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2:
        raise SampleError("is a colour picture, not one of depths", where=where)
    return depth_map(values, meaning, where)


def _array(data: bytes, where: Path) -> Array:
    """The array of a .npy file; its header is read before the numbers, since it may claim any size."""
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = header(stream)[0]
        refuse_huge((shape[1], shape[0]), where)
        stream.seek(0)
        array: Array = np.load(stream, allow_pickle=False)
    except SampleError:
        raise
    except Exception as error:  # NumPy evaluates the header as Python
        raise SampleError("is not a readable array of NumPy's", where=where) from error
    return array

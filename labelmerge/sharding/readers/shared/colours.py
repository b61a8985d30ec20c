"""From colours to class indices: the `[ids]` of a recipe whose masks show every class in an exact colour of its own.

All keys go by colour, written as in CamVid's label_colors.txt, "128 64 128": `map` (colour → class index or name;
several colours may be one class), `ignore` (colours that mean "no label"), and `other`, for any other colour:
``"error"`` (the default: the sample is skipped) or ``"ignore"``. Colours that are nearly right are other colours:
pictures that were resized smoothly or saved as JPEG can't be read back.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.readers.shared.classes import class_index
from labelmerge.sharding.source.source import Source
from labelmerge.shardset.run_lengths import RunLengths, pixel_counts

IDS = ("ignore", "map", "other")

_COLOUR = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)\s*", re.ASCII)
_SHOWN = 3


def goes_by_colour(source: Source) -> bool:
    """Whether `[ids]` name colours, and not values."""
    named = (*source.ids.get("map", {}), *source.ids.get("ignore", []))
    return any(isinstance(name, str) and _COLOUR.fullmatch(name) for name in named)


def class_mask(stored: npt.NDArray[np.uint32], source: Source, where: Path) -> npt.NDArray[Any]:
    """[H, W] class indices of colours, red << 16 | green << 8 | blue. Raises SampleError where one is unknown."""
    colours, classes = table(source)
    runs = RunLengths(stored)
    found = runs.of(stored)
    places = np.minimum(np.searchsorted(colours, found), len(colours) - 1)
    strange = colours[places] != found
    if strange.any() and not values.ignores_others(source):
        unknown, which = np.unique(found[strange], return_inverse=True)
        counts = pixel_counts(which, runs.lengths[strange])
        listed = ", ".join(
            f"{value >> 16} {value >> 8 & 255} {value & 255} ({counts[place]} px)"
            for place, value in enumerate(unknown[:_SHOWN].tolist())
        )
        more = f", … {len(unknown)} in all" if len(unknown) > _SHOWN else ""
        raise SampleError(f"colours unknown to the recipe: {listed}{more}", where=where)
    mask: npt.NDArray[Any] = runs.paint(np.where(strange, source.space.ignore_index, classes[places]))
    return mask


@lru_cache(maxsize=1)
def table(source: Source) -> tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]:
    """The known colours, packed and ascending, and the class index of each. Raises RecipeError."""
    values.ignores_others(source)
    where, space = source.recipe.path, source.space
    targets = source.ids.get("map", {})
    meanings: dict[int, int] = {}
    for colour, target in targets.items():
        index = class_index(space, target, where)
        if meanings.setdefault(_packed(colour, source), index) != index:
            raise RecipeError(f"ids.map gives two classes to the colour {colour!r}", where=where)
    meanings |= {_packed(colour, source): space.ignore_index for colour in source.ids.get("ignore", [])}
    if not meanings:
        raise RecipeError("ids.map must name colours", where=where)
    colours = sorted(meanings)
    return np.array(colours, dtype=np.uint32), np.array([meanings[colour] for colour in colours], dtype=space.dtype)


def _packed(colour: object, source: Source) -> int:
    match = _COLOUR.fullmatch(colour) if isinstance(colour, str) else None
    red, green, blue = map(int, match.groups()) if match else (256, 256, 256)
    if max(red, green, blue) > 255:
        raise RecipeError(f'ids: {colour!r} is not a colour such as "128 64 128"', where=source.recipe.path)
    return red << 16 | green << 8 | blue

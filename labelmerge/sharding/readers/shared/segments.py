"""From pictures that number the objects of an image to segments."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.sharding.source.source import Annotation, Segment, Source
from labelmerge.shardset.run_lengths import RunLengths

_MAX_SEGMENTS = int(np.iinfo(np.uint16).max)

# Of a stored value: the dataset's own number of the class (None where it has none), and whether the value stands for
# a region of that class in which objects are not told apart; None where the value is not an object.
Meaning = tuple[int | None, bool] | None


def annotation(
    source: Source,
    mask: npt.NDArray[Any],
    stored: npt.NDArray[Any],
    meaning: Callable[[int], Meaning],
    things: Collection[int],
    where: Path,
) -> Annotation:
    """A class mask and the segments in it: one for each stored value, numbered from 1 in the order of the values.

    A segment's class is the one that the mask has on most of its pixels; on the few others, as resizing leaves them,
    the instances mask is 0. Segments without a label are left out.

    Args:
        source: whose label space.
        mask: [H, W] class indices.
        stored: [H, W] integers that number the objects.
        meaning: what a stored value says.
        things: class indices whose regions without objects told apart are crowds.
        where: the picture.

    Raises:
        SampleError: mask and picture differ in size, or there may be more segments than 16 bits can number.
    """
    if stored.shape != mask.shape:
        (height, width), (other_height, other_width) = mask.shape, stored.shape
        raise SampleError(f"instances are {other_width}x{other_height}, but the mask is {width}x{height}", where=where)
    runs = RunLengths(stored, mask)
    values, places = np.unique(runs.of(stored), return_inverse=True)
    labels = runs.of(mask)
    if len(values) > _MAX_SEGMENTS:
        raise SampleError(f"has more than {_MAX_SEGMENTS} different values", where=where)
    most, elsewhere = _commonest(places, labels, runs.lengths)

    numbers = np.zeros(len(values), dtype=np.uint16)
    segments: list[Segment] = []
    strays = 0
    for place, (value, index) in enumerate(zip(values.tolist(), most.tolist(), strict=True)):
        said = meaning(value)
        if said is None or index == source.space.ignore_index:
            continue
        category, together = said
        number = index if category is None else category
        segments.append(Segment(len(segments) + 1, index, number, together and index in things, str(value)))
        numbers[place] = len(segments)
        strays += int(elsewhere[place])
    belongs = most[places] == labels
    return Annotation(
        mask=mask,
        instances=runs.paint(numbers[places] * belongs),
        segments=tuple(segments),
        notes={"instance_pixels_of_another_class": strays},
    )


def _commonest(
    places: npt.NDArray[np.intp], labels: npt.NDArray[Any], weights: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """For each place, the label with the largest weight (of equal ones the smallest), and the weight of all others."""
    order = np.lexsort((labels, places))
    places, labels, weights = places[order], labels[order], weights[order]
    first = np.flatnonzero(np.append(True, (places[1:] != places[:-1]) | (labels[1:] != labels[:-1])))
    places, labels, weights = places[first], labels[first], np.add.reduceat(weights, first)
    order = np.lexsort((labels, -weights, places))
    places, labels, weights = places[order], labels[order], weights[order]
    first = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
    return labels[first], np.add.reduceat(weights, first) - weights[first]

"""What can be measured on a set: counts of every image, which add up over images and processes, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Counts = TypeVar("Counts")


class Truth(Protocol):
    """An image's annotation."""

    @property
    def key(self) -> str: ...
    @property
    def mask(self) -> npt.NDArray[np.integer] | None:
        """``[H, W]`` class indices of the dataset's label space; None where the dataset has no masks."""

    @property
    def annotated(self) -> frozenset[int] | None:
        """The indices of the classes that the image was annotated for; None where it has no list of its own."""


class SegmentedTruth(Truth, Protocol):
    """An image's annotation with its segments."""

    @property
    def instances(self) -> npt.NDArray[np.integer] | None:
        """``[H, W]`` segment ids, 0 for none; None where the dataset has no segments."""

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """What the ids mean: each ``id``, ``class_index`` and ``iscrowd``, as in a sample's JSON."""

    @property
    def pixel_area(self) -> float:
        """How many pixels of the original image a pixel is: above 1 where shards were shrunk."""


class DeepTruth(Truth, Protocol):
    """An image's annotation with its depths."""

    @property
    def depth(self) -> npt.NDArray[np.uint16] | None:
        """``[H, W]``, 0 where it isn't known; None where the dataset has no depths."""


class Task(Protocol[Counts]):
    """What is measured on one set."""

    @property
    def asks(self) -> Literal["classes", "segments", "instances", "depth"]:
        """What of a predictor: the label of every pixel (``classes``), ``segments``, ``instances``, or depths."""

    def nothing(self) -> Counts:
        """The counts before any image."""

    def count(self, truth: Any, prediction: Any) -> Counts:
        """Those of one image; picklable. Raises SampleError where the annotation can't be used.

        Args:
            truth: a `Truth`; a `SegmentedTruth` where segments or instances are asked for, a `DeepTruth` for depths.
        """

    def total(self, counts: list[Counts]) -> Counts:
        """Those of several parts together, in whatever order the parts were counted."""

    def measured(self, counts: Counts) -> bool:
        """Whether there was anything to measure."""

    def figures(self, counts: Counts) -> Any:
        """What the counts come to."""

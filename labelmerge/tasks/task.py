"""What can be measured on a set: counts of every image, which add up over images and processes, and their figures."""

from __future__ import annotations

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


class Task(Protocol[Counts]):
    """What is measured on one set.

    Attributes:
        asks: what of a predictor: the label of every pixel (``classes``), or ``segments``.
    """

    asks: Literal["classes", "segments"]

    def nothing(self) -> Counts:
        """The counts of no image."""

    def count(self, truth: Truth, prediction: Any) -> Counts:
        """Those of one image; picklable. Raises SampleError where the annotation can't be used."""

    def total(self, counts: list[Counts]) -> Counts:
        """Those of several parts together, in whatever order the parts were counted."""

    def measured(self, counts: Counts) -> bool:
        """Whether there was anything to measure."""

    def figures(self, counts: Counts) -> Any:
        """What the counts come to."""

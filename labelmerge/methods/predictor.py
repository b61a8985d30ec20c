"""A trained learner in use: images and labels in, a label for every pixel out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmerge.bank.bank import Bank
from labelmerge.device import is_out_of_memory
from labelmerge.errors import SampleError, UsageError
from labelmerge.labels import LabelKey, LabelSpace
from labelmerge.model.views import Views

_THINGS = "Use a run of `train --method lmseg`, which tells things apart"


@dataclass(frozen=True, eq=False)
class LabelList:
    """The K labels to choose from.

    Attributes:
        names: what they are called.
        texts: what their vectors were made from.
        keys: the labels of datasets that they are; None for those that are no dataset's.
        vectors: float32 ``[K, C]``.
        several: where labels may have several vectors, those of each, float32 ``[n, C]``, in place of `vectors`; a
            label scores the largest of its vectors' scores, and one that has none is never predicted.
        divisors: for each vector of `several` what its cosines are divided by, float32 ``[n]``; None: by 1.
        columns: the run's columns that are among them, by name; () where labels are asked for by their texts.
        things: which of them are things, whose segments stay apart; those of the others are one segment for each
            label. None: all stay apart.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    keys: tuple[LabelKey | None, ...]
    vectors: npt.NDArray[np.float32]
    several: tuple[npt.NDArray[np.float32], ...] | None = None
    divisors: tuple[npt.NDArray[np.float32], ...] | None = None
    columns: tuple[tuple[str, ...], ...] = ()
    things: tuple[bool, ...] | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """How many vectors each label has, those of zeros left out."""
        every = self.vectors[:, None] if self.several is None else self.several
        return tuple(int(own.any(axis=1).sum()) for own in every)

    @classmethod
    def of(cls, space: LabelSpace, bank: Bank) -> LabelList:
        """All classes of a label space, each by its own row of the bank. Raises BankError where it lacks some, or
        has other names for them."""
        bank.refuse_other_names(space)
        texts = tuple(bank.texts[row] for row in bank.positions(space.keys))
        return cls(space.names, texts, space.keys, bank.rows(space.keys))


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """An image in segments, things and stuff.

    Attributes:
        ids: int32 ``[H, W]``, 0 where there is none.
        labels: int64 ``[N]``, the label of segments 1 … N, its position in the list.
        scores: float32 ``[N]``, how sure each is, 0..1.
    """

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def are_numbers(scores: Tensor) -> Tensor:
    """Whether scores ``[P, …]`` are finite, bool: where an embedding is not, no label's score is."""
    return scores[0].isfinite().all()


def refuse_no_numbers(finite: Tensor) -> None:
    """Raise SampleError where some of what `are_numbers` gave is false; waits for a GPU."""
    if not finite.all():
        raise SampleError("the network's answer is not a number everywhere, so no label can be read off it")


@dataclass(frozen=True, eq=False)
class Instances:
    """The things of an image, each with a mask of its own; masks may overlap.

    Attributes:
        labels: int64 ``[N]``, positions in the list.
        scores: float32 ``[N]``, 0..1, descending.
        masks: as COCO's run lengths (pycocotools).
    """

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    masks: tuple[dict[str, Any], ...]


class Predictor(ABC):
    """Segments images with one list of labels, each image shown in the same way.

    Attributes:
        positions: int64 ``[P]``, the labels that `scores` has rows for, ascending: labels that can't be told apart
            have one row, that of the first.
        predicted_as: int64 ``[K]``, the label that is predicted for each label: itself, an earlier one that it can't
            be told from, or -1 where it is never predicted.
        views: how images are shown.
        device: where.
    """

    positions: npt.NDArray[np.int64]
    predicted_as: npt.NDArray[np.int64]
    views: Views
    device: torch.device

    @abstractmethod
    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The score of each label at each pixel, one stripe of rows after the other.

        Args:
            image: ``[H, W, 3]`` RGB.

        Yields:
            The rows, and float32 ``[P, rows, W]``; the largest is predicted. Where the network's answer is no number,
            neither are the scores (see `refuse_no_numbers`).
        """

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The probability of each label at each pixel, as `scores`: values above 0 that add up to 1 over the labels.

        Raises:
            UsageError: the method has no probabilities.
        """
        raise UsageError("this checkpoint's method scores labels, but does not say how likely they are")

    def classes(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """The label of every pixel: ``[H, W]`` positions in the list. Among equal scores the first label wins.

        Raises:
            SampleError: the image is too large for the device's memory, or the network's answer is not a number.
        """
        with self.memory_faults(image):
            rows, finite = [], []
            for _, scores in self.scores(image):
                rows.append(scores.argmax(dim=0))
                finite.append(are_numbers(scores))
            chosen = torch.cat(rows).cpu()  # a GPU is waited for here alone
            refuse_no_numbers(torch.stack(finite))
        labels: npt.NDArray[np.int64] = self.positions[chosen.numpy()]
        return labels

    @contextmanager
    def memory_faults(self, image: npt.NDArray[np.uint8]) -> Iterator[None]:
        """Turns running out of memory into a SampleError that says what to do."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = max(self.views.sizes(*image.shape[:2]))
            raise SampleError(
                f"at {width}x{height} pixels the image does not fit into the memory of {self.device}",
                fix="Use a smaller --short-edge, scale or --window"
                + (", or --device cpu" if self.device.type != "cpu" else ""),
            ) from error

    def segments(self, image: npt.NDArray[np.uint8]) -> SegmentMap:
        """Things and stuff one by one. Raises UsageError where the method knows no segments."""
        raise UsageError("this checkpoint's method gives every pixel a label, and knows no segments", fix=_THINGS)

    def instances(self, image: npt.NDArray[np.uint8]) -> Instances:
        """Things with scores, sure or not. Raises UsageError where the method knows none."""
        raise UsageError("this checkpoint's method gives every pixel a label, and knows no instances", fix=_THINGS)

    def depth(
        self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """The depth of every pixel, up to a scale above 0 and a shift, which are the image's own.

        Args:
            image: ``[H, W, 3]`` RGB.
            labels: ``[H, W]``, positions in the list, -1 where they aren't known; where the learner takes labels.

        Returns:
            ``[H, W]``; it grows with the distance.

        Raises:
            UsageError: the method knows no depths.
            SampleError: the image is too large for the device's memory, the network's answer is not a number, or
                labels are missing.
        """
        raise UsageError("this checkpoint's method labels pixels, and knows no depths")

    def protocol(self) -> Mapping[str, Any]:
        """How labels are decided, for results.json."""
        return {}

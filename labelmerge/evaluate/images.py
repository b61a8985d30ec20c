"""How well each image was segmented, worst first: which ones to look at. ``results.images.csv``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmerge.labels import LabelSpace
from labelmerge.shardset.samples import LabelledImage
from labelmerge.tasks.semantic import Metrics, SemanticCounts, worst_mistakes
from labelmerge.text import csv_text

HEADER = ("set", "key", "image", "labelled_pixels", "pixel_accuracy", "miou", "worst_class", "taken_for", "pixels")


@dataclass(frozen=True)
class ImageResult:
    """One image with labelled pixels.

    Attributes:
        key: of the sample.
        image: path of the image in its dataset, relative to the root; "" where the sample doesn't say.
        labelled: its pixels with a label.
        pixel_accuracy, miou: as of a set (`Metrics`), 0..1; the classes are those labelled or predicted in this image.
        mistake: positions of a class and of what most of its pixels were wrongly taken for, and how many; None where
            all is right.
    """

    key: str
    image: str
    labelled: int
    pixel_accuracy: float
    miou: float
    mistake: tuple[int, int, int] | None

    @classmethod
    def of(cls, picture: LabelledImage, counts: SemanticCounts) -> ImageResult | None:
        """What was counted of an image; None where no pixel has a label."""
        metrics = Metrics.of(counts.confusion)
        if math.isnan(metrics.pixel_accuracy):
            return None
        worst = [(each.truth, each.prediction, each.pixels) for each in worst_mistakes(counts.confusion, 1)]
        labelled = int(metrics.truth_pixels.sum())
        mistake = worst[0] if worst else None
        return cls(picture.key, picture.path, labelled, metrics.pixel_accuracy, metrics.miou, mistake)


def worst_first(images: Iterable[ImageResult]) -> list[ImageResult]:
    """By pixel accuracy, then by key."""
    return sorted(images, key=lambda image: (image.pixel_accuracy, image.key))


def images_path(results: Path) -> Path:
    """Where the table lies that belongs to a results.json."""
    return results.with_name(f"{results.stem}.images.csv")


def images_table(sets: Iterable[tuple[str, LabelSpace, Sequence[ImageResult]]]) -> str:
    """CSV with the columns `HEADER`; figures are shares of 1.

    Args:
        sets: name, label space and images of each, in the order in which they are to stand.
    """
    rows: list[Sequence[object]] = [HEADER]
    for name, space, images in sets:
        for image in images:
            truth, prediction, pixels = image.mistake or (None, None, 0)
            named = ("" if place is None else space.names[place] for place in (truth, prediction))
            figures = (f"{image.pixel_accuracy:.4f}", f"{image.miou:.4f}")
            rows.append((name, image.key, image.image, image.labelled, *figures, *named, pixels))
    return csv_text(rows)

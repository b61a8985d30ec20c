"""Example predictions: a few images of each set with their truth, chosen by their place and not by their result."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.colours import palette
from labelmerge.files import output_faults, write_bytes
from labelmerge.labels import LabelSpace
from labelmerge.shardset.samples import LabelledImage
from labelmerge.tasks.semantic import Semantic

EXAMPLES = 4
"""Of each set, where nobody says how many."""
PARTS = ("image", "truth", "prediction")
"""What an example has a picture of, in this order."""

_SIDE = 320  # pixels of the longer side of a picture; smaller images keep their size
_QUALITY = 80  # of the images' WebP; the masks lose nothing
_UNLABELLED = (96, 96, 96)
_NAME = re.compile(r".+-\d+\.(?:image|truth|prediction)\.webp", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One image as it was labelled and as it was segmented.

    Attributes:
        key: of the sample.
        labelled, right: pixels of the image that have a label, and of these those that are right.
        classes: positions in the label space, of the classes that are labelled or predicted, the most frequent first.
        pictures: WebP, one for each of `PARTS`; the masks in the classes' colours (`labelmerge.colours.palette` of the
            whole label space), dark grey where there is no label.
        number: the sample's place in its set.
    """

    key: str
    labelled: int
    right: int
    classes: tuple[int, ...]
    pictures: tuple[bytes, ...]
    number: int = 0

    def to_json(self, space: LabelSpace) -> dict[str, Any]:
        """One entry of a set's ``examples`` in results.json."""
        return {
            "number": self.number,
            "key": self.key,
            "pixel_accuracy": self.right / self.labelled if self.labelled else None,
            "classes": [space.names[position] for position in self.classes],
            "sha256": pictures_hash(self.pictures),
        }


def pictures_hash(pictures: Sequence[bytes]) -> str:
    """What tells whether pictures are those that a results.json speaks of."""
    return hashlib.sha256(b"".join(pictures)).hexdigest()


def chosen(numbers: Sequence[int], most: int) -> list[int]:
    """Which of the samples become examples: the middle one of each of `most` equal parts of their list.

    They depend on nothing but how many there are, so all runs that are measured on a set show the same ones, and no
    result has a say in it.
    """
    count = min(most, len(numbers))
    return [numbers[(2 * part + 1) * len(numbers) // (2 * count)] for part in range(count)]


def draw_example(picture: LabelledImage, prediction: npt.NDArray[np.int64], task: Semantic) -> Example:
    """The pictures of one image, and how much of it is right.

    Args:
        prediction: ``[H, W]`` positions in the task's label space.
    """
    from PIL import Image

    counts = task.count(picture, prediction)
    image = Image.fromarray(picture.image)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    truth = task.positions(picture)
    rows, columns = (
        (np.arange(size) * 2 + 1) * whole // (2 * size)
        for size, whole in zip(reversed(image.size), truth.shape, strict=True)
    )
    masks = [mask[np.ix_(rows, columns)] for mask in (truth, prediction)]
    shown = np.bincount(np.concatenate([mask[mask >= 0] for mask in masks]), minlength=len(task.space))
    colours = np.vstack([palette(task.space.names), np.array([_UNLABELLED], np.uint8)])  # the last one is that of -1
    pixels = [_webp(image, quality=_QUALITY), *(_webp(Image.fromarray(colours[m]), lossless=True) for m in masks)]
    return Example(
        key=picture.key,
        labelled=int(counts.confusion.sum()),
        right=int(np.diag(counts.confusion).sum()),
        classes=tuple(int(k) for k in np.argsort(-shown, kind="stable") if shown[k]),
        pictures=tuple(pixels),
    )


def _webp(image: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "webp", method=4, **options)
    return stream.getvalue()


def examples_folder(results: Path) -> Path:
    """Where the pictures lie that belong to a results.json."""
    return results.with_name(f"{results.stem}.examples")


def picture_paths(results: Path, name: str, number: int) -> list[Path]:
    """The pictures of a set's example, one for each of `PARTS`."""
    return [examples_folder(results) / f"{name}-{number:06d}.{part}.webp" for part in PARTS]


def write_examples(results: Path, examples: Sequence[tuple[str, Example]]) -> None:
    """Write the pictures of sets' examples, and remove those of an earlier measurement. Raises OutputError."""
    folder = examples_folder(results)
    written = set()
    for name, example in examples:
        for path, data in zip(picture_paths(results, name, example.number), example.pictures, strict=True):
            write_bytes(path, data)
            written.add(path.name)
    with output_faults(folder):
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name not in written and _NAME.fullmatch(path.name):
                    path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

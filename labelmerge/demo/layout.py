"""What the toy datasets' layouts share."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.demo.worlds import UNLABELLED, ToySample, World
from labelmerge.files import write_bytes

LEAST_PIXELS = 12  # annotators don't outline what is smaller than this


class Layout(ABC):
    """What all layouts share: where they write, and their own random numbers."""

    def __init__(self, root: Path, world: World, seed: int) -> None:
        self.root, self.world = root, world
        self.rng = np.random.default_rng([seed, 4, len(world.dataset), *world.dataset.encode()])

    @abstractmethod
    def add(self, sample: ToySample) -> None:
        """Write one image and its annotation."""

    def close(self) -> None:  # noqa: B027 (most layouts have nothing of the kind)
        """Write what is one file for the whole dataset."""

    def write_image(self, path: str, sample: ToySample) -> None:
        write_bytes(self.root / path, encode_image(sample.image, self.world.quality))

    def write_mask(self, path: str, mask: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
        write_bytes(self.root / path, png(Image.fromarray(mask)))


def encode_image(image: npt.NDArray[np.uint8], quality: int | None) -> bytes:
    """A JPEG of this quality, or a PNG where `quality` is None."""
    out = io.BytesIO()
    if quality is None:
        Image.fromarray(image).save(out, "PNG")
    else:
        Image.fromarray(image).save(out, "JPEG", quality=quality)
    return out.getvalue()


def with_void(classes: npt.NDArray[np.int32], unlabelled: int) -> npt.NDArray[np.uint8]:
    mask: npt.NDArray[np.uint8] = np.where(classes == UNLABELLED, unlabelled, classes).astype(np.uint8)
    return mask


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def bounds(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the mask's pixels, the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def random_hex(rng: np.random.Generator, digits: int) -> str:
    return "".join("0123456789abcdef"[digit] for digit in rng.integers(0, 16, digits))


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def csv_text(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()

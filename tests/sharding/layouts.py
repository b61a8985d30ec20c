"""Small datasets of pictures in the official layouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.sharding.source.source import Annotation

from .listing import Listed, listed

if TYPE_CHECKING:
    pass


Array = npt.NDArray[Any]


SIZE = (12, 16)


def write(path: Path, picture: Array | str | dict[str, Any] | None = None, size: tuple[int, int] = SIZE) -> None:
    """Write a picture of these values, a text, a JSON; without content, an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(path)
    elif picture is None:
        Image.new("RGB", (size[1], size[0]), (9, 90, 200)).save(path)
    else:
        path.write_text(picture if isinstance(picture, str) else json.dumps(picture))


def filled(value: int, dtype: type = np.uint8) -> Array:
    return np.full(SIZE, value, dtype)


def index(dataset: str, name: str) -> int:
    return load_label_space(load_recipe(dataset)).names.index(name)


def plan(dataset: str, root: Path, split: str = "train") -> Listed:
    return listed(load_recipe(dataset), root, split)


def only(dataset: str, root: Path, split: str = "train", size: tuple[int, int] = SIZE) -> tuple[str | None, Annotation]:
    """The variant that was seen, and the annotation of the only image."""
    found = plan(dataset, root, split)
    return found.source.variant, found.read(found.item, size)


def pixels(annotation: Annotation) -> dict[int, int]:
    """How many pixels of the mask each value has."""
    assert annotation.mask is not None
    return dict(Counter(annotation.mask.ravel().tolist()))


def classes_of(annotation: Annotation) -> set[int]:
    return set(pixels(annotation))


INSTANCES = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
instances = "objects/{split}/{stem}.png"
[ids]
ignore = [255]
[options]
instances = "CODING"
things = ["car"]
"""


def cityscapes(root: Path, kinds: dict[str, Any], city: str = "aachen", split: str = "train") -> None:
    stem = f"{split}/{city}/{city}_000000_000019"
    write(root / f"leftImg8bit/{stem}_leftImg8bit.png")
    for kind, content in kinds.items():
        write(root / f"gtFine/{stem}_gtFine_{kind}", content)


def box(label: str, x0: int, y0: int, x1: int, y1: int) -> dict[str, Any]:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def polygons(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": list(objects)}


COLOUR_RECIPE = """name = "my_streets"
annotation_type = "mask"
reader = "colour_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
[ids]
ignore = ["0 0 0"]
map = {"255 0 0" = "car", " 0 255  1 " = 2}
"""


NAMED = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
class_names = ["codes.txt", "codes.json"]
[ids]
ignore = ["nothing"]
map = {"Lorry " = "car"}
"""

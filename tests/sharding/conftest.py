"""A small dataset of one's own on disk, and a plain reader of what was written."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.catalog import Recipe, load_recipe

from .tool_formats import Dataset

RECIPE = """# My streets.
name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"

[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"

[ids]
ignore = [255]
"""

Array = npt.NDArray[Any]
Sample = dict[str, Any]


class Own:
    """A dataset of one's own: a recipe, descriptions, and noise for images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "data"
        self.root.mkdir(parents=True)
        self.recipe_file = folder / "my_streets.toml"
        self.write_recipe(RECIPE)
        self.write_classes(["road", "car", "sky"])
        self._random = np.random.default_rng(0)

    def write_recipe(self, text: str) -> None:
        self.recipe_file.write_text(text)

    def write_classes(self, names: Sequence[str]) -> None:
        rows = "".join(f"{index},{name}\n" for index, name in enumerate(names))
        (self.folder / "my_streets.csv").write_text(f"index,name\n{rows}")

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.recipe_file)

    def image(self, path: str, size: tuple[int, int] = (12, 16), mode: str = "RGB", **options: Any) -> bytes:
        """Write an image of (height, width); its bytes."""
        channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[mode]
        pixels = self._random.integers(0, 256, (*size, *channels), dtype=np.uint8)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.frombytes(mode, (size[1], size[0]), pixels.tobytes())
        image.save(target, **options)
        return target.read_bytes()

    def mask(self, path: str, values: Array | None = None, size: tuple[int, int] = (12, 16)) -> Array:
        """Write an index PNG; by default of random classes and some 255."""
        if values is None:
            values = self._random.choice(np.array([0, 1, 2, 255], dtype=np.uint8), size)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(target)
        return values

    def pairs(self, count: int, split: str = "train") -> list[Array]:
        """Write so many images with masks; the masks."""
        for number in range(count):
            self.image(f"images/{split}/{number:03d}.jpg")
        return [self.mask(f"masks/{split}/{number:03d}.png") for number in range(count)]


@pytest.fixture(scope="session")
def new_own(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Own]:
    """For tests that need one for each example."""
    return lambda: Own(tmp_path_factory.mktemp("own"))


@pytest.fixture
def own(new_own: Callable[[], Own]) -> Own:
    return new_own()


def samples(folder: Path) -> dict[str, Sample]:
    """Every sample under a split's folder by key: `json`, the lists in it, and masks decoded, the rest as bytes."""
    found: dict[str, Sample] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                key, _, name = member.name.partition(".")
                data: Any = stream.read()
                if name == "json":
                    data = json.loads(data)
                    data |= {part: json.loads(data[part]) for part in ("present", "boxes", "segments")}
                elif name.endswith("png"):
                    data = np.asarray(Image.open(BytesIO(data)))
                found.setdefault(key, {})[name] = data
    return found


@pytest.fixture
def read_samples() -> Callable[[Path], dict[str, Sample]]:
    return samples


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)

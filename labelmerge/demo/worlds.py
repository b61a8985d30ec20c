"""Nine toy training datasets and two held-out ones: what is in their images, and what each of them calls it.

One seed is one world: one set of looks (`concepts.draw_looks`), seen through eleven cameras. docs/demo.md says how, and
why the comparison that is made with them is fair.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.catalog import Recipe, load_label_space, load_recipe
from labelmerge.demo.concepts import Floats, concepts, draw_looks, leaves
from labelmerge.demo.scenes import NOTHING, Painter, Scene, noise_tile, paint

UNLABELLED = -1
"""The value of a toy sample's class map where the dataset has no label for what is there."""

_SHOWN_WITHOUT_LABEL = 0.25  # how often a dataset shows a kind that it has no label for, relative to one that it labels


@dataclass(frozen=True)
class World:
    """What a toy dataset is like, beside its taxonomy.

    Attributes:
        dataset: its name.
        width, height: of its images, pixels.
        scenes: the share of each kind of scene.
        zoom: how large things are.
        quality: of its JPEG images; None for PNG images.
        split: which split is written.
    """

    dataset: str
    width: int
    height: int
    scenes: Mapping[str, float]
    zoom: float = 1.0
    quality: int | None = None
    split: str = "train"

    @property
    def held_out(self) -> bool:
        return self.split != "train"


WORLDS = {
    world.dataset: world
    for world in (
        World("ade20k", 96, 80, {"street": 0.3, "field": 0.25, "room": 0.25, "shop": 0.2}, 1.0, 85),
        World("mapillary", 120, 92, {"street": 0.7, "field": 0.3}, 0.9, 90),
        World("coco_panoptic", 96, 72, {"street": 0.2, "field": 0.4, "room": 0.25, "desk": 0.15}, 1.25, 80),
        World("idd", 112, 64, {"street": 0.75, "field": 0.25}, 1.0),
        World("bdd100k", 112, 64, {"street": 1.0}, 1.0, 70),
        World("cityscapes", 128, 64, {"street": 0.9, "field": 0.1}, 0.9),
        World("sunrgbd", 88, 68, {"room": 0.75, "desk": 0.25}, 1.0, 75),
        World("openimages", 96, 72, {"field": 0.7, "street": 0.15, "room": 0.15}, 1.25, 75),
        World("objects365", 104, 80, {"street": 0.3, "field": 0.3, "room": 0.2, "desk": 0.2}, 1.15, 75),
        World("camvid", 96, 72, {"street": 1.0}, 1.0, None, "test"),
        World("village", 112, 84, {"field": 0.5, "street": 0.3, "shop": 0.2}, 1.1, 85, "test"),
    )
}
TRAINING = tuple(name for name, world in WORLDS.items() if not world.held_out)
HELD_OUT = tuple(name for name, world in WORLDS.items() if world.held_out)


@dataclass(frozen=True)
class ToySample:
    """One image of a toy dataset and all that is known about it.

    Attributes:
        number: 0, 1, 2 … within its dataset.
        image: uint8 [H, W, 3].
        scene: what was painted.
        things: int32 [H, W], which of `scene.things` is seen at each pixel.
        classes: int32 [H, W], the class index in the dataset's own label space, `UNLABELLED` where it has none.
        thing_classes: the class index of each of `scene.things`, likewise.
    """

    number: int
    image: npt.NDArray[np.uint8]
    scene: Scene
    things: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    thing_classes: tuple[int, ...]


@cache
def taxonomies() -> dict[str, dict[str, list[str]]]:
    """For every toy dataset its labels, and the concepts each of them means."""
    text = files("labelmerge.demo").joinpath("taxonomies.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def label_of(dataset: str) -> dict[str, str]:
    """The label that each leaf concept goes by in a toy dataset: the closest one above it. Others have none."""
    owner = {concept: label for label, meant in taxonomies()[dataset].items() for concept in meant}
    found = {}
    for leaf in leaves():
        for ancestor in concepts()[leaf].ancestors:
            if ancestor in owner:
                found[leaf] = owner[ancestor]
                break
    return found


@cache
def unseen_labels(dataset: str) -> tuple[str, ...]:
    """The labels of a held-out dataset none of whose concepts is in any training image; none for a training dataset."""
    if not WORLDS[dataset].held_out:
        return ()
    unseen = []
    for label in taxonomies()[dataset]:
        meant = [leaf for leaf, name in label_of(dataset).items() if name == label]
        if all(concepts()[leaf].held_out for leaf in meant):
            unseen.append(label)
    return tuple(unseen)


def recipe_of(dataset: str, root: Path) -> Recipe:
    """The recipe that reads a toy dataset: the shipped one, or the user's own that `write_world` laid beside it."""
    return load_recipe(root / f"{dataset}.toml" if dataset == "village" else dataset)


@dataclass(frozen=True)
class Camera:
    """What stands between the world and a dataset's images: drawn once for each dataset of each world.

    Attributes:
        mix: [3, 3] how channels bleed into each other. gain: [3] white balance. gamma: of the whole.
        noise: standard deviation of the grain. blur: how much each pixel takes from its neighbours, 0..0.5.
    """

    mix: Floats
    gain: Floats
    gamma: float
    noise: float
    blur: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        mix = np.eye(3) + rng.normal(0, 0.04, (3, 3))
        return cls(
            mix=mix / mix.sum(axis=1, keepdims=True),
            gain=np.exp(rng.normal(0, 0.07, 3)),
            gamma=float(np.exp(rng.normal(0, 0.14))),
            noise=float(rng.uniform(0.01, 0.04)),
            blur=float(rng.uniform(0.0, 0.35)),
        )

    def shoot(self, image: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The image [H, W, 3] in 0..1 as the camera delivers it, uint8."""
        around = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        near = (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
        image = (1 - self.blur) * image + self.blur * near
        image = np.clip(image @ self.mix.T * self.gain, 0, 1) ** self.gamma
        image = image + rng.normal(0, self.noise, image.shape)
        out: npt.NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
        return out


def draw_samples(dataset: str, root: Path, count: int, seed: int, first: int = 0) -> Iterator[ToySample]:
    """The samples of a toy dataset: the same for the same dataset, world and number, whatever `count` is.

    Args:
        dataset: one of `WORLDS`.
        root: where `recipe_of` finds the recipe of a user's own dataset.
        count: how many.
        seed: of the world.
        first: the number of the first of them.
    """
    world = WORLDS[dataset]
    looks = draw_looks(np.random.default_rng([seed, 0]))
    noise = noise_tile(np.random.default_rng([seed, 1]))
    own = zlib.crc32(dataset.encode())
    camera = Camera.draw(np.random.default_rng([seed, 2, own]))
    labels = label_of(dataset)
    space = load_label_space(recipe_of(dataset, root))
    index_of = dict(zip(space.names, space.indices, strict=True))
    allowed = {
        leaf: 1.0 if leaf in labels else _SHOWN_WITHOUT_LABEL
        for leaf in leaves()
        if not concepts()[leaf].held_out or labels.get(leaf) in unseen_labels(dataset)
    }
    painter = Painter(looks, allowed, world.zoom)
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, 3, own, number])
        kind = str(rng.choice(list(world.scenes), p=list(world.scenes.values())))
        scene = painter.scene(kind, world.width, world.height, rng)
        things = scene.thing_map()
        thing_classes = tuple(
            index_of[labels[thing.concept]] if thing.concept in labels else UNLABELLED for thing in scene.things
        )
        table = np.array([*thing_classes, UNLABELLED], dtype=np.int32)  # the last one is for NOTHING, which is -1
        image = camera.shoot(paint(scene, looks, noise), rng)
        yield ToySample(number, image, scene, things, table[things], thing_classes)


assert NOTHING == -1

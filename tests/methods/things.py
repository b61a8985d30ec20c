"""A toy set of things: cars and persons of one colour each, apart or side by side, on a road under a sky."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ..loading.toy_shards import Members, Toy, png

NAMES = ("car", "person", "road", "sky")
THINGS = ("car", "person")
_COLOURS = np.array([(200, 40, 40), (40, 60, 220), (110, 110, 110), (120, 200, 240)])


@dataclass
class ToyThings(Toy):
    """With its segments; the recipe says what is a thing."""

    name: str = "crowd"
    names: tuple[str, ...] = NAMES
    count: int = 4
    size: tuple[int, int] = (48, 64)

    def sample(self, number: int) -> tuple[str, Members]:
        rng = np.random.default_rng([self.seed, number, 7])
        height, width = self.size
        horizon = int(rng.integers(height // 3, height // 2))
        mask = np.where(np.arange(height)[:, None] < horizon, 3, 2).repeat(width, 1).astype(np.uint8)
        ids = np.where(mask == 3, 1, 2).astype(np.uint16)
        segments = [{"id": 1, "class_index": 3, "iscrowd": False}, {"id": 2, "class_index": 2, "iscrowd": False}]
        places = rng.permutation(4)[: rng.integers(2, 5)]
        for place in places.tolist():
            kind = int(rng.integers(0, 2))
            wide, tall = (11, 7) if kind == 0 else (6, 14)
            x, y = 2 + place * width // 4, horizon + int(rng.integers(0, height - horizon - tall))
            mask[y : y + tall, x : x + wide] = kind
            segments.append({"id": 10 * len(segments), "class_index": kind, "iscrowd": False})
            ids[y : y + tall, x : x + wide] = segments[-1]["id"]
        image = _COLOURS[mask] + rng.integers(-12, 12, (*self.size, 3))
        key = f"{self.name}-{self.split}-{number:09d}"
        meta = {
            "key": key,
            "dataset": self.name,
            "split": self.split,
            "annotation_type": self.kind,
            "label_space": self.space.hash,
            "height": height,
            "width": width,
            "boxes": "[]",
            "segments": json.dumps(segments),
        }
        members = {"png": png(image.clip(0, 255).astype(np.uint8)), "json": json.dumps(meta).encode()}
        return key, members | {"mask.png": png(mask), "instances.png": png(ids)}

    def __post_init__(self) -> None:
        self.changes = {"things": list(THINGS), **self.changes}

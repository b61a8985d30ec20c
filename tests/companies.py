"""Three datasets of one company, drawn as docs/merged.md describes them: masks, masks of objects, and boxes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs/merged.md"
COUNTS = {"depot": {"train": 4, "val": 2}, "gate": {"train": 3}, "yard": {"train": 3}}
SIZE = (48, 64)
COLOURS = {"road": (110, 110, 110), "sky": (120, 170, 230), "car": (200, 40, 40), "bus": (230, 200, 40)}


def recipes(folder: Path) -> dict[str, Path]:
    """Write the recipes and class lists that the page shows; the recipes, by dataset."""
    files = re.findall(r"`([a-z_]+\.(?:toml|csv))`.*?:\n\n```\w+\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    for name, text in files:
        (folder / name).write_text(text)
    return {name.removesuffix(".toml"): folder / name for name, _ in files if name.endswith(".toml")}


def scene(seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_], list[tuple[str, tuple[int, int, int, int]]]]:
    """An image of road and sky with a car and a bus; its words ``[H, W]``; and its objects (x0, y0, x1, y1)."""
    rng = np.random.default_rng(seed)
    words = np.full(SIZE, "road", dtype="<U6")
    words[: SIZE[0] // 2] = "sky"
    objects = []
    for word, left, width in (("car", 4, 14), ("bus", 30, 26)):
        x0, y0 = left + int(rng.integers(0, 6)), 20 + int(rng.integers(0, 6))
        objects.append((word, (x0, y0, x0 + width, y0 + 14)))
        words[y0 : y0 + 14, x0 : x0 + width] = word
    image = np.zeros((*SIZE, 3))
    for word, colour in COLOURS.items():
        image[words == word] = colour
    noisy = image + rng.integers(-12, 13, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), words, objects


def draw(root: Path) -> None:
    """Write the datasets into ``<root>/depot``, ``gate`` and ``yard``."""
    seed = 0
    for dataset, splits in COUNTS.items():
        for split, count in splits.items():
            listed: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
            classes = ["car", "bus", "person"] if dataset == "gate" else ["bus", "car"]
            listed["categories"] = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
            for number in range(count):
                seed += 1
                image, words, objects = scene(seed)
                suffix = "png" if dataset == "yard" else "jpg"
                folder = root / dataset / "images" / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{number}.{suffix}")
                listed["images"].append(
                    {"id": number + 1, "file_name": f"{number}.{suffix}", "height": SIZE[0], "width": SIZE[1]}
                )
                for word, (x0, y0, x1, y1) in objects:
                    listed["annotations"].append(
                        {
                            "id": len(listed["annotations"]) + 1,
                            "image_id": number + 1,
                            "category_id": classes.index(word) + 1,
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "area": (x1 - x0) * (y1 - y0),
                            "iscrowd": 0,
                            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                        }
                    )
                if dataset == "depot":
                    values = np.select([words == "road", words == "sky"], [0, 2], 1).astype(np.uint8)
                    values[-3:] = 255
                    (root / "depot/masks" / split).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(values).save(root / "depot/masks" / split / f"{number}.png")
            if dataset != "depot":
                (root / dataset / "annotations").mkdir(exist_ok=True)
                (root / dataset / "annotations" / f"{split}.json").write_text(json.dumps(listed))

"""Small datasets of Hugging Face's `datasets`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from labelmerge.catalog import Recipe, load_recipe

Array = npt.NDArray[Any]


SIZE = (12, 16)


CLASSES = ["road", "car", "sky"]


def encoded(pixels: Array, kind: str) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def recipe(folder: Path, layout: str, kind: str = "mask", more: str = "") -> Recipe:
    """A recipe of one's own, `[layout]` and what else there is."""
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{index},{name}\n" for index, name in enumerate(CLASSES))
    (folder / "own.csv").write_text(f"index,name\n{rows}")
    text = f'name = "own"\nannotation_type = "{kind}"\nreader = "hf_dataset"\ndescriptions = "own.csv"\n'
    (folder / "own.toml").write_text(f"{text}[layout]\n{layout}\n{more}\n")
    return load_recipe(folder / "own.toml")


Rows = list[dict[str, Any]]


def mask_rows(count: int, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        pixels = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        mask = random.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
        image = {"bytes": encoded(pixels, "JPEG"), "path": f"{number}.jpg"}
        rows.append({"id": number, "photo": image, "seg": {"bytes": encoded(mask, "PNG"), "path": None}})
    return rows


MASK_FEATURES = datasets.Features({"id": datasets.Value("int64"), "photo": datasets.Image(), "seg": datasets.Image()})


MASK_LAYOUT = 'image_column = "photo"\nmask_column = "seg"'


IGNORE = "[ids]\nignore = [255]"


def save(rows: Rows, features: Any, root: Path, form: str) -> str:
    """Write rows as the split `train` in one of the forms on disk; what `layout.images` is for it."""
    table = datasets.Dataset.from_list(rows, features=features)
    if form == "folder":
        table.save_to_disk(root / "own_data", num_shards=2)
        return 'images = "own_data"'
    if form == "folders":
        datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(root / "own_data")
        return 'images = "own_data"'
    if form == "parquet":
        half = len(rows) // 2
        for number, part in enumerate((table.select(range(half)), table.select(range(half, len(rows))))):
            part.to_parquet(root / f"train-{number:05d}-of-00002.parquet", batch_size=2)
        return 'images = "{split}-*.parquet"'
    with pa.ipc.new_file(root / "train.arrow", table.data.schema) as writer:
        writer.write_table(table.data.table)
    return 'images = "{split}.arrow"'

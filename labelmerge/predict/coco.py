"""Predicted masks as one COCO file: the region of each label in each image, as run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.files import write_text


class CocoFile:
    """Collects what was predicted, and writes it.

    Categories are numbered from 1, as COCO's are: the value in the index PNG plus one.
    """

    def __init__(self, names: list[str]) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._names = names

    def add(self, file: str, classes: npt.NDArray[np.int64]) -> None:
        """Take in an image: its file's name, and the label of each pixel, [H, W]."""
        from pycocotools import mask as coco

        number = len(self._images) + 1
        height, width = classes.shape
        self._images.append({"id": number, "file_name": file, "height": height, "width": width})
        columns = np.asfortranarray(classes)  # run lengths go down them
        for label in np.unique(classes).tolist():
            runs = coco.encode((columns == label).view(np.uint8))
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode()},
                    "area": int(coco.area(runs)),
                    "bbox": [float(side) for side in coco.toBbox(runs)],
                    "iscrowd": 0,
                }
            )

    def write(self, path: Path) -> None:
        """Write the file; raises OutputError."""
        content = {
            "images": self._images,
            "categories": [{"id": number, "name": name} for number, name in enumerate(self._names, 1)],
            "annotations": self._annotations,
        }
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n")

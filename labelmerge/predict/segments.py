"""Predicted things and stuff as files: ids as a PNG, and the whole of a `predict` as COCO panoptic.

The format: cocodataset.org/#format-data and cocodataset/panopticapi: id = R + 256 G + 65536 B, 0 for no segment.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.errors import SampleError
from labelmerge.files import write_bytes, write_text
from labelmerge.labels import LabelKey
from labelmerge.methods.predictor import SegmentMap
from labelmerge.names import prompt_name
from labelmerge.predict.queries import ResolvedLabel
from labelmerge.text import some

PANOPTIC = "panoptic.json"
_MOST = 65535  # segments that a 16-bit picture can number

_log = logging.getLogger(__name__)


def which_are_things(
    labels: Sequence[ResolvedLabel], bank: Bank, known: Mapping[LabelKey, bool]
) -> tuple[bool, ...] | None:
    """Which labels are things: as training had them, and a label that it says nothing of as the nearest of those.

    Args:
        bank: the checkpoint's.
        known: of the labels of training.

    Returns:
        None where training knew nothing of things.
    """
    keys = [key for key in known if key in bank]
    if not keys:
        return None
    vectors, rows = bank.rows(keys), bank.positions(keys)
    found = []
    guessed: dict[bool, list[str]] = {True: [], False: []}
    for label in labels:
        if label.key is not None and label.key in known:
            found.append(known[label.key])
            continue
        nearest = int((vectors @ label.vector).argmax())
        found.append(known[keys[nearest]])
        guessed[found[-1]].append(f"{label.name} ({keys[nearest][0]}:{prompt_name(bank.names[rows[nearest]])})")
    for thing, names in guessed.items():
        if names:
            kind = "things" if thing else "stuff, one segment for each label"
            _log.info("taken for %s, as the nearest label that training tells of: %s", kind, some(names))
    return tuple(found)


def ids_png(segments: SegmentMap) -> bytes:
    """The ids as a 16-bit PNG. Raises SampleError where there are too many."""
    if len(segments.labels) > _MOST:
        raise SampleError(f"has {len(segments.labels)} segments, more than {_MOST}")
    out = io.BytesIO()
    Image.fromarray(segments.ids.astype(np.uint16)).save(out, "png")
    return out.getvalue()


def segment_rows(segments: SegmentMap, things: Sequence[bool] | None) -> list[dict[str, Any]]:
    """Each segment's id, label, score, area and box ``[x, y, width, height]``."""
    rows = []
    for number, (label, score) in enumerate(zip(segments.labels.tolist(), segments.scores.tolist(), strict=True), 1):
        region = segments.ids == number
        ys, xs = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
        row = {"id": number, "label": label, "score": round(score, 4), "area": int(region.sum())}
        row["bbox"] = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
        rows.append({**row, **({} if things is None else {"thing": things[label]})})
    return rows


class PanopticFile:
    """Collects predictions in COCO panoptic format; the PNGs go into the folder of the JSON's name."""

    def __init__(self, out: Path, names: Sequence[str], things: Sequence[bool] | None) -> None:
        self._out, self._names, self._things = out, names, things
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, file: str, stem: str, segments: SegmentMap) -> None:
        """Take in an image: its file's name, the stem of its outputs. Raises OutputError."""
        height, width = segments.ids.shape
        number = len(self._images) + 1
        name = f"{stem}.png"
        self._images.append({"id": number, "file_name": file, "height": height, "width": width})
        infos = [
            {
                "id": row["id"],
                "category_id": row["label"] + 1,
                "area": row["area"],
                "bbox": row["bbox"],
                "iscrowd": 0,
                "score": row["score"],
            }
            for row in segment_rows(segments, None)
        ]
        self._annotations.append({"image_id": number, "file_name": name, "segments_info": infos})
        write_bytes(self._out / Path(PANOPTIC).stem / name, _rgb_png(segments.ids))

    def write(self) -> Path:
        """Write the JSON; raises OutputError."""
        content = {
            "images": self._images,
            "categories": [
                {"id": n + 1, "name": name, "isthing": int(self._things is None or self._things[n])}
                for n, name in enumerate(self._names)
            ],
            "annotations": self._annotations,
        }
        write_text(self._out / PANOPTIC, json.dumps(content, ensure_ascii=False) + "\n")
        return self._out / PANOPTIC


def _rgb_png(ids: npt.NDArray[np.int32]) -> bytes:
    out = io.BytesIO()
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(out, "png")
    return out.getvalue()


def labels_with(classes: npt.NDArray[np.int64], segments: SegmentMap) -> npt.NDArray[np.int64]:
    """The label of every pixel: its segment's, and where there is none, as it was."""
    labels = np.append(0, segments.labels)[segments.ids]
    found: npt.NDArray[np.int64] = np.where(segments.ids > 0, labels, classes)
    return found

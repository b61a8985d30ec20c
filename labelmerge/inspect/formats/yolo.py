"""YOLO's text files: `images/<split>/`, `labels/<split>/`, `data.yaml` (docs.ultralytics.com/datasets).

A line is a class and its box (centre and size), or a class and its outline, in shares of the image's width and height.
Crowds and depictions are left out, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from labelmerge.inspect.formats.outlines import outline
from labelmerge.inspect.formats.written import Request
from labelmerge.inspect.merged import MergedSample, MergedSplit


def refuse(each: MergedSplit, segments: bool) -> str | None:
    """A split without objects, or without their outlines where those are wanted."""
    if each.split.has_segments:
        return None
    if segments:
        return "has no masks of single objects, so no outlines (--task detect takes boxes)"
    return None if each.has_boxes else "has masks of classes, but neither objects nor boxes"


def write(request: Request) -> Iterator[None]:
    """Write images, labels and ``data.yaml``; yields after every image."""
    by_name = request.sets.by_name()
    for name, parts in by_name.items():
        for kind in ("labels", *(["images"] if request.images else [])):
            (request.into / kind / name).mkdir(parents=True)
        for first, each in parts:
            for sample in each.read(first, image=request.images):
                lines = list(_lines(request, sample))
                (request.into / "labels" / name / f"{sample.key}.txt").write_text("".join(lines))
                if request.images:
                    (request.into / "images" / name / f"{sample.key}.{each.split.image}").write_bytes(sample.image)
                request.counts["annotations"] += len(lines)
                request.counts["images"] += 1
                yield
    names = "".join(
        f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(request.sets.space.names)
    )
    splits = "".join(f"{name}: images/{name}\n" for name in by_name)
    (request.into / "data.yaml").write_text(f"{splits}nc: {len(request.sets.space)}\nnames:\n{names}", encoding="utf-8")


def _lines(request: Request, sample: MergedSample) -> Iterator[str]:
    size = np.array([sample.width, sample.height], dtype=np.float64)
    if sample.instances is None:
        for box in sample.boxes:
            if box["class_index"] not in request.things:
                continue
            if box["iscrowd"] or box["group_of"] or box["depiction"]:
                request.counts["crowds"] += 1
            else:
                low, high = (np.array(box["bbox"][i : i + 2]) for i in (0, 2))
                yield _line(box["class_index"], ((low + high) / 2 / size, (high - low) / size))
        return
    for segment in sample.segments:
        if segment["class_index"] not in request.things:
            continue
        if segment["iscrowd"]:
            request.counts["crowds"] += 1
            continue
        rows, columns = np.nonzero(sample.instances == segment["id"])
        if not rows.size:
            continue
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
        if request.segments:
            inside = sample.instances[low[1] : high[1], low[0] : high[0]] == segment["id"]
            yield _line(segment["class_index"], (outline(inside) + low) / size)
        else:
            yield _line(segment["class_index"], ((low + high) / 2 / size, (high - low) / size))


def _line(index: int, pairs: object) -> str:
    return " ".join([str(index), *(f"{value:.6g}" for value in np.asarray(pairs).ravel().tolist())]) + "\n"

"""Parquet files that Hugging Face's `datasets` opens: `data/<split>-00000.parquet`, … and the card, `README.md`.

A row has `image`, `mask` (an index PNG; null where there are no masks), `objects` (boxes as x, y, width, height in
pixels, their classes, and as in COCO's export whether they are crowds or depictions) and `dataset`, `key`, `source`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from labelmerge.inspect.coco import boxes, regions
from labelmerge.inspect.formats.written import Request
from labelmerge.inspect.merged import MergedSample, MergedSplit
from labelmerge.shardset.pixels import png_bytes

_ROWS = 64  # of a row group, which is what a reader has in memory
_FILE_BYTES = 500 << 20


def refuse(each: MergedSplit, segments: bool) -> str | None:
    """A split without any annotation."""
    return None if each.has_masks or each.has_boxes else "has neither masks nor boxes"


def write(request: Request) -> Iterator[None]:
    """Write the files and the card; yields after every image."""
    from datasets import ClassLabel, Features, Image, Value

    features = Features(
        {
            "image": Image(),
            "mask": Image(),
            "objects": {
                "bbox": [[Value("float32")]],
                "category": [ClassLabel(names=list(request.sets.space.names))],
                "iscrowd": [Value("bool")],
                "isfake": [Value("bool")],
            },
            "dataset": Value("string"),
            "key": Value("string"),
            "source": Value("string"),
        }
    )
    (request.into / "data").mkdir()
    by_name = request.sets.by_name()
    for name, parts in by_name.items():
        rows = _Rows(request.into / "data", name, features.arrow_schema)
        with rows:
            for first, each in parts:
                for sample in each.read(first):
                    made = _row(request, each, sample)
                    rows.add(made)
                    request.counts["annotations"] += len(made["objects"]["category"])
                    request.counts["images"] += 1
                    yield
    (request.into / "README.md").write_text(_card(request, list(by_name)), encoding="utf-8")


class _Rows:
    """Writes rows to files of a limited size, for a `with` statement."""

    def __init__(self, folder: Path, split: str, schema: Any) -> None:
        self._paths = (folder / f"{split}-{number:05d}.parquet" for number in count())
        self._schema = schema
        self._waiting: list[dict[str, Any]] = []
        self._writer: Any = None
        self._bytes = 0

    def __enter__(self) -> None: ...

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        self._bytes += len(row["image"]["bytes"])
        if len(self._waiting) == _ROWS:
            self._flush()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(next(self._paths), self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []
        if self._bytes > _FILE_BYTES:
            self._writer.close()
            self._writer, self._bytes = None, 0


def _row(request: Request, each: MergedSplit, sample: MergedSample) -> dict[str, Any]:
    name = f"{sample.key}.{each.split.image}"
    mask = None if sample.mask is None else {"bytes": png_bytes(sample.mask), "path": f"{sample.key}.png"}
    ids = {index: index for index in request.sets.space.indices}
    if sample.instances is None:
        found = [(b["bbox"], b["category_id"], b["iscrowd"], b["isfake"]) for b in boxes(sample.boxes, ids)]
    else:
        place = {number: bbox for number, _, bbox in regions(sample.instances)}
        listed = [s for s in sample.segments if s["id"] in place]
        found = [(place[s["id"]], s["class_index"], s["iscrowd"], False) for s in listed]
    return {
        "image": {"bytes": sample.image, "path": name},
        "mask": mask,
        "objects": {
            "bbox": [list(map(float, bbox)) for bbox, *_ in found],
            "category": [category for _, category, *_ in found],
            "iscrowd": [bool(crowd) for *_, crowd, _ in found],
            "isfake": [bool(fake) for *_, fake in found],
        },
        "dataset": each.split.dataset,
        "key": sample.key,
        "source": sample.path,
    }


def _card(request: Request, splits: list[str]) -> str:
    files = "".join(f"  - split: {name}\n    path: data/{name}-*.parquet\n" for name in splits)
    rows = "".join(f"| {number} | {name} |\n" for number, name in enumerate(request.sets.space.names))
    title = json.dumps(request.sets.space.name)
    return (
        f"---\npretty_name: {title}\ntask_categories:\n- image-segmentation\n"
        f"configs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# {request.sets.space.name}\n\n{', '.join(request.sets.datasets)} with one class list, exported by "
        f"labelmerge. The licences are those of the datasets.\n\n"
        f"In `mask`, {request.sets.space.ignore_index} means no label.\n\n"
        f"| value | class |\n|---|---|\n{rows}"
    )

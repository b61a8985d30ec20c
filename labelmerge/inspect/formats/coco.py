"""COCO files of several datasets: one category list, ids that are unique over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labelmerge.inspect.coco import boxes, objects, panoptic, text, write_list
from labelmerge.inspect.formats.written import NO_MASKS, Request
from labelmerge.inspect.merged import MergedSample, MergedSplit
from labelmerge.inspect.samples import Record


class Coco:
    """`panoptic`: ``annotations/panoptic_<split>.json`` and PNGs; else ``annotations/instances_<split>.json``."""

    def __init__(self, *, panoptic: bool) -> None:
        self._panoptic = panoptic

    def refuse(self, each: MergedSplit, segments: bool) -> str | None:
        if self._panoptic:
            return None if each.has_masks else NO_MASKS
        if each.split.has_segments or each.has_boxes:
            return None
        return "has masks of classes, but neither objects nor boxes"

    def write(self, request: Request) -> Iterator[None]:
        ids = {index: index + 1 for index in request.sets.space.indices if self._panoptic or index in request.things}
        categories = [
            {
                "id": ids[index],
                "name": name,
                "isthing": int(index in request.things),
                "color": request.palette[index].tolist(),
            }
            for index, name in enumerate(request.sets.space.names)
            if index in ids
        ]
        request.counts["categories"] = len(categories)
        kind = "panoptic" if self._panoptic else "instances"
        notes = request.into / "annotations"
        notes.mkdir()
        for name, parts in request.sets.by_name().items():
            if self._panoptic:
                (notes / f"{kind}_{name}").mkdir()
            if request.images:
                (request.into / name).mkdir()
            info = {"description": f"{', '.join(request.sets.datasets)}, {name} split, exported by labelmerge"}
            with (notes / f"{kind}_{name}.json").open("w", encoding="utf-8") as stream:
                stream.write(f'{{"info": {text(info)}, "categories": {text(categories)},\n"images": [')
                empty = True
                for first, each in parts:
                    for number, sample in enumerate(each.split.read(), start=first):
                        size = {"height": sample.meta["height"], "width": sample.meta["width"]}
                        source = sample.meta["source"]
                        record = {"id": number, "file_name": f"{sample.key}.{each.split.image}", **size}
                        record |= {"dataset": each.split.dataset, "native_id": source["native_id"]}
                        empty = write_list(stream, [{**record, "source": source["path"]}], empty)
                stream.write('],\n"annotations": [')
                empty = True
                for first, each in parts:
                    for made in each.read(first, image=request.images):
                        empty = write_list(stream, self._records(request, made, ids, name), empty)
                        if request.images:
                            (request.into / name / f"{made.key}.{each.split.image}").write_bytes(made.image)
                        request.counts["images"] += 1
                        yield
                stream.write("]}\n")

    def _records(self, request: Request, sample: MergedSample, ids: dict[int, int], name: str) -> list[Record]:
        counts = request.counts
        if self._panoptic:
            assert sample.mask is not None
            ignore = request.sets.space.ignore_index
            segments, picture = panoptic(sample.mask, sample.instances, sample.segments, ids, ignore, request.things)
            (request.into / "annotations" / f"panoptic_{name}" / f"{sample.key}.png").write_bytes(picture)
            counts["annotations"] += len(segments)
            return [{"image_id": sample.number, "file_name": f"{sample.key}.png", "segments_info": segments}]
        made: Any = boxes((box for box in sample.boxes if box["class_index"] in ids), ids)
        if sample.instances is not None:
            made = objects(sample.instances, sample.segments, ids)
        records = [
            {"id": number, "image_id": sample.number, **record}
            for number, record in enumerate(made, start=counts["annotations"] + 1)
        ]
        counts["annotations"] += len(records)
        return records


PANOPTIC, INSTANCES = Coco(panoptic=True), Coco(panoptic=False)

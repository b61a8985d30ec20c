"""The samples of one split's shards, one after the other, into shards with relabelled masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.errors import SampleError
from labelmerge.files import atomic_file
from labelmerge.predict.provenance import Made, new_type, shards_with_samples
from labelmerge.predict.splitting import Relabelled, Rule, relabel_boxes, relabel_image, relabel_mask
from labelmerge.shardset.depth_maps import DEPTH
from labelmerge.shardset.meta import ANNOTATED, meta_bytes
from labelmerge.shardset.pixels import png_bytes
from labelmerge.shardset.sample import Sample
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.tar import ShardWriter


class _Empty(Exception):
    """Keeps a shard without samples from taking its name."""


def write_shards(each: ShardSet, rule: Rule, source: Mapping[str, Any], folder: Path, made: Made) -> Iterator[None]:
    """Write every shard under its own name; yields after every sample."""
    for name, numbers in shards_with_samples(each, source):
        try:
            with atomic_file(folder / name) as stream, ShardWriter(stream) as writer:
                before = made.samples
                for number in numbers:
                    _write_sample(each, rule, number, writer, made)
                    yield
                if made.samples == before:
                    raise _Empty
                writer.close()
                shard = {"name": name, "samples": made.samples - before}
                made.shards.append({**shard, "bytes": writer.bytes, "sha256": writer.sha256})
        except _Empty:
            continue


def _write_sample(each: ShardSet, rule: Rule, number: int, writer: ShardWriter, made: Made) -> None:
    try:
        encoded = each.fetch(number, but=())
        sample = encoded.decode()
        found = _relabelled(rule, each.annotation_type, sample)
    except SampleError as error:
        made.skipped.append({"path": str(error.where or f"sample {number}"), "reason": error.what})
        return
    present = made.add(found, (sample.image.shape[0], sample.image.shape[1]), rule.space.ignore_index)
    members = {name: data for name, data in encoded.members.items() if name in ("jpg", "png", DEPTH)}
    if sample.depth is not None:
        made.depth_pixels += int(np.count_nonzero(sample.depth))
    if found.mask is not None:
        members["mask.png"] = png_bytes(found.mask)
    if found.instances is not None:
        members["instances.png"] = png_bytes(found.instances)
    meta = {
        **sample.meta,
        "annotation_type": new_type(each.annotation_type, rule),
        "label_space": rule.space.hash,
        "present": sorted(present),
        "boxes": found.boxes,
        "segments": found.segments,
    }
    if (listed := sample.annotated) is not None:
        meta[ANNOTATED] = sorted({concept for index in listed for concept in rule.sets.get(index, ())})
    writer.write(sample.key, {**members, "json": meta_bytes(meta)})


def _relabelled(rule: Rule, annotation_type: str, sample: Sample) -> Relabelled:
    """Raises SampleError, also where the JSON is not as it should be."""
    boxes, segments = sample.meta.get("boxes") or [], sample.meta.get("segments") or []
    try:
        if annotation_type == "box":
            return relabel_boxes(rule, sample.image, boxes, sample.annotated)
        if annotation_type == "image":
            return relabel_image(rule, sample.image)
        assert sample.mask is not None
        return relabel_mask(rule, sample.image, sample.mask, sample.instances, segments, boxes)
    except SampleError as error:
        raise SampleError(error.what, where=error.where or sample.key, fix=error.fix) from error
    except (LookupError, TypeError, ValueError) as error:
        raise SampleError(f"its json is damaged ({type(error).__name__}: {error})", where=sample.key) from error

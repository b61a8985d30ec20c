"""Images and masks, side by side: what torch, torchvision and mmsegmentation read.

`images/<split>/<key>.jpg` (or png) and `masks/<split>/<key>.png`, 8-bit with a palette, value = class, 255 = no label;
16-bit without one, 65535 = no label, from 255 classes on. `mmseg.py` is a fragment of a configuration.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pprint import pformat

import numpy as np
from PIL import Image

from labelmerge.inspect.formats.written import NO_MASKS, Request
from labelmerge.inspect.merged import MergedSplit
from labelmerge.inspect.samples import Array
from labelmerge.shardset.pixels import png_bytes


def refuse(each: MergedSplit, segments: bool) -> str | None:
    """A split without masks."""
    return None if each.has_masks else NO_MASKS


def write(request: Request) -> Iterator[None]:
    """Write images, masks and the fragment; yields after every image."""
    colours = request.palette.tobytes().ljust(3 * 256, b"\0")
    suffixes: dict[str, dict[str, None]] = {}
    for name, parts in request.sets.by_name().items():
        for folder in (request.into / "masks" / name, *([request.into / "images" / name] if request.images else [])):
            folder.mkdir(parents=True)
        for first, each in parts:
            suffixes.setdefault(name, {})[each.split.image] = None
            for sample in each.read(first, image=request.images):
                assert sample.mask is not None
                (request.into / "masks" / name / f"{sample.key}.png").write_bytes(_mask(sample.mask, colours))
                if request.images:
                    (request.into / "images" / name / f"{sample.key}.{each.split.image}").write_bytes(sample.image)
                request.counts["images"] += 1
                yield
    (request.into / "mmseg.py").write_text(_mmseg(request, suffixes), encoding="utf-8")


def _mask(values: Array, colours: bytes) -> bytes:
    if values.dtype != np.uint8:
        return png_bytes(values)
    image = Image.fromarray(values)
    image.putpalette(colours)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=False)
    return out.getvalue()


def _mmseg(request: Request, suffixes: dict[str, dict[str, None]]) -> str:
    """mmsegmentation 1.x: a dataset for each kind of image file, for its `BaseSegDataset` knows one suffix."""
    lines = [
        "# A fragment for mmsegmentation 1.x: `_base_ = ['mmseg.py']`, then put these into your dataloaders.",
        f"metainfo = dict(classes={tuple(request.sets.space.names)!r},",
        f"                palette={pformat(request.palette.tolist(), width=110, compact=True)})",
        f"num_classes = {len(request.sets.space)}",
        f"ignore_index = {request.sets.space.ignore_index}",
        "data_root = '{{ fileDirname }}'  # this folder, as mmengine fills it in",
    ]
    for name, kinds in suffixes.items():
        one = [
            f"dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, img_suffix='.{suffix}',\n"
            f"         seg_map_suffix='.png', ignore_index=ignore_index, reduce_zero_label=False,\n"
            f"         data_prefix=dict(img_path='images/{name}', seg_map_path='masks/{name}'), pipeline=[])"
            for suffix in kinds
        ]
        joined = ",\n    ".join(one)
        lines.append(f"# Where these are several: dict(type='ConcatDataset', datasets={name}_datasets)")
        lines.append(f"{name}_datasets = [\n    {joined},\n]")
    return "\n".join(lines) + "\n"

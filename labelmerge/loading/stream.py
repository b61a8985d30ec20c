"""Shards as the training loop and the evaluation read them: any sample by its number, straight from the tar.

A shard is never unpacked. Its headers are read once, when the first sample of it is asked for; after that a sample is
one read of the file. The formats are in docs/architecture.md, "Shards".
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from labelmerge.errors import RecipeError, SampleError, ShardError
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_FORMAT = "labelmerge-shards/2"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        key: ``<dataset>-<split>-<9 digits>``.
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 or uint16 ``[H, W]``, class indices of the dataset's own label space; None in a box dataset.
        instances: uint16 ``[H, W]``, the segment ids that ``meta["segments"]`` describes; None where there are none or
            nobody asked for them.
        boxes: float32 ``[P, 4]``, x0, y0, x1, y1 in pixels.
        box_classes: int64 ``[P]``, class indices of the dataset's own label space.
        iscrowd: bool ``[P]``, boxes that hold many things not told apart (COCO's word).
        group_of: bool ``[P]``, the same in Open Images' words.
        box_embeddings: float16 ``[P, D]``, teacher embeddings of the boxes; None where the shards have none.
        meta: the sample's whole ``json`` member.
    """

    key: str
    image: npt.NDArray[np.uint8]
    mask: Mask | None
    instances: npt.NDArray[np.uint16] | None
    boxes: npt.NDArray[np.float32]
    box_classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]
    group_of: npt.NDArray[np.bool_]
    box_embeddings: npt.NDArray[np.float16] | None
    meta: Mapping[str, Any] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """About how much memory the sample holds, in bytes."""
        arrays = (self.image, self.mask, self.instances, self.boxes, self.box_classes, self.box_embeddings)
        return sum(array.nbytes for array in arrays if array is not None)


def find_splits(folders: Sequence[Path], split: str | None) -> list[Path]:
    """The split folders (those with a `manifest.json`) that `folders` name, sorted, each once.

    Args:
        folders: each a split folder, a dataset folder, or a folder of datasets.
        split: which splits to take below a dataset folder or a folder of datasets; None takes all of them. A split
            folder that is named itself is always taken.

    Raises:
        ShardError: a folder does not exist, holds no finished shards, or holds only other splits.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ShardError("no such folder", where=folder, fix="`labelmerge shard` writes shards")
        if _is_split(folder):
            candidates, wanted = [folder], [folder]
        else:
            children = _subfolders(folder)
            candidates = [f for f in children if _is_split(f)]
            candidates += [f for child in children for f in _subfolders(child) if _is_split(f)]
            wanted = [f for f in candidates if split is None or f.name == split]
        if not candidates:
            raise ShardError("no shards here", where=folder, fix="`labelmerge shard` writes them")
        if not wanted:
            others = ", ".join(sorted({f.name for f in candidates}))
            raise ShardError(f"no {split} shards here, only {others}", where=folder)
        for f in wanted:
            if not (f / _MANIFEST).is_file():
                raise ShardError(
                    "unfinished: there are shards but no manifest.json",
                    where=f,
                    fix="Run the same `labelmerge shard` command again",
                )
        found.update(dict.fromkeys(f.resolve() for f in wanted))
    return sorted(found)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _is_split(folder: Path) -> bool:
    return (folder / _MANIFEST).is_file() or any(folder.glob("*.tar"))


@dataclass(frozen=True)
class _Index:
    """Where the samples of one shard lie in its tar. Compact, because every loader process holds one for all shards.

    Attributes:
        keys: bytes ``[samples]``.
        members: the kinds of member, e.g. ``("jpg", "json", "mask.png")``.
        places: int64 ``[samples, members, 2]``, first byte and one past the last; -1 where there is no such member.
    """

    keys: npt.NDArray[np.bytes_]
    members: tuple[str, ...]
    places: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardSet:
    """One split of one dataset, in shards.

    Attributes:
        folder: the split folder.
        dataset: the dataset's name.
        split: the split's name.
        annotation_type: ``mask`` | ``noisy_mask`` | ``box``.
        role: ``train``, or ``eval`` for a set that is kept from training, by the recipe it was made from.
        space: the label space of its masks and boxes.
        class_pixels: labelled pixels of each class index in the whole split (classes without any may be absent).
        class_boxes: boxes of each class index, likewise.
        manifest_sha256: hash of the manifest, which holds the hashes of the shards: the identity of the data.
    """

    folder: Path
    dataset: str
    split: str
    annotation_type: str
    role: str
    space: LabelSpace
    class_pixels: Mapping[int, int]
    class_boxes: Mapping[int, int]
    box_teacher: Mapping[str, str | None] | None
    manifest_sha256: str
    _names: Sequence[str] = field(repr=False)
    _ends: Sequence[int] = field(repr=False)
    _index: dict[int, _Index] = field(repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> ShardSet:
        """Read the manifest and look that every shard is there in its full length (contents: `labelmerge verify`).

        Raises:
            ShardError: the manifest is missing or malformed, a shard is missing or has another size, or it's empty.
        """
        path = folder / _MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ShardError("no manifest.json: not a finished split", where=folder) from None
        except (OSError, ValueError) as error:
            raise ShardError(f"can't be read as JSON ({error})", where=path, fix="Write the shards again") from error
        try:
            if data["format"] != _FORMAT:
                raise ShardError(f"format {data['format']!r} is not {_FORMAT!r}", where=path)
            shards = data["shards"]
            shard_set = cls(
                folder=folder,
                dataset=str(data["dataset"]),
                split=str(data["split"]),
                annotation_type=str(data["annotation_type"]),
                role=str(tomllib.loads(data["recipe"]["text"]).get("role", "train")),
                space=LabelSpace.from_json(data["label_space"]),
                class_pixels={int(index): int(count) for index, count in data["class_pixels"].items()},
                class_boxes={int(index): int(count) for index, count in data["class_boxes"].items()},
                box_teacher=data.get("box_teacher"),
                manifest_sha256=sha256_file(path),
                _names=tuple(str(shard["name"]) for shard in shards),
                _ends=tuple(itertools.accumulate(int(shard["samples"]) for shard in shards)),
                _index={},
            )
            sizes = [int(shard["bytes"]) for shard in shards]
        except RecipeError as error:
            raise ShardError(str(error), where=path) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ShardError(f"malformed ({error!r})", where=path, fix="Write the shards again") from error
        for name, size in zip(shard_set._names, sizes, strict=True):
            tar = folder / name
            if not tar.is_file():
                raise ShardError("the manifest lists this shard, but it is missing", where=tar)
            if tar.stat().st_size != size:
                raise ShardError(f"{tar.stat().st_size} bytes, but the manifest says {size}", where=tar)
        if not len(shard_set):
            raise ShardError("no samples in these shards", where=folder)
        return shard_set

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, number: int, instances: bool = False) -> Sample:
        """Read and decode sample `number` (0 .. len - 1, in the order of the shards), with or without its instances.

        Raises:
            SampleError: this sample is corrupt; others may be read.
            ShardError: the shard itself can't be read or is not what the manifest says.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        tar = self.folder / self._names[shard]
        first = self._ends[shard - 1] if shard else 0
        index = self._shard_index(shard)
        places = {
            name: (int(start), int(stop))
            for name, (start, stop) in zip(index.members, index.places[number - first], strict=True)
            if start >= 0 and (instances or name != "instances.png")
        }
        begin, end = min(start for start, _ in places.values()), max(stop for _, stop in places.values())
        try:
            with tar.open("rb") as stream:
                stream.seek(begin)
                data = stream.read(end - begin)
        except OSError as error:
            raise ShardError(f"can't be read ({error.strerror})", where=tar) from error
        files = {name: data[start - begin : stop - begin] for name, (start, stop) in places.items()}
        key = index.keys[number - first].decode()
        where = f"{tar}: {key}"
        try:
            return _decode(key, files, self.space, self.annotation_type)
        except SampleError as error:
            raise SampleError(error.what, where=where) from error
        except UnidentifiedImageError as error:  # whose own words hold an address in memory, new each time
            raise SampleError("can't be decoded (an image or mask is none that Pillow knows)", where=where) from error
        # Decoders raise whatever they like at bytes that are not theirs; a json that lacks something raises the rest.
        except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, Image.DecompressionBombError) as error:
            raise SampleError(f"can't be decoded ({type(error).__name__}: {error})", where=where) from error

    def _shard_index(self, shard: int) -> _Index:
        if shard not in self._index:
            tar = self.folder / self._names[shard]
            index = _read_headers(tar)
            expected = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            if len(index.keys) != expected:
                raise ShardError(
                    f"{len(index.keys)} samples, but the manifest says {expected}",
                    where=tar,
                    fix="`labelmerge verify` says more",
                )
            self._index[shard] = index
        return self._index[shard]


def _read_headers(path: Path) -> _Index:
    """One entry per sample, in order; members of a sample lie side by side (the WebDataset convention)."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if not info.isfile():
                    continue
                key, _, member = info.name.partition(".")
                if not samples or samples[-1][0] != key:
                    samples.append((key, {}))
                samples[-1][1][member] = (info.offset_data, info.offset_data + info.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ShardError(f"not a readable tar ({error})", where=path, fix="Write the shards again") from error
    names = tuple(sorted({name for _, members in samples for name in members}))
    places = np.array([[members.get(name, (-1, -1)) for name in names] for _, members in samples], dtype=np.int64)
    return _Index(np.array([key.encode() for key, _ in samples], dtype=np.bytes_), names, places)


def _decode(key: str, files: Mapping[str, bytes], space: LabelSpace, annotation_type: str) -> Sample:
    image_bytes = files.get("jpg", files.get("png"))
    if image_bytes is None:
        raise SampleError("no image (jpg or png)")
    if "json" not in files:
        raise SampleError("no json")
    meta = json.loads(files["json"])
    meta |= {name: json.loads(meta[name]) for name in ("present", "boxes", "segments") if name in meta}
    if meta.get("label_space", space.hash) != space.hash:
        raise SampleError("its label space is not the manifest's")
    image = np.asarray(Image.open(io.BytesIO(image_bytes)).convert("RGB"))
    mask: Mask | None = None
    instances: npt.NDArray[np.uint16] | None = None
    if annotation_type != "box":
        if "mask.png" not in files:
            raise SampleError("no mask.png")
        mask = _mask(files["mask.png"], "mask.png", image.shape[:2])
        if mask.dtype != space.dtype:
            raise SampleError(f"mask.png is {mask.dtype}, but its label space needs {np.dtype(space.dtype)}")
    if "instances.png" in files:
        instances = _mask(files["instances.png"], "instances.png", image.shape[:2]).astype(np.uint16, copy=False)
    entries = meta.get("boxes") or []
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float32).reshape(len(entries), 4)
    embeddings = None
    if "box_embeddings.npy" in files:
        embeddings = np.load(io.BytesIO(files["box_embeddings.npy"]), allow_pickle=False)
        if embeddings.ndim != 2 or len(embeddings) != len(boxes):
            raise SampleError(f"{len(boxes)} boxes but box embeddings {list(embeddings.shape)}")
    return Sample(
        key=key,
        image=image,
        mask=mask,
        instances=instances,
        boxes=boxes,
        box_classes=np.array([entry["class_index"] for entry in entries], dtype=np.int64),
        iscrowd=np.array([bool(entry.get("iscrowd", False)) for entry in entries], dtype=np.bool_),
        group_of=np.array([bool(entry.get("group_of", False)) for entry in entries], dtype=np.bool_),
        box_embeddings=embeddings,
        meta=meta,
    )


def _mask(data: bytes, name: str, size: tuple[int, ...]) -> Mask:
    image = Image.open(io.BytesIO(data))
    if image.mode not in ("L", "P", "I;16", "I"):
        raise SampleError(f"{name} is not a single channel image ({image.mode})")
    values = np.asarray(image)
    if values.shape != size:
        raise SampleError(f"{name} is {values.shape[1]}x{values.shape[0]}, the image {size[1]}x{size[0]}")
    return values if values.dtype == np.uint8 else values.astype(np.uint16)

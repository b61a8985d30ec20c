"""Shards as the training loop and the evaluation read them: any sample by its number, straight from the tar.

A shard is never unpacked. Its headers are read once, when the first sample of it is asked for; after that a sample is
one read of the file. The formats are in docs/architecture.md, "Shards".
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
import struct
import tarfile
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from labelmerge.errors import RecipeError, SampleError, ShardError
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace
from labelmerge.shardset.pixels import Mask, Region, decode_image, decode_mask, image_region, open_image

_FORMAT = "labelmerge-shards/2"
_MANIFEST = "manifest.json"
_BLOCK = 512  # of a tar


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


@dataclass(frozen=True)
class Decoded:
    """An image and its mask in memory; read like `Encoded`.

    Attributes:
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 or uint16 ``[H, W]``; None where the dataset has no masks.
        instances: segment ids, uint8 or uint16 ``[H, W]``; None where there are none or nobody asked for them.
    """

    image: npt.NDArray[np.uint8]
    mask: Mask | None
    instances: Mask | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def shrinks(self) -> bool:
        return False

    def region(self, box: Region, shrink: int = 1) -> npt.NDArray[np.uint8]:
        x0, y0, x1, y1 = box
        return self.image[y0:y1, x0:x1]

    def mask_region(self, box: Region) -> Mask | None:
        x0, y0, x1, y1 = box
        return None if self.mask is None else self.mask[y0:y1, x0:x1]

    def instances_region(self, box: Region) -> Mask | None:
        x0, y0, x1, y1 = box
        return None if self.instances is None else self.instances[y0:y1, x0:x1]

    @property
    def nbytes(self) -> int:
        """How much memory it holds, in bytes."""
        return sum(part.nbytes for part in (self.image, self.mask, self.instances) if part is not None)


@dataclass(frozen=True)
class Boxes:
    """The boxes of a sample, as in `Sample`."""

    boxes: npt.NDArray[np.float32]
    box_classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]
    group_of: npt.NDArray[np.bool_]
    box_embeddings: npt.NDArray[np.float16] | None


NO_BOXES = Boxes(
    boxes=np.zeros((0, 4), dtype=np.float32),
    box_classes=np.zeros(0, dtype=np.int64),
    iscrowd=np.zeros(0, dtype=np.bool_),
    group_of=np.zeros(0, dtype=np.bool_),
    box_embeddings=None,
)


@dataclass(frozen=True)
class Segments:
    """The segments of a sample, things and stuff.

    Attributes:
        ids: int64 ``[N]``, their values in the map of instances; 0 is no segment.
        classes: int64 ``[N]``, class indices of the dataset's own label space.
        iscrowd: bool ``[N]``, segments that hold many things not told apart.
    """

    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Encoded:
    """One sample as it lies in the shard. Every method decodes only what it is asked for, anew each time.

    Attributes:
        key: ``<dataset>-<split>-<9 digits>``.
        members: the bytes of its files by kind, e.g. ``{"jpg": …, "mask.png": …}``.
        space, annotation_type: of the split.
        where: what errors say.
        size: height and width of the image, pixels, by its header.
        shrinks: whether `region` can be asked for less than full size: in JPEGs.

    Raises, as do all methods:
        SampleError: what was asked for is missing or damaged.
    """

    key: str
    members: Mapping[str, bytes] = field(repr=False)
    space: LabelSpace
    annotation_type: str
    where: str
    size: tuple[int, int] = field(init=False)
    shrinks: bool = field(init=False)

    def __post_init__(self) -> None:
        with self._named():
            header = open_image(self._image)
            object.__setattr__(self, "size", (header.size[1], header.size[0]))
            object.__setattr__(self, "shrinks", header.format == "JPEG")

    def decode(self) -> Sample:
        """The whole sample."""
        with self._named():
            meta = self._meta()
            image = decode_image(self._image)
            instances = self.members.get("instances.png")
            boxes = self._boxes(meta)
            return Sample(
                key=self.key,
                image=image,
                mask=self._mask(None),
                instances=None
                if instances is None
                else decode_mask(instances, "instances.png", self.size).astype(np.uint16, copy=False),
                boxes=boxes.boxes,
                box_classes=boxes.box_classes,
                iscrowd=boxes.iscrowd,
                group_of=boxes.group_of,
                box_embeddings=boxes.box_embeddings,
                meta=meta,
            )

    def region(self, box: Region, shrink: int = 1) -> npt.NDArray[np.uint8]:
        """The image within `box` (left, top, right, bottom; multiples of `shrink`), at a `shrink`-th of its size.

        Returns:
            uint8 ``[height // shrink, width // shrink, 3]``.
        """
        with self._named():
            return image_region(self._image, box, shrink)

    def mask_region(self, box: Region) -> Mask | None:
        """The mask within `box` (left, top, right, bottom); None where the dataset has no masks."""
        with self._named():
            return self._mask(box)

    def instances_region(self, box: Region | None) -> Mask | None:
        """The segment ids within `box` (left, top, right, bottom), or all; None where they were not fetched."""
        with self._named():
            data = self.members.get("instances.png")
            return None if data is None else decode_mask(data, "instances.png", self.size, box)

    def picture(self) -> Decoded:
        """The whole image and mask, and the segment ids where they were fetched."""
        with self._named():
            return Decoded(decode_image(self._image), self._mask(None), self.instances_region(None))

    def segments(self) -> Segments:
        """The segments, from the json."""
        with self._named():
            entries = self._meta().get("segments") or []
            return Segments(
                ids=np.array([entry["id"] for entry in entries], dtype=np.int64),
                classes=np.array([entry["class_index"] for entry in entries], dtype=np.int64),
                iscrowd=np.array([bool(entry.get("iscrowd", False)) for entry in entries], dtype=np.bool_),
            )

    def boxes(self) -> Boxes:
        """The boxes, from the json."""
        with self._named():
            return self._boxes(self._meta())

    @property
    def _image(self) -> bytes:
        data = self.members.get("jpg", self.members.get("png"))
        if data is None:
            raise SampleError("no image (jpg or png)")
        return data

    def _mask(self, box: Region | None) -> Mask | None:
        if self.annotation_type not in ("mask", "noisy_mask"):
            return None
        if "mask.png" not in self.members:
            raise SampleError("no mask.png")
        mask = decode_mask(self.members["mask.png"], "mask.png", self.size, box)
        if mask.dtype != self.space.dtype:
            raise SampleError(f"mask.png is {mask.dtype}, but its label space needs {np.dtype(self.space.dtype)}")
        return mask

    def _meta(self) -> dict[str, Any]:
        if "json" not in self.members:
            raise SampleError("no json")
        meta: dict[str, Any] = json.loads(self.members["json"])
        meta |= {name: json.loads(meta[name]) for name in ("present", "boxes", "segments") if name in meta}
        if meta.get("label_space", self.space.hash) != self.space.hash:
            raise SampleError("its label space is not the manifest's")
        return meta

    def _boxes(self, meta: Mapping[str, Any]) -> Boxes:
        entries = meta.get("boxes") or []
        embeddings = None
        if "box_embeddings.npy" in self.members:
            embeddings = np.load(io.BytesIO(self.members["box_embeddings.npy"]), allow_pickle=False)
            if embeddings.ndim != 2 or len(embeddings) != len(entries):
                raise SampleError(f"{len(entries)} boxes but box embeddings {list(embeddings.shape)}")
        return Boxes(
            boxes=np.array([entry["bbox"] for entry in entries], dtype=np.float32).reshape(len(entries), 4),
            box_classes=np.array([entry["class_index"] for entry in entries], dtype=np.int64),
            iscrowd=np.array([bool(entry.get("iscrowd", False)) for entry in entries], dtype=np.bool_),
            group_of=np.array([bool(entry.get("group_of", False)) for entry in entries], dtype=np.bool_),
            box_embeddings=embeddings,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn whatever a decoder raises into a SampleError that says which sample it was."""
        try:
            yield
        except SampleError as error:
            raise SampleError(error.what, where=self.where) from error
        except UnidentifiedImageError as error:  # whose own words hold an address in memory, new each time
            what = "can't be decoded (an image or mask is none that Pillow knows)"
            raise SampleError(what, where=self.where) from error
        # Decoders raise whatever they like at bytes that are not theirs; a json that lacks something raises the rest.
        except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
            what = f"can't be decoded ({type(error).__name__}: {error})"
            raise SampleError(what, where=self.where) from error
        except (struct.error, Image.DecompressionBombError) as error:
            raise SampleError(f"can't be decoded ({error})", where=self.where) from error


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
        annotation_type: ``mask`` | ``noisy_mask`` | ``box`` | ``image`` (without annotations).
        role: ``train``, or ``eval`` for a set that is kept from training, by the recipe it was made from.
        space: the label space of its masks and boxes.
        class_pixels: labelled pixels of each class index in the whole split (classes without any may be absent).
        class_boxes: boxes of each class index, likewise.
        nbytes: size of all its shards.
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
    nbytes: int
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
            sizes = [int(shard["bytes"]) for shard in shards]
            shard_set = cls(
                folder=folder,
                dataset=str(data["dataset"]),
                split=str(data["split"]),
                annotation_type=str(data["annotation_type"]),
                role=str(tomllib.loads(data["recipe"]["text"]).get("role", "train")),
                space=LabelSpace.from_json(data["label_space"]),
                class_pixels={int(index): int(count) for index, count in data["class_pixels"].items()},
                class_boxes={int(index): int(count) for index, count in data["class_boxes"].items()},
                nbytes=sum(sizes),
                box_teacher=data.get("box_teacher"),
                manifest_sha256=sha256_file(path),
                _names=tuple(str(shard["name"]) for shard in shards),
                _ends=tuple(itertools.accumulate(int(shard["samples"]) for shard in shards)),
                _index={},
            )
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
        return self.fetch(number, but=() if instances else ("instances.png",)).decode()

    def fetch(self, number: int, but: Container[str] = ("instances.png",)) -> Encoded:
        """Read sample `number`, without the members `but`, and decode nothing. Raises as `read`."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        tar = self.folder / self._names[shard]
        first = self._ends[shard - 1] if shard else 0
        index = self._shard_index(shard)
        places = {
            name: (int(start), int(stop))
            for name, (start, stop) in zip(index.members, index.places[number - first], strict=True)
            if start >= 0 and name not in but
        }
        begin = min((start for start, _ in places.values()), default=0)
        end = max((stop for _, stop in places.values()), default=0)
        try:
            with tar.open("rb", buffering=0) as stream:
                stream.seek(begin)
                data = stream.read(end - begin)
        except OSError as error:
            raise ShardError(f"can't be read ({error.strerror})", where=tar) from error
        files = {name: data[start - begin : stop - begin] for name, (start, stop) in places.items()}
        key = index.keys[number - first].decode()
        return Encoded(key, files, self.space, self.annotation_type, f"{tar}: {key}")

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
    for name, start, size in _plain_members(path) or _members(path):
        key, _, member = name.partition(".")
        if not samples or samples[-1][0] != key:
            samples.append((key, {}))
        samples[-1][1][member] = (start, start + size)
    names = tuple(sorted({name for _, members in samples for name in members}))
    places = np.array([[members.get(name, (-1, -1)) for name in names] for _, members in samples], dtype=np.int64)
    return _Index(np.array([key.encode() for key, _ in samples], dtype=np.bytes_), names, places)


def _plain_members(path: Path) -> list[tuple[str, int, int]] | None:
    """Name, first byte and size of each member, where all are plain files with short ASCII names, as ours are.

    Ten times faster than `tarfile`, which matters where thousands of shards are read in random order. None where there
    is anything else, or a fault.
    """
    found: list[tuple[str, int, int]] = []
    try:
        stream = path.open("rb", buffering=0)
    except OSError:
        return None
    with stream:
        place, end = 0, path.stat().st_size
        while True:
            stream.seek(place)
            header = stream.read(_BLOCK)
            if not any(header[:1]):  # the end is a block of zeros, or none
                return found if place <= end else None
            # POSIX.1-1988 (ustar): name 100 bytes, size in octal digits, kind, magic, prefix of the name
            name, size, kind = header[:100].rstrip(b"\0"), header[124:135], header[156:157]
            if header[257:262] != b"ustar" or kind not in b"0\0" or header[345:346] != b"\0" or not size.isdigit():
                return None
            if len(name) == 100 or not name.isascii():
                return None
            found.append((name.decode(), place + _BLOCK, int(size, 8)))
            place += _BLOCK + -(-found[-1][2] // _BLOCK) * _BLOCK


def _members(path: Path) -> list[tuple[str, int, int]]:
    """The same for any tar. Raises ShardError where it is none."""
    try:
        with tarfile.open(path, "r:") as tar:
            return [(info.name, info.offset_data, info.size) for info in tar if info.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ShardError(f"not a readable tar ({error})", where=path, fix="Write the shards again") from error

"""SUN RGB-D's toolbox: all labels in one HDF5 file, `SUNRGBD2Dseg.mat`, already as its 37 classes.

The toolbox's readme says: the i-th entry of `SUNRGBDMeta` (SUNRGBDMeta.mat) describes frame i, and `seglabel` of the
i-th entry of `SUNRGBD2Dseg` is its picture of labels, 0 or an index into the 37 names, from 1 on. On disk, as MATLAB
7.3 writes arrays of structs: the group `SUNRGBD2Dseg` holds `seglabel`, [N, 1] references to arrays [W, H].
`SUNRGBDMeta` says where a frame's image is in `rgbpath`: its authors' own path, of which the part from the folder
`layout.images` on is the user's. `layout.list` is the toolbox's allsplit.mat; its variable `{split}` names the folders
of the split's frames.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from labelmerge.errors import LabelmergeError, LayoutError, SampleError
from labelmerge.sharding.pictures import matlab
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.source.layout import first_place, inside
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

if TYPE_CHECKING:
    import h5py

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "labels", "frames", "list"),
    ids=("ignore", "offset", "map", "other"),
)
label_space = None
image = None

_STRUCTS, _LABELS = "SUNRGBD2Dseg", "seglabel"
_FRAMES, _PATH = "SUNRGBDMeta", "rgbpath"


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the split's frames; raises LayoutError or RecipeError."""
    values.value_table(source)
    folder = first_place(source, "images", "folder of images")
    labels = first_place(source, "labels", "file of labels")
    frames = source.root / first_place(source, "frames", "list of frames")
    records = matlab.load(frames, _FRAMES, (_PATH,), LayoutError)
    paths = [record[_PATH] for record in records if isinstance(record, dict)] if isinstance(records, list) else []
    if not paths or not all(isinstance(path, str) for path in paths):
        raise LayoutError(f"its {_FRAMES!r} is not a list of frames, each with its {_PATH!r}", where=frames)
    with matlab.open_hdf5(source.root / labels, LayoutError) as file:
        count = _references(file, source.root / labels, LayoutError).size
    if count != len(paths):
        raise LayoutError(
            f"has labels of {count} frames, but {frames.name} lists {len(paths)}", where=source.root / labels
        )
    wanted = _split(source, folder)
    places: dict[str, int] = {}
    for number, path in enumerate(paths):
        if (frame := _under(folder, path)) is not None and _frame(frame) in wanted:
            places[frame] = number
    for frame in sorted(places):
        if os.path.isfile(source.root / frame):
            yield Item(frame, (labels, places[frame]), native_id=str(places[frame] + 1))
        else:
            yield Skip(frame, f"listed in {frames.name}, but there is no such image")
    for lost in sorted(wanted - {_frame(frame) for frame in places}):
        yield Skip(lost, f"named in the split, but not listed in {frames.name}")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation[0],)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """The labels of one frame; raises SampleError."""
    import h5py

    place, number = item.annotation
    path = source.root / place
    with matlab.open_hdf5(path) as file:
        references = _references(file, path)
        reference = references[(number, 0) if references.shape[1] == 1 else (0, number)]
        if not isinstance(reference, h5py.Reference) or not reference:
            raise SampleError(f"has no labels of frame {number + 1}", where=path)
        found = matlab.checked(file[reference], _LABELS, path)
        if found.ndim != 2 or found.shape[::-1] != size:
            raise SampleError(
                f"its labels of frame {number + 1} are {' x '.join(map(str, found.shape))}, "
                f"but the image is {size[1]}x{size[0]}",
                where=path,
            )
        labels = found[()].T
    return Annotation(mask=values.class_mask(values.whole_numbers(labels, _LABELS, path), source, path))


def _references(file: h5py.File, path: Path, fault: type[LabelmergeError] = SampleError) -> h5py.Dataset:
    """The list of references to labels, [N, 1] or [1, N]."""
    import h5py

    group = file.get(_STRUCTS) if isinstance(file.get(_STRUCTS, getlink=True), h5py.HardLink) else None
    if not isinstance(group, h5py.Group):
        raise fault(f"has no {_STRUCTS!r}", where=path)
    found = matlab.dataset(group, _LABELS, path, fault)
    if found.ndim != 2 or 1 not in found.shape or found.dtype != h5py.ref_dtype:
        raise fault(f"its {_LABELS!r} is not a list of references", where=path)
    return found


def _split(source: Source, folder: str) -> set[str]:
    """The folders of the split's frames, under the root. Raises LayoutError."""
    path = source.root / first_place(source, "list", "list of images, without which a frame's split can't be known")
    names = matlab.texts(matlab.load(path, source.word, fault=LayoutError))
    folders = {frame for name in names if (frame := _under(folder, name)) is not None}
    if not folders:
        raise LayoutError(f"its {source.word!r} names no folder of frames", where=path)
    return folders


def _under(folder: str, path: str) -> str | None:
    """The user's path of what the authors had at `path`: the same from the folder's own name on."""
    parts = [part for part in path.split("/") if part]
    name = PurePosixPath(folder).name
    return inside(folder, "/".join(parts[parts.index(name) + 1 :])) if name in parts else None


def _frame(image_path: str) -> str:
    """The folder of a frame, of which the image lies in the folder `image`."""
    return str(PurePosixPath(image_path).parent.parent)

"""Images that look the same though their bytes differ: encoded again, resized, or copied from one dataset to another.

By the perceptual hash of ImageHash, 256 bits of an image's coarse structure: what a codec changes moves few of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.inspect.duplicates import LEAK, SHARED, WITHIN, Images, Overlap
from labelmerge.progress import Track, no_track
from labelmerge.shardset.manifest import read_manifest, role
from labelmerge.shardset.meta import parse
from labelmerge.shardset.pixels import decode_whole
from labelmerge.shardset.shard import Shard, shards_of
from labelmerge.shardset.splits import find_splits
from labelmerge.shardset.tar import read_samples
from labelmerge.urls import path_or_url

SIDE = 16  # a hash has this many bits, squared
NEAR = 12  # of two images' hashes, how many bits may differ
_BAND = 16  # bits; hashes that differ in fewer bits than there are bands agree in one
_PLAIN = 3.0  # the standard deviation, in grey levels, below which an image has no structure to compare
_MAX_EXAMPLES = 3
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # bits that are set in a byte

Hashes = npt.NDArray[np.uint8]


def find_twins(folders: Sequence[Path], track: Track = no_track) -> tuple[Overlap, ...]:
    """Every two splits with images that look the same and are not the same bytes, and every one with such within it.

    Images that can't be read, which `verify` tells, are left out, and so are those of hardly any structure.

    Args:
        folders: splits, datasets, or folders of datasets.
        track: progress over shards.

    Raises:
        ShardError: there are no shards, or a manifest can't be used.
    """
    splits: list[Images] = []
    shards: list[tuple[int, Shard]] = []
    for folder in find_splits(folders):
        manifest, _ = read_manifest(folder)
        trained_on = role(manifest) == "train" and manifest["split"] == "train"
        shards += [(len(splits), shard) for shard in shards_of(folder, manifest)]
        splits.append(Images(folder, manifest["dataset"], manifest["split"], trained_on))
    hashes: list[bytes] = []
    owners: list[tuple[int, str, str]] = []  # split, key, SHA-256 of the source
    for split, shard in track(shards, "looking for twins", len(shards)):
        for key, source, image in _images(shard):
            if (hash_ := perceptual_hash(image)) is not None:
                hashes.append(hash_)
                owners.append((split, key, source))
    found: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    bits = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, SIDE * SIDE // 8)
    for one, other in near_pairs(bits):
        (a, a_key, a_source), (b, b_key, b_source) = owners[one], owners[other]
        if a_source == b_source:  # the same bytes: `labelmerge.inspect.duplicates`
            continue
        if splits[b].trained_on and not splits[a].trained_on:
            (a, a_key), (b, b_key) = (b, b_key), (a, a_key)
        found[a, b].append((a_key, b_key))
    overlaps = [
        Overlap(
            kind=WITHIN if a == b else LEAK if splits[a].trained_on and not splits[b].trained_on else SHARED,
            first=path_or_url(splits[a].folder),
            second=path_or_url(splits[b].folder),
            images=len({key for key, _ in pairs}),
            examples=tuple(pairs[:_MAX_EXAMPLES]),
        )
        for (a, b), pairs in found.items()
    ]
    order = (LEAK, SHARED, WITHIN)
    return tuple(sorted(overlaps, key=lambda overlap: (order.index(overlap.kind), overlap.first, overlap.second)))


def _images(shard: Shard) -> Iterator[tuple[str, str, npt.NDArray[np.uint8]]]:
    for key, members in read_samples(shard, lambda key, what: None):
        name = next((name for name in ("jpg", "png") if name in members), None)
        if name is None or "json" not in members:
            continue
        try:
            source = str(parse(members["json"])["source"]["sha256"])
            yield key, source, np.asarray(decode_whole(members[name], Path(name)))
        except (SampleError, ValueError, KeyError, TypeError):
            continue


def perceptual_hash(image: npt.NDArray[np.uint8]) -> bytes | None:
    """32 bytes of what an image [H, W, 3] looks like; None where it is all but plain."""
    import imagehash

    grey = Image.fromarray(image).convert("L")
    small = np.asarray(grey.resize((SIDE * 4, SIDE * 4), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < _PLAIN:
        return None
    return bytes(np.packbits(imagehash.phash(grey, hash_size=SIDE).hash.reshape(-1)))


def near_pairs(hashes: Hashes, most: int = NEAR) -> list[tuple[int, int]]:
    """Every two hashes [n, 32] that differ in at most `most` bits: their places, ascending.

    Two that differ in fewer bits than they have bands of 16 agree in some band, so only those that do are compared.

    Args:
        most: below the number of bands.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    if most >= bands.shape[1]:
        raise ValueError(f"{most} bits of {bands.shape[1]} bands of {_BAND}")
    found: set[tuple[int, int]] = set()
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for group in np.split(order, edges):
            for place, one in enumerate(group[:-1]):
                others = group[place + 1 :]
                apart = _ONES[hashes[others] ^ hashes[one]].sum(axis=1)
                found |= {(min(one, n), max(one, n)) for n in others[apart <= most].tolist()}
    return sorted((int(one), int(other)) for one, other in found)

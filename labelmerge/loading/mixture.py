"""Many shard sets → batches with an exact share of every dataset in each.

Batch t is a pure function of (seed, t). Global slot ``k = t · batch_size + i`` belongs to dataset ``k mod D`` and is
that dataset's sample number ``k div D``; an epoch of a dataset is a permutation seeded by (seed, dataset, epoch), and a
view is drawn with a generator seeded by (seed, dataset, number). So a run resumes without any loader state, any number
of workers gives the same batches, and a dataset's samples come in the same order whatever else is in the mixture.

Where the batch size is not a multiple of D, the remainder rotates: two datasets' shares of one batch differ by one
sample at most, and so do their shares of the whole run.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from labelmerge.device import at_once
from labelmerge.errors import ConfigError, LabelmergeError, SampleError, ShardError, did_you_mean
from labelmerge.labels import IGNORE, LabelSpace
from labelmerge.loading.augment import Augmentation, Photometric, finish, training_view
from labelmerge.memory import keep_memory
from labelmerge.shardset.shardset import NO_BOXES, Boxes, Decoded, Encoded, ShardSet

M = TypeVar("M", Tensor, Tensor | None)

# How many neighbours are tried in place of a corrupt sample before the shards as a whole are called corrupt.
_REPLACEMENTS = 64
_PERMUTATIONS_KEPT = 2
# What a part of a batch has of all of it.
_WHOLE = ("step", "skipped")
# About how much larger a sample is in memory than in its shard.
_UNPACKED = 8


@dataclass(frozen=True)
class Batch:
    """One training batch of B square views.

    Attributes:
        step: t; the batch is a function of it and the seed.
        images: uint8 ``[B, 3, S, S]``, RGB; normalising is left to the device that computes.
        masks: ``[B, S, S]``: the values that the mixture's tables give, or class indices of each sample's own label
            space where it has no tables; `IGNORE` (-1) where there is no label, and everywhere in a box sample. int64
            after `to`; before, the smallest of int16 and int32 that holds them, a quarter or half of it to hand over.
        boxes: for each image float32 ``[P, 4]``, x0, y0, x1, y1 in pixels of the view; none in samples with masks.
            Crowds and groups are left out.
        box_classes: for each image int64 ``[P]``, like `masks`.
        box_embeddings: for each image float32 ``[P, D]`` from the shards, or None.
        datasets: for each image its dataset's name, which is its label space's name too.
        dataset_ids: int64 ``[B]``: the place of that name in `Mixture.datasets`.
        annotation_types: for each image ``mask`` | ``noisy_mask`` | ``box``.
        keys: for each image its sample's key.
        skipped: one line for each corrupt sample that was met and replaced.
        unfinished: for each image the change of colour and the blur that `to` will make, where the mixture defers them.
    """

    step: int
    images: Tensor
    masks: Tensor
    boxes: list[Tensor]
    box_classes: list[Tensor]
    box_embeddings: list[Tensor | None]
    datasets: list[str]
    dataset_ids: Tensor
    annotation_types: list[str]
    keys: list[str]
    skipped: list[str]
    unfinished: list[Photometric]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, masks as int64, and its images finished there; nothing waits for a GPU.

        Boxes stay where they are: what is cut out of images, and how, is decided on the CPU.
        """
        images = at_once(self.images, device)
        if any(each != Photometric() for each in self.unfinished):
            images = images.clone() if images is self.images else images
            finish(images, self.unfinished)
        return replace(
            self,
            images=images,
            masks=at_once(self.masks, device).long(),
            box_classes=_moved(self.box_classes, device),
            box_embeddings=_moved(self.box_embeddings, device),
            dataset_ids=at_once(self.dataset_ids, device),
            unfinished=[Photometric()] * len(self.unfinished),
        )

    def part(self, start: int, stop: int) -> Batch:
        """The batch of samples `start` to `stop` - 1 alone, in the same memory."""
        rows = slice(start, stop)
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in _WHOLE})

    def pin_memory(self) -> Batch:
        """The same batch, ready for a fast copy to a GPU (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes every tensor is a file in shared memory. The two large ones lie there already; for the many
        # small ones (boxes of each image) copying is cheaper than a file each, of which a process may have 1024 open.
        small = {
            "boxes": [boxes.numpy() for boxes in self.boxes],
            "box_classes": [classes.numpy() for classes in self.box_classes],
            "box_embeddings": [None if vectors is None else vectors.numpy() for vectors in self.box_embeddings],
            "dataset_ids": self.dataset_ids.numpy(),
        }
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in small}
        return _batch_of, (others, small)


def _moved(parts: Sequence[M], device: torch.device) -> list[M]:
    """Small tensors (or None) on a device, in one copy for all of them."""
    tensors = [part for part in parts if part is not None]
    if not tensors or device.type == "cpu":
        return list(parts)
    moved = iter(torch.split(at_once(torch.cat(tensors), device), [len(part) for part in tensors]))
    return [part if part is None else next(moved) for part in parts]


def _batch_of(others: Mapping[str, Any], small: Mapping[str, Any]) -> Batch:
    """The batch that `Batch.__reduce__` took apart."""
    return Batch(
        **others,
        boxes=[torch.from_numpy(boxes) for boxes in small["boxes"]],
        box_classes=[torch.from_numpy(classes) for classes in small["box_classes"]],
        box_embeddings=[None if vectors is None else torch.from_numpy(vectors) for vectors in small["box_embeddings"]],
        dataset_ids=torch.from_numpy(small["dataset_ids"]),
    )


@dataclass(frozen=True)
class Source:
    """All the shard sets of one dataset, one after the other."""

    dataset: str
    sets: tuple[ShardSet, ...]

    def __post_init__(self) -> None:
        first = self.sets[0]
        splits: dict[str, ShardSet] = {}
        for shard_set in self.sets:
            twin = splits.setdefault(shard_set.split, shard_set)
            if twin is not shard_set:
                raise ShardError(
                    f"is {self.dataset}'s {shard_set.split} split, and so is {twin.folder}",
                    where=shard_set.folder,
                    fix="Train on one of them",
                )
        for other in self.sets[1:]:
            if (other.space.hash, other.annotation_type) != (first.space.hash, first.annotation_type):
                raise ShardError(
                    f"is {self.dataset} with another label space or annotation type than in {first.folder}",
                    where=other.folder,
                    fix="Train on one of them, or write both again with one recipe",
                )

    @property
    def space(self) -> LabelSpace:
        return self.sets[0].space

    @property
    def annotation_type(self) -> str:
        return self.sets[0].annotation_type

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def fetch(self, number: int) -> Encoded:
        """Sample `number` of them all, not decoded and without instances; raises SampleError or ShardError."""
        ends = list(itertools.accumulate(map(len, self.sets)))
        place = bisect.bisect_right(ends, number)
        return self.sets[place].fetch(number - (ends[place - 1] if place else 0))


def group_by_dataset(sets: Sequence[ShardSet]) -> list[Source]:
    """Shard sets by dataset, sorted by name; raises ShardError where those of one dataset do not fit together."""
    names = sorted({shard_set.dataset for shard_set in sets})
    return [Source(name, tuple(s for s in sets if s.dataset == name)) for name in names]


def schedule(weights: Sequence[int]) -> list[int]:
    """Whose turn it is, as one cycle: dataset d comes weights[d] times, spread as evenly as can be.

    Equal weights give 0, 1, …, D-1.
    """
    divisor = math.gcd(*weights)
    shares = [weight // divisor for weight in weights]
    credit = [0] * len(shares)
    cycle = []
    for _ in range(sum(shares)):
        credit = [have + share for have, share in zip(credit, shares, strict=True)]
        turn = max(range(len(shares)), key=credit.__getitem__)
        credit[turn] -= sum(shares)
        cycle.append(turn)
    return cycle


@dataclass
class Mixture:
    """The batches of a run.

    Args:
        sources: the datasets.
        batch_size: samples in a batch.
        seed: of the order and of the views.
        augmentation: how views are drawn.
        tables: for each dataset, what a mask value becomes: int64 ``[ignore_index + 1]`` (`LabelSpace.lookup`).
            Without tables masks keep the dataset's own indices.
        weights: whole-number shares of datasets by name; 1 where not given.
        cache_mb: small datasets come round often, so those that fit (8 × their shards are no more than this many
            megabytes) are decoded whole and kept in memory, up to this much in all processes together. 0 keeps none.
        rank, world: of `world` ranks this is number `rank` (0 ..): it makes its own `batch_size` / `world` of each
            batch's samples. The ranks' batches one after the other are the batch that a single process makes.
        defer: leave colour and blur to `Batch.to`, that is to the device that trains, where they cost next to nothing.
            The images are the same to the last bit.

    Raises:
        ConfigError: a weight is not a positive whole number, or names no dataset; the batch can't be shared equally.
    """

    sources: Sequence[Source]
    batch_size: int
    seed: int
    augmentation: Augmentation
    tables: Mapping[str, npt.NDArray[np.int64]] | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    cache_mb: int = 256
    rank: int = 0
    world: int = 1
    defer: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank {self.rank} of {self.world}")
        if self.batch_size % self.world:
            raise ConfigError(
                f"batches of {self.batch_size} can't be shared equally by {self.world} processes",
                fix=f"Use a --batch-size that is a multiple of {self.world}",
            )
        for name, weight in self.weights.items():
            if name not in self.datasets:
                raise ConfigError(f"a weight for {name!r}, which is not here", fix=did_you_mean(name, self.datasets))
            if weight < 1:
                raise ConfigError(f"the weight of {name} must be a whole number of 1 or more, not {weight}")
        self._cycle = schedule([self.weights.get(name, 1) for name in self.datasets])
        seen = [0] * len(self.sources)
        self._turns = []  # for each place of the cycle: (dataset, how often it came before in the cycle)
        for turn in self._cycle:
            self._turns.append((turn, seen[turn]))
            seen[turn] += 1
        self._per_cycle = seen
        self._identity = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) for name in self.datasets]
        own = {
            source.dataset: source.space.lookup({i: i for i in source.space.indices}, IGNORE) for source in self.sources
        }
        self._tables = own if self.tables is None else self.tables
        self._permutations: OrderedDict[tuple[int, int], npt.NDArray[np.int64]] = OrderedDict()
        widest = max(int(table.max(initial=0)) for table in self._tables.values())
        self._mask_dtype = torch.int16 if widest <= np.iinfo(np.int16).max else torch.int32
        narrow = np.int16 if self._mask_dtype == torch.int16 else np.int32
        self._narrow = [self._tables[source.dataset].astype(narrow) for source in self.sources]
        # Whether a dataset is decoded whole must not depend on the number of processes that share the memory.
        room = self.cache_mb * 2**20
        self._whole = [_UNPACKED * sum(s.nbytes for s in source.sets) <= room for source in self.sources]
        self._cache: dict[tuple[int, int], tuple[str, Decoded, Boxes]] = {}
        self._room = room

    @property
    def datasets(self) -> list[str]:
        """The datasets' names, in the order of `Batch.dataset_ids`."""
        return [source.dataset for source in self.sources]

    def slots(self, step: int) -> list[tuple[int, int]]:
        """For each sample of this rank's batch `step`: (dataset, the how-manieth sample of that dataset in the run)."""
        size = self.batch_size // self.world
        first = step * self.batch_size + self.rank * size
        out = []
        for slot in range(first, first + size):
            cycles, place = divmod(slot, len(self._cycle))
            dataset, before = self._turns[place]
            out.append((dataset, cycles * self._per_cycle[dataset] + before))
        return out

    def batch(self, step: int) -> Batch:
        """Batch `step` of the run (of this rank).

        Raises:
            ShardError: a shard can't be read, or sample after sample is corrupt.
        """
        keep_memory()
        size = self.augmentation.crop
        slots = self.slots(step)
        images = _empty((len(slots), 3, size, size), torch.uint8)
        masks = _empty((len(slots), size, size), self._mask_dtype).fill_(IGNORE)
        skipped: list[str] = []
        made = [
            self._labelled(dataset, number, image, mask, skipped)
            for (dataset, number), image, mask in zip(slots, images, masks, strict=True)
        ]
        return Batch(
            step=step,
            images=images,
            masks=masks,
            boxes=[torch.from_numpy(labelled.boxes) for labelled in made],
            box_classes=[torch.from_numpy(labelled.classes) for labelled in made],
            box_embeddings=[
                None if labelled.embeddings is None else torch.from_numpy(labelled.embeddings) for labelled in made
            ],
            datasets=[self.sources[dataset].dataset for dataset, _ in slots],
            dataset_ids=torch.tensor([dataset for dataset, _ in slots]),
            annotation_types=[self.sources[dataset].annotation_type for dataset, _ in slots],
            keys=[labelled.key for labelled in made],
            skipped=skipped,
            unfinished=[labelled.unfinished for labelled in made],
        )

    def batches(self, start: int, stop: int, *, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
        """Batches `start` to `stop` - 1, made by `workers` processes ahead of time (0: by this one, when asked for).

        Raises:
            ShardError: as `batch`.
            LabelmergeError: a worker process died.
        """
        if workers == 0:
            yield from map(self.batch, range(start, stop))
            return
        share = replace(self)
        share._room //= workers
        loader = DataLoader(
            _Steps(share),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
        )
        with dead_workers():
            for made in loader:
                if isinstance(made, LabelmergeError):
                    raise made
                yield made

    def _labelled(self, dataset: int, number: int, image: Tensor, mask: Tensor, skipped: list[str]) -> _Labelled:
        """The view for the dataset's slot `number`, written to `image` and `mask`.

        Where the slot's sample is corrupt, the next one of the epoch stands in, and a line is added to `skipped`.
        """
        source = self.sources[dataset]
        table = self._tables[source.dataset]
        epoch, place = divmod(number, len(source))
        order = self._permutation(dataset, epoch)
        for offset in range(min(len(source), _REPLACEMENTS)):
            which = int(order[(place + offset) % len(source)])
            rng = np.random.default_rng([2, self.seed, self._identity[dataset], number])
            try:
                key, picture, boxes = self._read(dataset, which)
                view = training_view(
                    picture, boxes.boxes, self.augmentation, source.space.ignore_index, rng, image, defer=self.defer
                )
            except SampleError as error:
                skipped.append(str(error))
                continue
            if view.mask is not None:
                self._narrow[dataset].take(view.mask, out=mask.numpy(), mode="clip")
            vectors = boxes.box_embeddings
            return _Labelled(
                key=key,
                boxes=view.boxes,
                classes=table[boxes.box_classes[view.kept]],
                embeddings=None if vectors is None else vectors[view.kept].astype(np.float32),
                unfinished=view.unfinished,
            )
        raise ShardError(f"sample after sample of {source.dataset} is corrupt; the last: {skipped[-1]}")

    def _permutation(self, dataset: int, epoch: int) -> npt.NDArray[np.int64]:
        key = (dataset, epoch)
        if key not in self._permutations:
            rng = np.random.default_rng([1, self.seed, self._identity[dataset], epoch])
            self._permutations[key] = rng.permutation(len(self.sources[dataset]))
            if len(self._permutations) > _PERMUTATIONS_KEPT * len(self.sources):
                self._permutations.popitem(last=False)
        return self._permutations[key]

    def _read(self, dataset: int, which: int) -> tuple[str, Encoded | Decoded, Boxes]:
        """A sample's key, its picture, and the boxes that teach something: none where there is a mask."""
        if (dataset, which) in self._cache:
            return self._cache[dataset, which]
        source = self.sources[dataset]
        encoded = source.fetch(which)
        boxes = NO_BOXES
        if source.annotation_type == "box":
            boxes = _teaching(encoded.boxes(), self._tables[source.dataset], encoded.where)
        if not self._whole[dataset]:
            return encoded.key, encoded, boxes
        sample = encoded.key, encoded.picture(), boxes
        # The cache is never emptied: samples come in random order, so any that is kept is as good as another.
        if sample[1].nbytes <= self._room:
            self._room -= sample[1].nbytes
            self._cache[dataset, which] = sample
        return sample


@dataclass(frozen=True)
class _Labelled:
    """What a batch needs to know of one view beside its image and mask."""

    key: str
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32] | None
    unfinished: Photometric


def _teaching(boxes: Boxes, table: npt.NDArray[np.int64], where: str) -> Boxes:
    """Without the boxes that teach nothing: crowds and groups, and labels that are not in play."""
    classes = boxes.box_classes
    if len(classes) and (classes.min() < 0 or classes.max() >= len(table)):
        raise SampleError("a box's class is not in the label space", where=where)
    keep = ~(boxes.iscrowd | boxes.group_of) & (table[classes] != IGNORE)
    return Boxes(
        boxes=boxes.boxes[keep],
        box_classes=classes[keep],
        iscrowd=boxes.iscrowd[keep],
        group_of=boxes.group_of[keep],
        box_embeddings=None if boxes.box_embeddings is None else boxes.box_embeddings[keep],
    )


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; in a loading process in the shared memory that its reader sees, so it isn't copied."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]  # as in torch's default_collate
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, torch.empty(shape, device="meta").stride())


@contextmanager
def dead_workers() -> Iterator[None]:
    """Say in one line that a process of `Mixture.batches` died: torch raises that wherever its parent happens to be.

    Raises:
        LabelmergeError: a worker process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LabelmergeError(
            f"a loading process died ({str(error).splitlines()[0].rstrip('. ')})",
            fix="Usually memory ran out: use fewer --workers, or give the machine more shared memory",
        ) from error


class _Steps(Dataset[Batch | LabelmergeError]):
    """Batches by number. A fault is handed over as a value: torch would wrap it in a traceback's text."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __getitem__(self, step: int) -> Batch | LabelmergeError:
        try:
            return self._mixture.batch(step)
        except LabelmergeError as error:
            return error


def _unchanged(made: Any) -> Any:
    return made

"""Many shard sets → batches with an exact share of every dataset in each.

Batch t is a pure function of (seed, t). Global slot ``k = t · batch_size + i`` belongs to dataset ``k mod D`` and is
that dataset's sample number ``k div D``; an epoch of a dataset is a permutation seeded by (seed, dataset, epoch), and a
view is drawn with a generator seeded by (seed, dataset, number). So a run resumes without any loader state, any number
of workers gives the same batches, and a dataset's samples come in the same order whatever else is in the mixture.

Where the batch size is not a multiple of D, the remainder rotates: two datasets' shares of one batch differ by one
sample at most, and so do their shares of the whole run.

Views of one dataset are equally large. Where datasets differ in that, a step's samples form one batch for each size.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmerge.errors import ConfigError, SampleError, ShardError, did_you_mean
from labelmerge.labels import IGNORE
from labelmerge.loading.augment import Augmentation, Photometric, View, finish_in_pieces, training_view
from labelmerge.loading.batch import Batch, Segments, empty
from labelmerge.loading.datasets import DatasetShards
from labelmerge.loading.workers import made_ahead
from labelmerge.memory import keep_memory
from labelmerge.shardset.sample import NO_BOXES, Boxes, Decoded, Encoded
from labelmerge.shardset.sample import Segments as SampleSegments

# How many neighbours are tried in place of a corrupt sample before the shards as a whole are called corrupt.
_REPLACEMENTS = 64
_PERMUTATIONS_KEPT = 2
# About how much larger a sample is in memory than in its shard.
_UNPACKED = 8


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
        batch_size: samples in a step.
        seed: of the order and of the views.
        augmentation: how views are drawn.
        tables: for each dataset, what a mask value becomes: int64 ``[ignore_index + 1]`` (`LabelSpace.lookup`).
            Without tables masks keep the dataset's own indices.
        weights: whole-number shares of datasets by name; 1 where not given.
        own: how the views of single datasets are drawn, by name, where it is not as `augmentation` says.
        views: how many views of each sample there are (`Batch.others`). The first is the same however many there are.
        segments: whether batches hold segments.
        depth: whether they hold depths.
        cache_mb: small datasets come round often, so those that fit (8 × their shards are no more than this many
            megabytes) are decoded whole and kept in memory, up to this much in all processes together. 0 keeps none.
            What is decoded whole is not decoded smaller (`labelmerge.shardset.pixels.SHRINKS`), so views of JPEGs that
            shrink a lot may differ by a few grey levels with another value.
        rank, world: of `world` ranks this is number `rank` (0 ..): it makes its own `batch_size` / `world` of each
            step's samples. The ranks' batches one after the other are the batches that a single process makes.
        defer: leave colour and blur to `Batch.to`, that is to the device that trains, where they cost next to nothing.
            The images are the same to the last bit.

    Raises:
        ConfigError: a weight is not a positive whole number; a weight or a view is for a dataset that is not here; the
            samples of a step can't be shared equally.
    """

    sources: Sequence[DatasetShards]
    batch_size: int
    seed: int
    augmentation: Augmentation
    tables: Mapping[str, npt.NDArray[np.int64]] | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, Augmentation] = field(default_factory=dict)
    views: int = 1
    segments: bool = False
    depth: bool = False
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
        for what, names in (("a weight", self.weights), ("views", self.own)):
            for name in names:
                if name not in self.datasets:
                    raise ConfigError(f"{what} for {name!r}, which is not here", fix=did_you_mean(name, self.datasets))
        for name, weight in self.weights.items():
            if weight < 1:
                raise ConfigError(f"the weight of {name} must be a whole number of 1 or more, not {weight}")
        self._cycle = schedule([self.weights.get(name, 1) for name in self.datasets])
        self._augmentations = [self.own.get(name, self.augmentation) for name in self.datasets]
        self._refuse_unequal_ranks()
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
        self._whole = [_UNPACKED * source.nbytes <= room for source in self.sources]
        self._cache: dict[tuple[int, int], _Read] = {}
        self._room = room

    def _refuse_unequal_ranks(self) -> None:
        """Where views differ in size, every rank runs as many batches of the same sizes as the others."""
        sizes = {augmentation.size for augmentation in self._augmentations}
        share = self.batch_size // self.world
        if self.world > 1 and len(sizes) > 1 and share % len(self._cycle):
            raise ConfigError(
                f"with views of {len(sizes)} sizes, the {share} samples of each of {self.world} processes must hold "
                f"the same share of every dataset",
                fix=f"Use a --batch-size that is a multiple of {self.world * len(self._cycle)}",
            )

    @property
    def datasets(self) -> list[str]:
        """The datasets' names, in the order of `Batch.dataset_ids`."""
        return [source.dataset for source in self.sources]

    def slots(self, step: int) -> list[tuple[int, int]]:
        """For each sample of this rank's share of a step: its dataset, and its number among that dataset's samples.

        Numbers count through the whole run, from 0 on.
        """
        size = self.batch_size // self.world
        first = step * self.batch_size + self.rank * size
        out = []
        for slot in range(first, first + size):
            cycles, place = divmod(slot, len(self._cycle))
            dataset, before = self._turns[place]
            out.append((dataset, cycles * self._per_cycle[dataset] + before))
        return out

    def batch(self, step: int) -> list[Batch]:
        """This rank's samples of a step: one batch, or where views differ in size one for each size.

        Raises:
            ShardError: a shard can't be read, or sample after sample is corrupt.
        """
        keep_memory()
        groups: dict[tuple[int, int], list[tuple[int, tuple[int, int]]]] = {}
        first = self.rank * (self.batch_size // self.world)
        for place, (dataset, number) in enumerate(self.slots(step), start=first):
            groups.setdefault(self._augmentations[dataset].size, []).append((place, (dataset, number)))
        return [self._group(step, size, *zip(*some, strict=True)) for size, some in groups.items()]

    def _group(
        self, step: int, size: tuple[int, int], places: Sequence[int], slots: Sequence[tuple[int, int]]
    ) -> Batch:
        """The samples with views of one size."""
        images = [empty((len(slots), 3, *size), torch.uint8) for _ in range(self.views)]
        masks = [empty((len(slots), *size), self._mask_dtype).fill_(IGNORE) for _ in images]
        instances = [empty((len(slots), *size), torch.int32).zero_() for _ in images] if self.segments else []
        depths = [empty((len(slots), *size), torch.int32).zero_() for _ in images] if self.depth else []
        skipped: list[str] = []
        made = [
            self._drawn(dataset, number, [view[i] for view in images], skipped)
            for i, (dataset, number) in enumerate(slots)
        ]
        batches = []
        for v in range(self.views):
            unfinished = [each.views[v].unfinished for each in made]
            if not self.defer:
                finish_in_pieces(images[v], unfinished)
                unfinished = [Photometric()] * len(slots)
            segments: list[Segments | None] = []
            for i, (dataset, _) in enumerate(slots):
                view = made[i].views[v]
                if view.mask is not None:
                    self._narrow[dataset].take(view.mask, out=masks[v][i].numpy(), mode="clip")
                if view.instances is not None:
                    instances[v][i] = torch.from_numpy(view.instances.astype(np.int32))
                if view.depth is not None:
                    depths[v][i] = torch.from_numpy(view.depth.astype(np.int32))
                segments.append(self._segments(dataset, made[i].read.segments, view))
            classes = [self._tables[self.sources[d].dataset] for d, _ in slots]
            vectors = [each.read.boxes.box_embeddings for each in made]
            kept = [each.views[v].kept for each in made]
            batches.append(
                Batch(
                    step=step,
                    images=images[v],
                    masks=masks[v],
                    boxes=[torch.from_numpy(each.views[v].boxes) for each in made],
                    box_classes=[
                        torch.from_numpy(table[each.read.boxes.box_classes[which]])
                        for table, each, which in zip(classes, made, kept, strict=True)
                    ],
                    box_embeddings=[
                        None if all_of is None else torch.from_numpy(all_of[which].astype(np.float32))
                        for all_of, which in zip(vectors, kept, strict=True)
                    ],
                    datasets=[self.sources[dataset].dataset for dataset, _ in slots],
                    dataset_ids=torch.tensor([dataset for dataset, _ in slots]),
                    annotation_types=[self.sources[dataset].annotation_type for dataset, _ in slots],
                    keys=[each.read.key for each in made],
                    skipped=skipped,
                    unfinished=unfinished,
                    places=list(places),
                    whole=self.batch_size,
                    instances=instances[v] if self.segments else None,
                    segments=segments,
                    depths=depths[v] if self.depth else None,
                    shown=[each.views[v].shown for each in made],
                    annotated=[
                        None if each.read.annotated is None else torch.from_numpy(each.read.annotated) for each in made
                    ]
                    if any(source.own_lists for source in self.sources)
                    else [],
                )
            )
        return replace(batches[0], others=tuple(batches[1:]))

    def batches(self, start: int, stop: int, *, workers: int = 0, pin_memory: bool = False) -> Iterator[list[Batch]]:
        """Steps `start` to `stop` - 1, made by `workers` processes ahead of time (0: by this one, when asked for).

        Raises:
            ShardError: as `batch`.
            LabelmergeError: a worker process died.
        """
        if workers == 0:
            yield from map(self.batch, range(start, stop))
            return
        share = replace(self)
        share._room //= workers
        yield from made_ahead(share.batch, range(start, stop), workers, pin_memory=pin_memory)

    def _drawn(self, dataset: int, number: int, images: Sequence[Tensor], skipped: list[str]) -> _Drawn:
        """The views of the dataset's sample `number`, their images written to `images`.

        Where the sample is corrupt, the next one of the epoch stands in, and a line is added to `skipped`.
        """
        source = self.sources[dataset]
        epoch, place = divmod(number, len(source))
        order = self._permutation(dataset, epoch)
        for offset in range(min(len(source), _REPLACEMENTS)):
            which = int(order[(place + offset) % len(source)])
            try:
                read = self._read(dataset, which)
                views = [self._view(dataset, number, v, read, image) for v, image in enumerate(images)]
            except SampleError as error:
                skipped.append(str(error))
                continue
            return _Drawn(read, views)
        raise ShardError(f"sample after sample of {source.dataset} is corrupt; the last: {skipped[-1]}")

    def _view(self, dataset: int, number: int, view: int, read: _Read, image: Tensor) -> View:
        source = self.sources[dataset]
        return training_view(
            read.picture,
            read.boxes.boxes,
            self._augmentations[dataset],
            source.space.ignore_index,
            # The first view's seed has no number of its own: it is the same in runs that need one view alone.
            np.random.default_rng([2, self.seed, self._identity[dataset], number, *([view] if view else [])]),
            image,
            defer=True,
            instances=self.segments,
            depth=self.depth,
            labelled=source.annotation_type != "image",
        )

    def _segments(self, dataset: int, known: SampleSegments | None, view: View) -> Segments | None:
        """What of a sample's segments is left in a view."""
        if known is None or view.instances is None:
            return None
        left = np.isin(known.ids, np.unique(view.instances))
        table = self._tables[self.sources[dataset].dataset]
        return Segments(
            ids=torch.from_numpy(known.ids[left]),
            classes=torch.from_numpy(table[known.classes[left]]),
            crowd=torch.from_numpy(known.iscrowd[left]),
        )

    def _permutation(self, dataset: int, epoch: int) -> npt.NDArray[np.int64]:
        key = (dataset, epoch)
        if key not in self._permutations:
            rng = np.random.default_rng([1, self.seed, self._identity[dataset], epoch])
            self._permutations[key] = rng.permutation(len(self.sources[dataset]))
            if len(self._permutations) > _PERMUTATIONS_KEPT * len(self.sources):
                self._permutations.popitem(last=False)
        return self._permutations[key]

    def _read(self, dataset: int, which: int) -> _Read:
        """A sample, decoded and kept where its dataset fits into memory."""
        if (dataset, which) in self._cache:
            return self._cache[dataset, which]
        source = self.sources[dataset]
        encoded = source.fetch(which, instances=self.segments, depth=self.depth)
        table, boxes, segments = self._tables[source.dataset], NO_BOXES, None
        annotated = _annotated(source, encoded) if source.own_lists else None
        if source.annotation_type == "box":
            boxes = _teaching(encoded.boxes(), table, encoded.where)
        if self.segments and "instances.png" in encoded.members:
            segments = encoded.segments()
            _refuse_unknown(segments.classes, table, "a segment", encoded.where)
        if not self._whole[dataset]:
            return _Read(encoded.key, encoded, boxes, segments, annotated)
        picture = encoded.picture()
        read = _Read(encoded.key, picture, boxes, segments, annotated)
        # The cache is never emptied: samples come in random order, so any that is kept is as good as another.
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._cache[dataset, which] = read
        return read


@dataclass(frozen=True)
class _Read:
    """A sample: its picture, the boxes that teach something (none where there is a mask), its segments, and, where
    images of its dataset differ in that, int64 ``[n]``, the indices of the classes that it was annotated for."""

    key: str
    picture: Encoded | Decoded
    boxes: Boxes
    segments: SampleSegments | None
    annotated: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class _Drawn:
    """A sample and the views that were drawn of it."""

    read: _Read
    views: Sequence[View]


def _annotated(source: DatasetShards, encoded: Encoded) -> npt.NDArray[np.int64]:
    """The classes that an image was annotated for: by its own list, or else those of its dataset."""
    found = encoded.annotated()
    if found is None:
        found = source.space.indices_of(source.annotated)
    return np.array(sorted(found), dtype=np.int64)


def _teaching(boxes: Boxes, table: npt.NDArray[np.int64], where: str) -> Boxes:
    """Without the boxes that teach nothing: crowds and groups, and labels that are not in play."""
    classes = boxes.box_classes
    _refuse_unknown(classes, table, "a box", where)
    keep = ~(boxes.iscrowd | boxes.group_of) & (table[classes] != IGNORE)
    return Boxes(
        boxes=boxes.boxes[keep],
        box_classes=classes[keep],
        iscrowd=boxes.iscrowd[keep],
        group_of=boxes.group_of[keep],
        box_embeddings=None if boxes.box_embeddings is None else boxes.box_embeddings[keep],
    )


def _refuse_unknown(classes: npt.NDArray[np.int64], table: npt.NDArray[np.int64], what: str, where: str) -> None:
    if len(classes) and (classes.min() < 0 or classes.max() >= len(table)):
        raise SampleError(f"{what}'s class is not in the label space", where=where)

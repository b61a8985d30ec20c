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
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelmerge.errors import ConfigError, LabelmergeError, SampleError, ShardError, did_you_mean
from labelmerge.labels import LabelSpace
from labelmerge.loading.augment import Augmentation, training_view
from labelmerge.loading.stream import Sample, ShardSet

# Pixels and boxes without a label, in every batch. Not 255: a mixture may have more labels than that.
IGNORE = -1

# How many neighbours are tried in place of a corrupt sample before the shards as a whole are called corrupt.
_REPLACEMENTS = 64
_PERMUTATIONS_KEPT = 2


@dataclass(frozen=True)
class Batch:
    """One training batch of B square views.

    Attributes:
        step: t; the batch is a function of it and the seed.
        images: uint8 ``[B, 3, S, S]``, RGB; normalising is left to the device that computes.
        masks: int64 ``[B, S, S]``: the values that the mixture's tables give, or class indices of each sample's own
            label space where it has no tables; `IGNORE` (-1) where there is no label, and everywhere in a box sample.
        boxes: for each image float32 ``[P, 4]``, x0, y0, x1, y1 in pixels of the view. Crowds and groups are left out.
        box_classes: for each image int64 ``[P]``, like `masks`.
        box_embeddings: for each image float32 ``[P, D]`` from the shards, or None.
        datasets: for each image its dataset's name, which is its label space's name too.
        dataset_ids: int64 ``[B]``: the place of that name in `Mixture.datasets`.
        annotation_types: for each image ``mask`` | ``noisy_mask`` | ``box``.
        keys: for each image its sample's key.
        skipped: one line for each corrupt sample that was met and replaced.
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

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            masks=self.masks.to(device, non_blocking=True),
            boxes=[boxes.to(device) for boxes in self.boxes],
            box_classes=[classes.to(device) for classes in self.box_classes],
            box_embeddings=[None if vectors is None else vectors.to(device) for vectors in self.box_embeddings],
            dataset_ids=self.dataset_ids.to(device),
        )

    def only(self, rows: Sequence[int]) -> Batch:
        """The batch of these samples alone."""
        return replace(
            self,
            images=self.images[list(rows)],
            masks=self.masks[list(rows)],
            boxes=[self.boxes[i] for i in rows],
            box_classes=[self.box_classes[i] for i in rows],
            box_embeddings=[self.box_embeddings[i] for i in rows],
            datasets=[self.datasets[i] for i in rows],
            dataset_ids=self.dataset_ids[list(rows)],
            annotation_types=[self.annotation_types[i] for i in rows],
            keys=[self.keys[i] for i in rows],
        )

    def pin_memory(self) -> Batch:
        """The same batch, ready for a fast copy to a GPU (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())


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

    def read(self, number: int) -> Sample:
        """Sample `number` of them all; raises SampleError or ShardError."""
        ends = list(itertools.accumulate(map(len, self.sets)))
        place = bisect.bisect_right(ends, number)
        return self.sets[place].read(number - (ends[place - 1] if place else 0))


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
        cache_mb: decoded samples are kept in memory up to this many megabytes (per loading process), because small
            datasets come round often and decoding is most of the work. 0 keeps none.

    Raises:
        ConfigError: a weight is not a positive whole number, or names no dataset.
    """

    sources: Sequence[Source]
    batch_size: int
    seed: int
    augmentation: Augmentation
    tables: Mapping[str, npt.NDArray[np.int64]] | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    cache_mb: int = 256

    def __post_init__(self) -> None:
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
        self._cache: dict[tuple[int, int], Sample] = {}
        self._room = self.cache_mb * 2**20

    @property
    def datasets(self) -> list[str]:
        """The datasets' names, in the order of `Batch.dataset_ids`."""
        return [source.dataset for source in self.sources]

    def slots(self, step: int) -> list[tuple[int, int]]:
        """For each sample of batch `step`: (which dataset, the how-manieth sample of that dataset in the run)."""
        out = []
        for slot in range(step * self.batch_size, (step + 1) * self.batch_size):
            cycles, place = divmod(slot, len(self._cycle))
            dataset, before = self._turns[place]
            out.append((dataset, cycles * self._per_cycle[dataset] + before))
        return out

    def batch(self, step: int) -> Batch:
        """Batch `step` of the run.

        Raises:
            ShardError: a shard can't be read, or sample after sample is corrupt.
        """
        size = self.augmentation.crop
        images = np.empty((self.batch_size, size, size, 3), dtype=np.uint8)
        masks = np.full((self.batch_size, size, size), IGNORE, dtype=np.int64)
        boxes, box_classes, keys = [], [], []
        box_embeddings: list[Tensor | None] = []
        skipped: list[str] = []
        slots = self.slots(step)
        for i, (dataset, number) in enumerate(slots):
            source = self.sources[dataset]
            table = self._tables[source.dataset]
            sample = self._sample(dataset, number, skipped)
            rng = np.random.default_rng([2, self.seed, self._identity[dataset], number])
            view = training_view(sample, self.augmentation, source.space.ignore_index, rng)
            images[i] = view.image
            if view.mask is not None:
                masks[i] = table[view.mask]
            boxes.append(torch.from_numpy(view.boxes))
            box_classes.append(torch.from_numpy(table[sample.box_classes[view.kept]]))
            vectors = sample.box_embeddings
            box_embeddings.append(None if vectors is None else torch.from_numpy(vectors[view.kept].astype(np.float32)))
            keys.append(sample.key)
        return Batch(
            step=step,
            images=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
            masks=torch.from_numpy(masks),
            boxes=boxes,
            box_classes=box_classes,
            box_embeddings=box_embeddings,
            datasets=[self.sources[dataset].dataset for dataset, _ in slots],
            dataset_ids=torch.tensor([dataset for dataset, _ in slots]),
            annotation_types=[self.sources[dataset].annotation_type for dataset, _ in slots],
            keys=keys,
            skipped=skipped,
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
        loader = DataLoader(
            _Steps(replace(self, cache_mb=self.cache_mb // workers)),
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

    def _sample(self, dataset: int, number: int, skipped: list[str]) -> Sample:
        """The dataset's sample for its slot `number`; the next one of the epoch where that is corrupt."""
        source = self.sources[dataset]
        epoch, place = divmod(number, len(source))
        order = self._permutation(dataset, epoch)
        for offset in range(min(len(source), _REPLACEMENTS)):
            which = int(order[(place + offset) % len(source)])
            try:
                return self._read(dataset, which)
            except SampleError as error:
                skipped.append(str(error))
        raise ShardError(f"sample after sample of {source.dataset} is corrupt; the last: {skipped[-1]}")

    def _permutation(self, dataset: int, epoch: int) -> npt.NDArray[np.int64]:
        key = (dataset, epoch)
        if key not in self._permutations:
            rng = np.random.default_rng([1, self.seed, self._identity[dataset], epoch])
            self._permutations[key] = rng.permutation(len(self.sources[dataset]))
            if len(self._permutations) > _PERMUTATIONS_KEPT * len(self.sources):
                self._permutations.popitem(last=False)
        return self._permutations[key]

    def _read(self, dataset: int, which: int) -> Sample:
        if (dataset, which) in self._cache:
            return self._cache[dataset, which]
        sample = _trainable(self.sources[dataset].read(which), self._tables[self.sources[dataset].dataset])
        # The cache is never emptied: samples come in random order, so any that is kept is as good as another.
        if sample.nbytes <= self._room:
            self._room -= sample.nbytes
            self._cache[dataset, which] = sample
        return sample


def _trainable(sample: Sample, table: npt.NDArray[np.int64]) -> Sample:
    """The sample without the boxes that teach nothing: crowds and groups, and labels that are not in play."""
    classes = sample.box_classes
    if len(classes) and (classes.min() < 0 or classes.max() >= len(table)):
        raise SampleError("a box's class is not in the label space", where=sample.key)
    keep = ~(sample.iscrowd | sample.group_of) & (table[classes] != IGNORE)
    return replace(
        sample,
        instances=None,
        boxes=sample.boxes[keep],
        box_classes=classes[keep],
        iscrowd=sample.iscrowd[keep],
        group_of=sample.group_of[keep],
        box_embeddings=None if sample.box_embeddings is None else sample.box_embeddings[keep],
    )


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

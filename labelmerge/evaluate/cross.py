"""What a checkpoint calls the pixels of one dataset in the words of another: the counts behind evidence by pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from labelmerge.bank.bank import Bank
from labelmerge.device import choose_device
from labelmerge.errors import SampleError, ShardError, UsageError
from labelmerge.evaluate.sets import EvalSet, open_sets
from labelmerge.merge.evidence import Confusion
from labelmerge.methods.predictor import LabelList, Predictor, are_numbers, refuse_no_numbers
from labelmerge.methods.restore import load_bank, load_trained
from labelmerge.model.views import Views
from labelmerge.progress import Track, no_track

IMAGES = 50
"""How many images of each dataset are looked at by default."""

_ONCE = Views()
_log = logging.getLogger(__name__)


def count_predictions(
    checkpoint: Path,
    shards: Sequence[Path],
    bank: Path | None,
    *,
    limit: int = IMAGES,
    seed: int = 0,
    split: str | None = None,
    device: str | None = None,
    track: Track = no_track,
) -> list[Confusion]:
    """Look at images of every dataset with the words of all of them.

    The model sees each image once; of its scores the best label of each dataset in turn is taken. Datasets without
    masks are left out.

    Args:
        checkpoint: a run, or one checkpoint folder.
        shards: split folders, dataset folders, or folders of datasets; of each dataset one split.
        bank: holds the labels of these datasets, in the space that the checkpoint was trained in. None: the one that
            the checkpoint carries.
        limit: how many images of each dataset, drawn by `seed`.
        split: as `labelmerge.evaluate.sets.open_sets`.
        device: where the model lives; by default a GPU if there is one.

    Returns:
        A confusion for each ordered pair of datasets, and of each with itself.

    Raises:
        UsageError: no images are asked for, there is one dataset alone, or the method knows its own labels only.
        CheckpointError, ShardError, BankError: what was given can't be used or doesn't fit together.
    """
    if limit < 1:
        raise UsageError(f"a limit of {limit} images leaves nothing to look at")
    sets = _one_each(open_sets(shards, (), split))
    if len(sets) < 2:
        raise UsageError(
            f"only {sets[0].dataset} has masks here, and a dataset is compared with others",
            fix="Give the shards of several datasets",
        )
    trained = load_trained(checkpoint, choose_device(device))
    vectors = load_bank(bank, trained)
    lists = [_known(data, vectors) for data in sets]
    every = LabelList(
        names=tuple(name for own in lists for name in own.names),
        texts=tuple(text for own in lists for text in own.texts),
        keys=tuple(key for own in lists for key in own.keys),
        vectors=np.concatenate([own.vectors for own in lists]),
    )
    predictor = trained.predictor(every, _ONCE, vectors)
    words = _words(predictor, [len(own.names) for own in lists])
    found = []
    for place, data in enumerate(sets):
        predictor = trained.predictor(every, _ONCE, vectors, dataset=data.dataset)
        totals = [np.zeros((len(data.space), len(own.names)), dtype=np.int64) for own in lists]
        _count(totals, data, predictor, words, limit, np.random.default_rng([seed, place]), track)
        found += [
            Confusion(data.space.keys, tuple(key for key in own.keys if key is not None), pixels)
            for own, pixels in zip(lists, totals, strict=True)
        ]
    return found


def _known(data: EvalSet, bank: Bank) -> LabelList:
    """The labels of a set that the bank holds. Raises BankError where it has none of them, or other names for them."""
    bank.refuse_other_names(data.space)
    keys = [key for key in data.space.keys if key in bank]
    if not keys:
        bank.for_dataset(data.dataset)  # says how to add them
    rows = bank.positions(keys)
    return LabelList(
        names=tuple(bank.names[row] for row in rows),
        texts=tuple(bank.texts[row] for row in rows),
        keys=tuple(keys),
        vectors=bank.rows(keys),
    )


def _one_each(sets: Sequence[EvalSet]) -> list[EvalSet]:
    """The first split of each dataset."""
    return list({data.dataset: data for data in reversed(sets)}.values())[::-1]


def _words(predictor: Predictor, sizes: Sequence[int]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """For each dataset the rows of `Predictor.scores` that its labels have, and each row's label, its own first one."""
    row_of = {int(position): row for row, position in enumerate(predictor.positions)}
    found, start = [], 0
    for size in sizes:
        first: dict[int, int] = {}
        for label, meant in enumerate(predictor.predicted_as[start : start + size].tolist()):
            if meant >= 0:
                first.setdefault(row_of[meant], label)
        found.append((np.array(list(first), dtype=np.int64), np.array(list(first.values()), dtype=np.int64)))
        start += size
    return found


def _count(
    totals: Sequence[npt.NDArray[np.int64]],
    data: EvalSet,
    predictor: Predictor,
    words: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    limit: int,
    rng: np.random.Generator,
    track: Track,
) -> None:
    """Count how many pixels of each label of a set are called what, in the words of every dataset."""
    position = data.space.lookup({index: k for k, index in enumerate(data.space.indices)}, -1)
    numbers = sorted(rng.choice(data.count, size=min(limit, data.count), replace=False).tolist())
    used = 0
    for number in track(numbers, f"looking at {data.dataset} {data.split}", len(numbers)):
        try:
            picture = data.read(number, False, False)
            assert picture.mask is not None  # sets without masks are left out
            truth = position[picture.mask]
            for rows, scores in predictor.scores(picture.image):
                refuse_no_numbers(are_numbers(scores))
                _add(totals, truth[rows], scores, words)
        except SampleError as error:
            _log.warning("skipped %s", error)
        else:
            used += 1
    if not used:
        raise ShardError(f"none of {len(numbers)} images can be used", where=data.where, fix="Try `labelmerge verify`")


def _add(
    totals: Sequence[npt.NDArray[np.int64]],
    truth: npt.NDArray[np.int64],
    scores: torch.Tensor,
    words: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> None:
    labelled = truth >= 0
    for total, (rows, labels) in zip(totals, words, strict=True):
        if not len(rows):
            continue
        best = scores[torch.from_numpy(rows).to(scores.device)].argmax(dim=0).cpu().numpy()
        pairs = truth[labelled] * total.shape[1] + labels[best[labelled]]
        total += np.bincount(pairs, minlength=total.size).reshape(total.shape)

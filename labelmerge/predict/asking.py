"""What a run is asked for: the labels that a user wrote → what segments images with them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.errors import CheckpointError, UsageError
from labelmerge.methods.meaning import By, run_columns
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.methods.restore import Trained
from labelmerge.model.views import Views
from labelmerge.predict.queries import LabelQuery, ResolvedLabel, resolve
from labelmerge.predict.segments import which_are_things
from labelmerge.text import counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Asked:
    """Labels that a run was asked for.

    Attributes:
        labels: each with its vector, in the order in which they were written.
        listed: the same as the predictor takes them.
        predictor: segments images with them.
        by: what labels of datasets are asked for by.
    """

    labels: tuple[ResolvedLabel, ...]
    listed: LabelList
    predictor: Predictor
    by: By


def ask_run(
    trained: Trained,
    labels: Sequence[LabelQuery] | None,
    views: Views,
    *,
    encoder: str | None = None,
    device: str | None = None,
    by: By | None = None,
    segments: bool = False,
) -> Asked:
    """Look labels up in the bank that a checkpoint carries, encode new ones, and make what segments images with them.

    Args:
        labels: None: all labels of the dataset that the run was trained on, if it is one.
        encoder, device, by: as of `labelmerge.predict.predict.predict`.
        segments: which of them are things is to be known, too.

    Raises:
        UsageError: a label can't be found, the run gives depths, its method knows its own labels only, or there is
            nothing to choose from.
        CheckpointError, BankError, EncoderError: these can't be used.
    """
    source = trained.checkpoint
    if trained.learner.answers != "labels":
        raise UsageError("gives depths, and no labels", where=source.folder, fix="Leave --labels out")
    if source.bank_folder is None:
        raise CheckpointError("the checkpoint carries no bank, so no label can be looked up", where=source.folder)
    bank = Bank.load(source.bank_folder)
    if labels is None:
        labels = _all_of_one(trained, bank)
    if not labels:
        raise UsageError("no labels to choose from")
    # A method with a closed list knows the words of its datasets alone.
    known = trained.learner.vocabulary.datasets
    first = known if trained.learner.can_name == "trained" else ()
    resolved = tuple(resolve(labels, bank, first=first, trained=known, encoder=encoder, device=device))
    listed = LabelList(
        names=tuple(label.name for label in resolved),
        texts=tuple(label.text for label in resolved),
        keys=tuple(label.key for label in resolved),
        vectors=np.stack([label.vector for label in resolved]),
    )
    if (columns := run_columns(source, trained.learner, by)) is not None:
        listed = columns.ask(listed, [(label.key,) if label.key else () for label in resolved], bank)
    if segments:
        listed = replace(listed, things=which_are_things(resolved, bank, trained.learner.which_are_things()))
    predictor = trained.predictor(listed, views)
    _warn(resolved, predictor)
    return Asked(resolved, listed, predictor, "text" if columns is None else "concepts")


def _all_of_one(trained: Trained, bank: Bank) -> list[LabelQuery]:
    """All labels of the one dataset that a run was trained on. Raises UsageError where it is several."""
    datasets = trained.learner.vocabulary.datasets or tuple(sorted({dataset for dataset, _ in bank.keys}))
    if len(datasets) == 1:
        return [LabelQuery(f"{datasets[0]}:*")]
    raise UsageError(
        f"no labels to choose from: the run was trained on {counted(len(datasets), 'dataset')}",
        where=trained.checkpoint.folder,
        fix=f'Give --labels "road, sky", or --labels "{datasets[0]}:*" for all labels of one dataset',
    )


def _warn(labels: Sequence[ResolvedLabel], predictor: Predictor) -> None:
    if len(predictor.positions) == 1:
        _log.warning("with one label to choose from, every pixel gets it: add labels for the rest of the image")
    for number, meant in enumerate(predictor.predicted_as.tolist()):
        label = labels[number]
        if meant < 0 and label.vector.any():
            _log.warning("%r is covered by narrower labels of the list, which are predicted instead", label.name)
        elif meant < 0:
            _log.warning("%r has no vector and is never predicted", label.name)
        elif meant != number:
            _log.warning("%r means the same as %r, and is predicted as that", label.name, labels[meant].name)

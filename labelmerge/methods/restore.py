"""A checkpoint → the learner that it holds, what segments images with it, and a bank whose vectors it understands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, CheckpointError, ConfigError, UsageError
from labelmerge.labels import LabelKey, LabelNames
from labelmerge.methods.method import Learner, Vocabulary, find_method, settings_in
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.model.build import SegmentationModel, build_model
from labelmerge.model.checkpoint import Checkpoint, load_checkpoint
from labelmerge.model.views import Views
from labelmerge.text import some

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """A learner from a checkpoint, ready for use.

    Attributes:
        learner: on the device asked for, in eval mode.
        checkpoint: where it is from.
        device: where it is.
    """

    learner: Learner
    checkpoint: Checkpoint
    device: torch.device

    @cached_property
    def _names(self) -> LabelNames | None:
        """Of the labels that it may have been trained with; None where the checkpoint doesn't say."""
        folder = self.checkpoint.bank_folder
        if folder is None:
            return None
        bank = Bank.load(folder)
        return LabelNames(zip(bank.keys, bank.names, strict=True))

    def predictor(
        self, labels: LabelList, views: Views, bank: Bank | None = None, *, dataset: str | None = None
    ) -> Predictor:
        """What segments images with these labels.

        Args:
            views: how images are shown; where its short edge is None, as in training.
            dataset: whose images, where it is known: it may have been trained in views of its own.
            bank: that the labels' keys are of; None: the checkpoint's own. In another one a key may be another class.

        Raises:
            UsageError: the learner knows its own labels only, and these are others.
            BankError, CheckpointError: the vectors, or the short edge of training, can't be used.
        """
        if views.short_edge is None:
            views = views.at(self.checkpoint.short_edge_of(dataset))
        if bank is not None and self._names is not None:
            labels = replace(labels, keys=_as_trained(labels.keys, bank, self._names))
        if self.learner.can_name == "trained":
            _refuse_new_words(labels, self.learner, self.checkpoint)
        return self.learner.predictor(labels, views)


def _as_trained(keys: Sequence[LabelKey | None], bank: Bank, names: LabelNames) -> tuple[LabelKey | None, ...]:
    """Labels of a bank by the keys that the classes of their names had in training; None where a key was another's."""
    found: list[LabelKey | None] = []
    for key in keys:
        if key is None or key not in bank:
            found.append(key)
            continue
        (row,) = bank.positions([key])
        same = names.find(key, bank.names[row])
        found.append(key if same is None and key not in names else same)
    return tuple(found)


def load_trained(path: Path, device: torch.device | str = "cpu") -> Trained:
    """The learner of a run or checkpoint.

    Raises:
        CheckpointError: there is none, it is damaged, or this version doesn't know its method or model.
    """
    checkpoint = load_checkpoint(path)
    try:
        learner = restore(checkpoint)
    except ConfigError as error:
        raise CheckpointError(
            f"can't be used by this version: {error.what}", where=checkpoint.folder, fix="Use the version that wrote it"
        ) from error
    device = torch.device(device)
    return Trained(learner.to(device).eval(), checkpoint, device)


def restore(checkpoint: Checkpoint, vocabulary: Vocabulary | None = None) -> Learner:
    """The learner with a checkpoint's state, on the CPU.

    Args:
        vocabulary: None: the one that the checkpoint remembers.

    Raises:
        CheckpointError: the state isn't that of such a learner.
        ConfigError: this version doesn't know the method or the model.
    """
    method = find_method(checkpoint.method)
    settings = settings_in(checkpoint.config, checkpoint.method)
    vocabulary = vocabulary or Vocabulary.from_meta(checkpoint.meta)
    learner = method.build(settings, vocabulary, network_of(checkpoint))
    try:
        learner.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights do not fit the model {checkpoint.model_name!r}", where=checkpoint.folder
        ) from error
    return learner


def load_bank(folder: Path | None, trained: Trained) -> Bank:
    """The newest version of a bank, made sure to be in the space that the learner was trained in.

    Args:
        folder: None: the checkpoint's own bank.

    Raises:
        BankError: no bank is there, or another encoder made it; the message names both encoders.
        CheckpointError: the checkpoint's own was asked for, and it carries none.
    """
    checkpoint, dim = trained.checkpoint, trained.learner.vocabulary.dim
    if folder is None:
        if checkpoint.bank_folder is None:
            raise CheckpointError("the checkpoint carries no bank", where=checkpoint.folder, fix="Give --bank")
        # Without its folder: no message is to advise adding to what a checkpoint carries.
        return replace(Bank.load(checkpoint.bank_folder), folder=None)
    bank = Bank.load(folder)
    fix = "Use a bank of the encoder that the checkpoint was trained with"
    if checkpoint.bank_folder is not None:
        fix += ", or leave --bank out: the checkpoint carries its own"
        own = Bank.load(checkpoint.bank_folder)
        if not own.same_encoder(bank):
            raise BankError(
                f"this bank was made by {_identity(bank)}, the checkpoint was trained with {_identity(own)}",
                where=folder,
                fix=fix,
            )
        if own.prompt != bank.prompt:
            _log.warning(
                "the bank's texts are made as %r, those that the checkpoint was trained with as %r",
                bank.prompt,
                own.prompt,
            )
    if bank.dim != dim:
        raise BankError(
            f"its vectors ({_identity(bank)}) have {bank.dim} dimensions, the checkpoint's pixel embeddings {dim}",
            where=folder,
            fix=fix,
        )
    return bank


def _identity(bank: Bank) -> str:
    return f"{bank.encoder} (weights {str(bank.identity.get('weights_sha256'))[:12]}, {bank.dim} dimensions)"


def network_of(checkpoint: Checkpoint) -> Callable[[int], SegmentationModel]:
    """A function that builds a checkpoint's network again."""
    return lambda dim: build_model(checkpoint.model_name, dim)


def _refuse_new_words(labels: LabelList, learner: Learner, checkpoint: Checkpoint) -> None:
    vocabulary = learner.vocabulary
    listed = {name for name, _ in vocabulary.keys} if learner.passes_over_unseen else set()
    new = [
        name
        for name, text, key in zip(labels.names, labels.texts, labels.keys, strict=True)
        if not vocabulary.columns_of(key, text) and (key is None or key[0] not in listed)
    ]
    if new:
        raise UsageError(
            f"the method {checkpoint.method!r} knows only the labels that it was trained with, and not "
            f"{some(map(repr, new))}",
            where=checkpoint.folder,
            fix="Ask for labels of its columns (meta.json lists them), or train with --method ssiw",
        )

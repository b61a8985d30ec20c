"""What a new run begins with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from labelmerge.errors import CheckpointError, ConfigError
from labelmerge.methods.method import Learner, Method, Vocabulary
from labelmerge.methods.restore import restore
from labelmerge.model.build import SegmentationModel, build_model
from labelmerge.model.checkpoint import Checkpoint, load_checkpoint
from labelmerge.train.config import TrainConfig
from labelmerge.urls import path_or_url

_log = logging.getLogger(__name__)


def begin(
    config: TrainConfig, method: Method, vocabulary: Vocabulary, encoder: str
) -> tuple[Learner, dict[str, Any] | None]:
    """A learner: new, or with the weights of the run or checkpoint `config.init`.

    What a checkpoint of the same method holds is taken over whole, but for what belongs to single labels where it has
    others; of another method, what has the same name and shape, that is the encoder and often more; with
    `config.encoder_only` its encoder, and all else is new.

    Args:
        encoder: of the label vectors.

    Returns:
        The learner, and what meta.json says about the checkpoint that it is from: its path, hash and step.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: it is of another model, or of vectors of another dimension.
    """

    def network(dim: int) -> SegmentationModel:
        return build_model(config.model, dim, pretrained=None if config.init else config.pretrained or None)

    learner = method.build(config.method_settings, vocabulary, network)
    if config.encoder_only and not config.init:
        _log.warning("encoder_only has no effect without --init, whose weights it is about")
    if not config.init:
        return learner, None
    given = load_checkpoint(Path(config.init))
    _refuse_what_does_not_fit(given, config, vocabulary)
    if given.meta.get("encoder") != encoder and not config.encoder_only:
        _log.warning(
            "%s was trained with vectors of %s, and continues with those of %s: the same labels have other vectors",
            path_or_url(given.folder), given.meta.get("encoder"), encoder,
        )  # fmt: skip
    _log.info("starting from the weights of %s", path_or_url(given.folder))
    _take_over(learner, given, encoder_only=config.encoder_only)
    return learner, {"checkpoint": path_or_url(given.folder), "hash": given.hash, "step": given.step}


def resume(checkpoint: Checkpoint, vocabulary: Vocabulary) -> tuple[Learner, dict[str, Any] | None]:
    """The learner of a run that goes on, and what it began with, as from `begin`.

    Raises:
        CheckpointError, ConfigError: the checkpoint is not of this run.
    """
    return restore(checkpoint, vocabulary), checkpoint.meta.get("init")


def _refuse_what_does_not_fit(given: Checkpoint, config: TrainConfig, vocabulary: Vocabulary) -> None:
    if given.model_name != config.model:
        raise ConfigError(
            f"is a {given.model_name}, and this run trains a {config.model}",
            where=given.folder,
            fix=f"Use its preset or --model {given.model_name}, or another --init",
        )
    dim = Vocabulary.from_meta(given.meta).dim
    if given.method == config.method and not config.encoder_only and dim != vocabulary.dim:
        raise ConfigError(
            f"its embeddings have {dim} dimensions, and the labels' vectors {vocabulary.dim}",
            where=given.folder,
            fix=f"Use a bank of the encoder that it was trained with ({given.meta.get('encoder')}), another --init, or "
            "--encoder-only",
        )


def _take_over(learner: Learner, given: Checkpoint, *, encoder_only: bool) -> None:
    """Give the learner what the checkpoint has of its state. Raises CheckpointError where that is nothing."""
    own = learner.state_dict()
    if encoder_only:
        taken = {key for key in own if key.startswith("model.") and learner.model.is_encoders(key[len("model.") :])}
        given = replace(given, tensors={key: value for key, value in given.tensors.items() if key in taken})
    other_labels = Vocabulary.from_meta(given.meta).labels != learner.vocabulary.labels
    left = learner.of_labels if other_labels else ()
    fitting = {
        key: value
        for key, value in given.tensors.items()
        if key in own and own[key].shape == value.shape and not key.startswith(left)
    }
    if not fitting:
        raise CheckpointError("none of its weights fit", where=given.folder, fix="Use another --init")
    if new := own.keys() - fitting.keys():
        _log.info(
            "%d of %d tensors are new: %s has none of that name and shape, or other labels",
            len(new),
            len(own),
            path_or_url(given.folder),
        )
    learner.load_state_dict({**own, **fitting})


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any], checkpoint: Path) -> None:
    """Give the optimiser its state from `load_state`. Raises CheckpointError where it is another's."""
    ours = [set(group) for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state["optimizer"])
        fits = [set(group) for group in optimizer.param_groups] == ours and all(
            value.shape in ((), parameter.shape)
            for parameter, values in optimizer.state.items()
            for value in values.values()
            if isinstance(value, Tensor)
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _other_state(checkpoint) from error
    if not fits:
        raise _other_state(checkpoint)


def restore_weights(learner: Learner, state: Mapping[str, Any], checkpoint: Path) -> None:
    """Give the learner its own weights, where the checkpoint's are an average. Raises CheckpointError."""
    try:
        learner.load_state_dict(state["weights"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _other_state(checkpoint) from error


def logged_in(state: Mapping[str, Any], figures: int, checkpoint: Path) -> list[list[float]]:
    """The figures of the steps since the last line of the log. Raises CheckpointError where they are another run's."""
    rows = state.get("logged")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == figures for row in rows):
        raise _other_state(checkpoint)
    return rows


def _other_state(checkpoint: Path) -> CheckpointError:
    return CheckpointError(
        "the training state is not that of this run",
        where=checkpoint,
        fix="Use another checkpoint, or remove this one and train on from the one before",
    )

"""The interface between the training loop and the methods. docs/methods.md, "Writing a method".

A **method** says what batches must hold and builds a **learner**: a module that holds all that is trained or remembered
(network, temperature, heads, momentum copies, prototypes). Its state is parameters and buffers and nothing else, so a
checkpoint is its ``state_dict``, several processes share it and an average copies it, whatever the method. The loop
knows nothing else of either. What a learner has learned is used through its predictor
(`labelmerge.methods.predictor.Predictor`).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError, UsageError, did_you_mean
from labelmerge.labels import LabelKey
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import DatasetShards
from labelmerge.merge.columns import Columns
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.model.build import SegmentationModel
from labelmerge.model.views import Views
from labelmerge.processes import Ranks
from labelmerge.settings import parse, refuse, settings_of

Answers = Literal["labels", "depth"]


@dataclass(frozen=True)
class Needs:
    """What batches must hold.

    Attributes:
        annotation_types: the kinds of samples that the method learns from; datasets of others are left out.
        because: the setting that decides this, as the log names it.
        segments: batches hold instance maps and segments, where datasets have them.
        depth: batches hold depths; datasets without any are left out, and labels need not be there.
        views: how many views of each sample there are.
        label_targets: masks hold the labels' rows in `Columns.positive` also where each label is one column.
    """

    annotation_types: tuple[str, ...]
    because: str = ""
    segments: bool = False
    depth: bool = False
    views: int = 1
    label_targets: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """What a learner is built for, as stored in a checkpoint: the D datasets and the N columns of a run.

    Attributes:
        dim: C, the dimension of the label vectors.
        datasets: by name, in the order of `Batch.dataset_ids`.
        texts: what each column means.
        labels: the labels that each column may stand for.
    """

    dim: int
    datasets: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[tuple[LabelKey, ...], ...]

    def to_meta(self) -> dict[str, Any]:
        """As meta.json of a checkpoint has it."""
        return {
            "label_dim": self.dim,
            "datasets": list(self.datasets),
            "columns": list(self.texts),
            "column_labels": [[f"{dataset}:{index}" for dataset, index in keys] for keys in self.labels],
        }

    @property
    def keys(self) -> tuple[LabelKey, ...]:
        """The labels that the run was trained with, each once, sorted."""
        return tuple(sorted({key for own in self.labels for key in own}))

    def columns_of(self, key: LabelKey | None, text: str) -> tuple[int, ...]:
        """The columns that a label may stand for, as a dataset's label or else by its text; () where there is none."""
        found = tuple(column for column, keys in enumerate(self.labels) if key in keys)
        return found or tuple(column for column, known in enumerate(self.texts) if known == text)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Vocabulary:
        """The inverse of `to_meta`. Checkpoints from before there were methods have neither dimension nor datasets.

        Raises:
            ConfigError: it is of another form.
        """
        try:
            return cls._read(meta)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"its columns are damaged ({type(error).__name__}: {error})") from error

    @classmethod
    def _read(cls, meta: Mapping[str, Any]) -> Vocabulary:
        split = [[key.rpartition(":") for key in keys] for keys in meta.get("column_labels", ())]
        labels = tuple(tuple((dataset, int(index)) for dataset, _, index in keys) for keys in split)
        seen = sorted({dataset for keys in labels for dataset, _ in keys})
        if not all(isinstance(name, str) for name in (*meta.get("datasets", ()), *meta.get("columns", ()))):
            raise TypeError("names must be strings")
        if labels and (len(labels) != len(meta.get("columns", ())) or not all(labels)):
            raise ValueError("columns must have labels, each some")
        return cls(
            dim=meta.get("label_dim", meta["model"]["embedding_dim"]),
            datasets=tuple(meta.get("datasets", seen)),
            texts=tuple(meta.get("columns", ())),
            labels=labels,
        )


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a learner may read before the first step.

    Attributes:
        bank: the label vectors' bank version.
        columns: the merged labels.
        sources: the D datasets.
        ranks: the processes of the run.
        device: where the learner is.
        step: the step that the run continues from; state that is costly and saved is made only at step 0.
        short_edge: pixels of whole images' short edge at scale 1; 0 keeps their own size.
        short_edges: the same of datasets that have views of their own.
    """

    bank: Bank
    columns: Columns
    sources: Sequence[DatasetShards]
    ranks: Ranks
    device: torch.device
    step: int
    short_edge: int
    short_edges: Mapping[str, int] = field(default_factory=dict)

    def short_edge_of(self, dataset: str) -> int:
        """That of a dataset's images."""
        return self.short_edges.get(dataset, self.short_edge)


class Learner(nn.Module):
    """Everything that is trained or remembered, and the loss of a batch.

    Attributes:
        terms: names of the T terms of the loss, as the log shows them.
        can_name: which labels it can be asked for: ``anything`` that has a vector, or those that it was ``trained``
            with.
        answers: what its predictor gives for every pixel of an image: ``labels``, or its ``depth``.
        takes_labels: of depths, whether the labels of the image's pixels must be given with it.
        by_text: it knows labels by their own texts alone, and is never asked by a run's columns.
        passes_over_unseen: whether it can also be asked for labels that its datasets list but that never occurred in
            them; it never predicts them.
        of_labels: how the names of what belongs to single labels begin in its state. Another run's is not taken over
            (`init`) where its labels are others: they may be as many.
        vocabulary: what it was built for.
        model: its network.
    """

    terms: tuple[str, ...] = ()
    can_name: Literal["anything", "trained"] = "anything"
    passes_over_unseen: bool = False
    by_text: bool = False
    answers: Answers = "labels"
    takes_labels: bool = False
    of_labels: tuple[str, ...] = ()

    def __init__(self, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.model = model

    def prepare(self, data: TrainingData) -> None:
        """Called when training begins or resumes, on the device, with the checkpoint's state: label vectors, centroids.

        All processes must come to the same state. What can be made again (the bank's vectors) belongs into plain
        attributes or buffers with ``persistent=False``.
        """

    def mix(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch to learn from: samples mixed with each other, or the batch itself.

        Args:
            generator: on the CPU, seeded by the run's seed and the step, equally in all processes. Draw for all
                ``batch.whole`` samples and take those of ``batch.places``, and a step is the same however many
                processes share it.
        """
        return batch

    def units(self, batch: Batch) -> Tensor:
        """What each term's mean is taken over (pixels, boxes, segments), known before the network runs.

        Args:
            batch: any part of a step.

        Returns:
            int64 ``[T, D]``, on the device of the batch. Those of several parts add up.
        """
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch as weighted sums over its units.

        The step's loss is Σ_t Σ_d sums[t, d] / Σ_d units[t, d], over all parts of the step. Every parameter that
        takes gradients must take part in every call, if only multiplied by 0: other processes wait for its gradient.

        Returns:
            float ``[T, D]``, 0 where there is no unit.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        """Called after the optimiser's step number `step` (from 0): momentum copies, prototypes.

        Under several processes, whatever is changed here must come out equal in all of them.

        Returns:
            Scalars for the log; those of the last step before a line are shown.
        """
        return {}

    def figures(self) -> dict[str, float]:
        """Scalars of its state for the log, meta.json and results (a temperature)."""
        return {}

    def parameter_groups(self, lr: float, weight_decay: float, head_factor: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser.

        Args:
            lr: of the encoder.
            weight_decay: of weights; norms and biases have none.
            head_factor: the learning rate of all but the encoder is `lr` times this.
        """
        groups = self.model.parameter_groups(lr, weight_decay, head_factor=head_factor)
        inside = {id(parameter) for group in groups for parameter in group["params"]}
        rest = [each for each in self.parameters() if each.requires_grad and id(each) not in inside]
        for decay, some in (
            (weight_decay, [each for each in rest if each.ndim > 1]),
            (0.0, [each for each in rest if each.ndim <= 1]),
        ):
            if some:
                groups.append({"params": some, "lr": lr * head_factor, "weight_decay": decay})
        return groups

    def which_are_things(self) -> Mapping[LabelKey, bool]:
        """Of the labels of training, as far as it learned segments: things, or stuff."""
        return {}

    def set_segment_score(self, score: float) -> None:
        """How probable a segment's label has to be, 0..1, for predictors from now on; until then as in training.

        Raises UsageError where the method knows no segments, ConfigError where the score is out of bounds.
        """
        raise UsageError("the checkpoint's method knows no segments", fix="Leave out --segment-score")

    def predictor(self, labels: LabelList, views: Views) -> Predictor:
        """A predictor of these labels. Call `labelmerge.methods.restore.predictor_of`, which checks them."""
        raise NotImplementedError


class Method(ABC):
    """A way to supervise. `settings` are always its own, as `labelmerge.methods.settings` declares them.

    Attributes:
        answers: as its learner's.
    """

    answers: Answers = "labels"

    @abstractmethod
    def needs(self, settings: Any) -> Needs:
        """What batches must hold with these settings."""

    def check(self, settings: Any, sources: Sequence[DatasetShards], bank: Bank) -> None:  # noqa: B027 (may be left)
        """Refuse data that doesn't fit, before anything is written. Raises LabelmergeError."""

    @abstractmethod
    def build(self, settings: Any, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]) -> Learner:
        """A new learner.

        Args:
            network: makes the run's network with this many output channels; to be called once.
        """


def find_method(name: str) -> Method:
    """The method of this name (`METHOD_SETTINGS`); raises ConfigError."""
    if name not in METHOD_SETTINGS:
        raise ConfigError(f"unknown method {name!r}", fix=did_you_mean(name, METHOD_SETTINGS))
    package = METHOD_SETTINGS[name].__module__.rpartition(".")[0]
    method: Method = importlib.import_module(f"{package}.method").METHOD
    return method


def settings_in(config: Mapping[str, Any], name: str) -> Any:
    """A method's own settings out of all settings of a run; defaults where the run has none (it is older).

    Raises:
        ConfigError: they are of the wrong type or out of bounds.
    """
    kind = METHOD_SETTINGS[name]
    declared = settings_of(kind)
    values, problems = parse(declared, {each.name: config[each.name] for each in declared if each.name in config})
    refuse(problems)
    return kind(**values)


def part_in_step(*tensors: Tensor) -> Tensor:
    """0, with a gradient of 0 for each of the tensors: for parameters that a batch gives no loss."""
    return torch.stack([tensor.sum() * 0 for tensor in tensors]).sum()

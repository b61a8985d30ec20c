"""Measuring a run that gives depths: on sets with depths, with their labels where the run takes some."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError, UsageError
from labelmerge.evaluate.counting import count_set
from labelmerge.evaluate.questions import Question, Questions
from labelmerge.evaluate.record import SetResult
from labelmerge.evaluate.sets import EvalSet
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import Trained
from labelmerge.model.views import Views
from labelmerge.processes import Ranks
from labelmerge.progress import Track
from labelmerge.shardset.depth_maps import RELATIVE, metres
from labelmerge.tasks.depth import Depth
from labelmerge.tasks.semantic import Metrics

_ROUNDING = 1e-9  # of a cap: 10 m of millimetres are 10,000


@dataclass(frozen=True)
class DepthLimits:
    """Which depths count.

    Attributes:
        crop: the part of the image, one of `labelmerge.tasks.depth.CROPS`; None: all of it.
        most: the cap in metres; None: no cap.
    """

    crop: str | None = None
    most: float | None = None

    def task(self, data: EvalSet) -> Depth:
        """What is measured on a set. Raises UsageError where there is a cap, and its depths are not in metres."""
        if self.most is None:
            return Depth(data.space, self.crop)
        metre = metres(data.depth_unit or RELATIVE)
        if metre is None:
            raise UsageError(
                f"the depths of {data.name} are right up to a factor, so that {self.most:g} m can't be found in them",
                where=data.where,
                fix="Leave out --depth-max for this set",
            )
        return Depth(data.space, self.crop, self.most / metre * (1 + _ROUNDING))

    def to_json(self) -> dict[str, Any]:
        """For the protocol of results.json; empty where there are no limits."""
        of_crop = {} if self.crop is None else {"depth_crop": self.crop}
        return of_crop if self.most is None else {**of_crop, "depth_max": self.most}


def refuse_other_tasks(trained: Trained, tasks: Collection[str], mixed: bool, limits: DepthLimits) -> None:
    """Make sure that what is to be measured is what the run gives. Raises UsageError."""
    where = trained.checkpoint.folder
    if limits.most is not None and not 0 < limits.most < math.inf:
        raise UsageError(f"--depth-max {limits.most:g} is not a distance", fix="Give metres, such as 10")
    if trained.learner.answers != "depth":
        if limits != DepthLimits():
            raise UsageError(
                f"a run of the method {trained.checkpoint.method!r} gives labels, and no depths",
                where=where,
                fix="Leave out --depth-crop and --depth-max",
            )
        if "depth" in tasks:
            raise UsageError(
                f"a run of the method {trained.checkpoint.method!r} gives labels, and no depths",
                where=where,
                fix="Train with --method depth, or leave out --task depth",
            )
        return
    others = sorted({*tasks} - {"depth"})
    if others or mixed:
        what = f"--task {others[0]}" if others else "--mixed"
        raise UsageError("gives depths, and no labels", where=where, fix=f"Leave out {what}")


def ask_depths(sets: Sequence[EvalSet], trained: Trained, bank: Bank, views: Views, limits: DepthLimits) -> Questions:
    """What to ask on each set: depths, of images with their own labels where the run takes labels.

    Raises:
        ShardError: it takes labels, and a set has none.
        BankError: the bank lacks some.
        UsageError: the views don't serve, or the limits have no meaning on a set.
    """
    questions = []
    for data in sets:
        limits.task(data)
        space = data.space
        if not trained.learner.takes_labels:
            zeros = np.zeros((len(space), bank.dim), dtype=np.float32)
            labels = LabelList(space.names, space.names, space.keys, zeros)
        elif data.annotation_type in ("mask", "noisy_mask"):
            labels = LabelList.of(space, bank)
        else:
            raise ShardError(
                f"{data.name} has no masks, and the run takes labels as its second input",
                where=data.where,
                fix="Relabel it with a trained model (`labelmerge relabel`), or measure a run without labels",
            )
        questions.append(
            Question(data, labels, trained.predictor(labels, views, dataset=data.dataset), None, None, None)
        )
    return Questions(tuple(questions), by="text", mixed=None, taxonomy="")


def measure_depth(question: Question, limits: DepthLimits, limit: int | None, ranks: Ranks, track: Track) -> SetResult:
    """One set, by all processes together. Raises ShardError where nothing could be measured."""
    data, predictor = question.data, question.predictor
    assert predictor is not None  # `ask_depths`
    task = limits.task(data)
    counted = count_set(
        data,
        [(task, predictor)],
        limit=limit,
        own=None,
        examples=0,
        segments=False,
        depth=True,
        ranks=ranks,
        track=track,
        nothing="a pixel with a known depth",
    )
    confusion = np.zeros((len(data.space), len(data.space)), dtype=np.int64)
    return SetResult(
        data=data,
        labels=question.labels,
        predicted_as=list(range(len(data.space))),
        images=counted.images,
        skipped=[*data.skipped, *counted.skipped],
        ignored_pixels=0,
        confusion=confusion,
        metrics=Metrics.of(confusion),
        depth=task.figures(counted.totals[0]),
    )

"""The smallest method that has everything: a network, a buffer that it remembers, a term of its own, a closed head.

Pixels learn the class of their column by a linear head, and the network's output is kept small by a second term, over
all images. A running mean of the output is remembered in a buffer, is subtracted before the head, and moves after
every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.methods.method import Learner, Method, Needs, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.model.build import SegmentationModel
from labelmerge.model.views import Views

from .settings import AveragesSettings

CHANNELS = 6


class AveragesLearner(Learner):
    terms = ("class", "small")
    can_name = "trained"

    def __init__(self, settings: AveragesSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.speed = settings.speed
        self.head = nn.Conv2d(CHANNELS, len(vocabulary.texts), 1)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.begun: Tensor
        self.register_buffer("begun", torch.zeros((), dtype=torch.int64))
        self.seen: list[Tensor] = []

    def prepare(self, data: TrainingData) -> None:
        if data.step == 0:
            self.begun += len(data.sources)

    def mix(self, batch: Batch, generator: torch.Generator) -> Batch:
        shade = torch.randint(0, 2, (batch.whole,), generator=generator)[batch.places].to(batch.images.device)
        batch.images.sub_(shade.view(-1, 1, 1, 1).to(torch.uint8) * (batch.images > 0))
        return batch

    def units(self, batch: Batch) -> Tensor:
        datasets = len(self.vocabulary.datasets)
        labelled = (batch.masks != IGNORE).flatten(1).sum(1)
        units = labelled.new_zeros(2, datasets)
        units[0].index_add_(0, batch.dataset_ids, labelled)
        units[1].index_add_(0, batch.dataset_ids, torch.ones_like(labelled))
        return units

    def forward(self, batch: Batch) -> Tensor:
        features = self.model(self.model.normalise(batch.images))
        self.seen.append(features.detach().mean((0, 2, 3)) * len(batch) / batch.whole)
        logits = self.head(features - self.mean.view(1, -1, 1, 1))
        logits = interpolate(logits, batch.masks.shape[1:], mode="nearest")
        losses = cross_entropy(logits, batch.masks, ignore_index=IGNORE, reduction="none")
        each = torch.stack([losses.flatten(1).sum(1), 0.01 * features.square().mean((1, 2, 3))])
        sums = torch.zeros(2, len(self.vocabulary.datasets))
        return sums.index_add(1, batch.dataset_ids, each) + part_in_step(*self.head.parameters())

    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        self.mean += self.speed * (torch.stack(self.seen).sum(0) - self.mean)
        self.seen.clear()
        return {"drift": self.mean.norm()}

    def predictor(self, labels: LabelList, views: Views) -> Predictor:
        return AveragesPredictor(self, labels, views)


class AveragesPredictor(Predictor):
    def __init__(self, learner: AveragesLearner, labels: LabelList, views: Views) -> None:
        asked = zip(labels.keys, labels.texts, strict=True)
        columns = [learner.vocabulary.columns_of(key, text)[0] for key, text in asked]
        self.learner, self.columns, self.views, self.device = learner, columns, views, torch.device("cpu")
        self.positions = self.predicted_as = np.arange(len(columns))

    @torch.inference_mode()
    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        model = self.learner.model
        features = model(model.normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]))
        logits = self.learner.head(features - self.learner.mean.view(1, -1, 1, 1))[:, self.columns]
        yield slice(0, image.shape[0]), interpolate(logits, image.shape[:2], mode="nearest")[0]

    def protocol(self) -> Mapping[str, Any]:
        return {"decision": "largest logit of the head"}


class Averages(Method):
    def needs(self, settings: AveragesSettings) -> Needs:
        return Needs(("mask", "noisy_mask"))

    def build(
        self, settings: AveragesSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> AveragesLearner:
        return AveragesLearner(settings, vocabulary, network(CHANNELS))


METHOD = Averages()

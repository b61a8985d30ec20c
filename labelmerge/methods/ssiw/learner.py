"""What SSIW trains: a network of pixel embeddings, and the temperature of their softmax over the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from labelmerge.loading.batch import Batch
from labelmerge.methods.inference import CosinePredictor, LabelVectors
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.ssiw.losses import Labels, ssiw_sums, ssiw_units
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import Teacher, choose_teacher
from labelmerge.model.build import SegmentationModel
from labelmerge.model.temperature import Temperature
from labelmerge.model.views import Views


class SSIWLearner(Learner):
    """The network and the temperature; the label vectors are the bank's, and no state of its own."""

    def __init__(self, settings: SsiwSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.settings, self.terms = settings, tuple(settings.losses)
        self.temperature = Temperature(settings.temperature)
        self._labels: Labels
        self._teacher: Teacher

    def prepare(self, data: TrainingData) -> None:
        """The columns' vectors, and who teaches boxes."""
        self._labels = Labels.of(data.columns, self.settings, data.device)
        self._teacher = choose_teacher(data.bank, data.device)

    def units(self, batch: Batch) -> Tensor:
        """Pixels for L_HD and L_LD, boxes for L_WD."""
        return ssiw_units(batch, len(self.vocabulary.datasets), self.settings)

    def forward(self, batch: Batch) -> Tensor:
        """The losses of eq. 1–7."""
        embeddings = self.model(self.model.normalise(batch.images))  # [B, C, H/4, W/4]
        tau = self.temperature()
        with torch.autocast("cuda", enabled=False):
            sums = ssiw_sums(batch, embeddings, self._labels, tau, self._teacher, self.settings)  # [T, D]
            # A batch may have nothing for any loss, or for none with a temperature.
            return sums + part_in_step(tau, *(() if sums.requires_grad else (embeddings,)))

    def figures(self) -> dict[str, float]:
        """The temperature."""
        return {"temperature": self.temperature().item()}

    def parameter_groups(self, lr: float, weight_decay: float, head_factor: float) -> list[dict[str, Any]]:
        """The network's, and the temperature with a rate of its own."""
        groups = self.model.parameter_groups(lr, weight_decay, head_factor=head_factor)
        temperature = list(self.temperature.parameters())
        return [*groups, {"params": temperature, "lr": self.settings.temperature_lr, "weight_decay": 0.0}]

    def predictor(self, labels: LabelList, views: Views) -> CosinePredictor:
        """The nearest label by cosine; any list of vectors will do."""
        device = next(self.model.parameters()).device
        tau = self.temperature().item()
        vectors = LabelVectors(labels.vectors, labels.several, labels.reach)
        return CosinePredictor(self.model, vectors, tau=tau, views=views, device=device)

"""What SSIW trains: a network of pixel embeddings, and the temperature of their softmax over the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.loading.batch import Batch
from labelmerge.methods.inference import CosinePredictor, LabelVectors
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.ssiw.losses import Labels, ssiw_sums, ssiw_units
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import Teacher, choose_teacher
from labelmerge.methods.ssiw.unlabelled import (
    Choices,
    consistency_sums,
    entropy_loss,
    unlabelled_rows,
    with_strong_views,
)
from labelmerge.model.build import SegmentationModel
from labelmerge.model.ema import copy_of, update_average
from labelmerge.model.temperature import Temperature
from labelmerge.model.views import Views
from labelmerge.processes import Ranks


class SSIWLearner(Learner):
    """The network and the temperature; the label vectors are the bank's, and no state of its own."""

    def __init__(self, settings: SsiwSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.settings, self.terms = settings, tuple(settings.losses)
        self.temperature = Temperature(settings.temperature)
        self._labels: Labels
        self._teacher: Teacher
        if settings.unlabelled != "none":
            self.terms = (*self.terms, settings.unlabelled)
        self.average: SegmentationModel | None = None  # teaches unlabelled images
        if settings.unlabelled == "consistency":
            self.average = copy_of(model)
        self._choices: Choices
        self._ranks: Ranks
        self._sure: Tensor | None = None

    def prepare(self, data: TrainingData) -> None:
        """The columns' vectors, and who teaches boxes."""
        self._labels = Labels.of(data.columns, self.settings, data.device)
        self._teacher = choose_teacher(data.bank, data.device)
        self._choices, self._ranks = Choices.of(data.sources, self._labels.own), data.ranks
        if self.average is not None and data.step == 0:  # the weights may be those of another run
            self.average.load_state_dict(self.model.state_dict())

    def train(self, mode: bool = True) -> SSIWLearner:
        """Set the mode; the average of the weights always stays in eval mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def mix(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Strong views of unlabelled images, and what the average of the weights finds in them."""
        if self.average is None:
            return batch
        mixed, self._sure = with_strong_views(
            batch,
            generator,
            self.average,
            self._labels.vectors,
            self._choices,
            self.temperature().detach(),
            self.settings.confidence,
            self._ranks,
        )
        return mixed

    def units(self, batch: Batch) -> Tensor:
        """Pixels for L_HD and L_LD, boxes for L_WD, all pixels that show an unlabelled image."""
        units = ssiw_units(batch, len(self.vocabulary.datasets), self.settings)
        if self.settings.unlabelled == "none":
            return units
        kinds = enumerate(batch.annotation_types)
        pixels = torch.tensor([batch.pixels_shown(row) if kind == "image" else 0 for row, kind in kinds])
        more = units.new_zeros(1, units.shape[1])
        return torch.cat([units, more.index_add_(1, batch.dataset_ids, at_once(pixels, units.device)[None])])

    def forward(self, batch: Batch) -> Tensor:
        """The losses of eq. 1–7, and that of unlabelled images."""
        embeddings = self.model(self.model.normalise(batch.images))  # [B, C, H/4, W/4]
        batch = replace(batch, masks=self.model.over_whole_cells(batch.masks))
        tau = self.temperature()
        with torch.autocast("cuda", enabled=False):
            sums = ssiw_sums(batch, embeddings, self._labels, tau, self._teacher, self.settings)  # [T, D]
            if self.settings.unlabelled != "none":
                sums = torch.cat([sums, self._unlabelled(batch, embeddings, tau.detach())])
            # A batch may have nothing for any loss, or for none with a temperature.
            return sums + part_in_step(tau, *(() if sums.requires_grad else (embeddings,)))

    def _unlabelled(self, batch: Batch, embeddings: Tensor, tau: Tensor) -> Tensor:
        """The weighted loss of unlabelled images by dataset, ``[1, D]``."""
        sums = self._labels.vectors.new_zeros(1, len(self.vocabulary.datasets))
        rows = unlabelled_rows(batch)
        if not rows:
            return sums
        vectors, numbers = self._labels.vectors, [self._choices.names.index(batch.datasets[row]) for row in rows]
        own = self._choices.own[numbers]
        if self.settings.unlabelled == "entropy":
            inside = batch.inside(rows)
            losses = torch.stack(
                [
                    batch.pixels_shown(row)
                    * entropy_loss(
                        embeddings[row].float(),
                        vectors,
                        own[place],
                        self._choices.others[numbers[place]],
                        tau,
                        None if inside is None else inside[place],
                    )
                    for place, row in enumerate(rows)
                ]
            )
        else:
            losses = consistency_sums(embeddings[rows].float(), vectors, batch.masks[rows], own, tau)
        warmup = self.settings.unlabelled_warmup
        weight = self.settings.unlabelled_weight * (min(1.0, batch.step / warmup) if warmup else 1.0)
        return sums.index_add(1, batch.dataset_ids[rows], weight * losses[None])

    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        """The average of the weights follows; how much of the unlabelled pixels it was sure of."""
        if self.average is None:
            return {}
        update_average(self.average, self.model, self.settings.teacher_decay, step)
        return {} if self._sure is None else {"sure": self._sure}

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
        vectors = LabelVectors(labels.vectors, labels.several, labels.divisors)
        return CosinePredictor(self.model, vectors, tau=tau, views=views, device=device)

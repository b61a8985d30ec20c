"""What the method `depth` trains: a network with one output, which may see labels besides the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labelmerge.device import at_once
from labelmerge.loading.batch import Batch
from labelmerge.methods.depth.labels import LabelInput
from labelmerge.methods.depth.losses import Targets, aligned, depth_errors, gradient_errors, normalised
from labelmerge.methods.depth.pairs import normal_errors, ranking_errors
from labelmerge.methods.depth.predictor import DepthPredictor
from labelmerge.methods.depth.settings import DepthSettings
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList
from labelmerge.model.build import SegmentationModel
from labelmerge.model.views import Views


class DepthLearner(Learner):
    """A network, a head of one channel, and the projection of labels where they are an input.

    A loss's unit is an image, as its scale and shift are its own.
    """

    answers = "depth"
    by_text = True

    def __init__(self, settings: DepthSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.settings = settings
        weights = {
            "gradient": settings.gradient_weight,
            "ranking": settings.ranking_weight,
            "normal": settings.normal_weight,
        }
        self.terms = ("depth", *(term for term, weight in weights.items() if weight))
        channels = settings.depth_features
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, 1, 1)
        )
        self.labels = LabelInput(vocabulary.dim, model) if settings.with_labels else None
        self.takes_labels = settings.with_labels
        self._vectors: Tensor

    def prepare(self, data: TrainingData) -> None:
        """The labels' vectors."""
        self._vectors = at_once(torch.from_numpy(data.columns.label_vectors.copy()), data.device)

    def units(self, batch: Batch) -> Tensor:
        """Images that have two different depths."""
        usable = _targets(batch).usable.long()
        own = usable.new_zeros(len(self.vocabulary.datasets)).index_add_(0, batch.dataset_ids, usable)
        return own.expand(len(self.terms), -1).clone()

    def forward(self, batch: Batch) -> Tensor:
        """The errors of depths, and those of slopes, orders and angles times their weights."""
        if self.labels is not None:
            self.labels.show(batch.masks, self._vectors)
        out = self.depths(batch.images).float()
        with torch.autocast("cuda", enabled=False):
            predicted = self.model.upsample(out, (batch.images.shape[2], batch.images.shape[3]))[:, 0]
            assert batch.depths is not None  # `Needs.depth`
            targets = normalised(batch.depths)
            fitted = aligned(predicted, targets, self.settings.depth_alignment)
            losses = [depth_errors(fitted, targets, self.settings.depth_trim)]
            if self.settings.gradient_weight:
                slopes = gradient_errors(fitted, targets, self.settings.gradient_scales)
                losses.append(self.settings.gradient_weight * slopes)
            if self.settings.ranking_weight:
                orders = ranking_errors(fitted, targets, batch.depths, batch.images)
                losses.append(self.settings.ranking_weight * orders)
            if self.settings.normal_weight:
                view = self.settings.field_of_view
                angles = normal_errors(predicted, targets, batch.depths, batch.images, view)
                losses.append(self.settings.normal_weight * angles)
            sums = predicted.new_zeros(len(self.terms), len(self.vocabulary.datasets))
            sums = sums.index_add(1, batch.dataset_ids, torch.stack(losses))
            return sums + part_in_step(out, *(self.labels.parameters() if self.labels is not None else ()))

    def depths(self, images: Tensor) -> Tensor:
        """Depths up to scale and shift, ``[B, 1, h, w]``, of uint8 images or ones within 0..1, ``[B, 3, H, W]``."""
        found: Tensor = self.head(self.model(self.model.normalise(images)))
        return found

    def predictor(self, labels: LabelList, views: Views) -> DepthPredictor:
        """Depths of images, with these labels as the second input where there is one."""
        device = next(self.model.parameters()).device
        vectors = None if self.labels is None else at_once(torch.from_numpy(labels.vectors.copy()), device)
        return DepthPredictor(self, self.labels, vectors, len(labels.names), views=views, device=device)


def _targets(batch: Batch) -> Targets:
    assert batch.depths is not None  # `Needs.depth`
    return normalised(batch.depths)

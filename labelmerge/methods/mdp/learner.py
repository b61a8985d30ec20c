"""What MDP trains and remembers: query and key network, and the class means of the last batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from labelmerge.labels import IGNORE, LabelKey
from labelmerge.loading.batch import Batch
from labelmerge.methods.annotated import Unannotated
from labelmerge.methods.inference import CosinePredictor, LabelVectors
from labelmerge.methods.mdp.losses import (
    cell_counts,
    image_means,
    neighbours,
    pixel_losses,
    pixels_with_positives,
    prototype_losses,
    prototypes_of,
)
from labelmerge.methods.mdp.mixing import mixed
from labelmerge.methods.mdp.settings import MdpSettings
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.mixing import of_all_processes
from labelmerge.methods.predictor import LabelList
from labelmerge.model.build import SegmentationModel
from labelmerge.model.ema import copy_of
from labelmerge.model.views import Views
from labelmerge.processes import Ranks

_LAYERS = 4  # of the projection, as in the paper


class MDPLearner(Learner):
    """f_q, its momentum copy f_k, and a ring of class means, which make the prototypes.

    Keys are of the plain views, queries of the mixed ones. A batch's class means are in the memory before its loss is
    taken, so every class of the batch has a prototype.
    """

    can_name = "trained"
    passes_over_unseen = True
    of_labels = ("memory", "images")

    def __init__(self, settings: MdpSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.settings = settings
        self.terms = (settings.contrast, "sparse") if settings.sparse_weight else (settings.contrast,)
        self.class_of_key = _classes(vocabulary, by_concept=settings.prototypes == "concept")
        self.classes = 1 + max(self.class_of_key.values())
        features, layers = settings.projection_features, list[nn.Module]()
        for _ in range(_LAYERS - 1):
            layers += [nn.Conv2d(features, features, 1), nn.ReLU(inplace=True)]
        self.projection = nn.Sequential(*layers, nn.Conv2d(features, settings.projection_dim, 1))
        self.key_model, self.key_projection = copy_of(model), copy_of(self.projection)
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(settings.prototype_memory, self.classes, settings.projection_dim))
        self.images: Tensor
        self.register_buffer("images", torch.zeros(settings.prototype_memory, self.classes))
        self._class_of: Tensor
        self._unannotated: Unannotated
        self._dataset_of: Tensor  # [L]
        self._classes: Tensor  # float [L, C], 1 for each label's class
        self._class_columns: Tensor  # float [C, N], above 0 for the columns of each class
        self._ranks: Ranks
        self._step: int | None = None  # that the newest part of the memory is of
        self._found: tuple[Tensor, Tensor] | None = None
        self._keys: dict[int, list[Tensor]] = {}  # of both views of each sample, by place; of pixel to pixel alone

    def prepare(self, data: TrainingData) -> None:
        """The class of every label; at the first step the key network is the query network, wherever that is from."""
        self._class_of = torch.tensor([self.class_of_key[key] for key in data.columns.labels], device=data.device)
        self._unannotated = Unannotated(data)
        self._dataset_of = torch.from_numpy(data.columns.dataset_of).to(data.device)
        self._classes = one_hot(self._class_of, self.classes).float()
        self._class_columns = self._classes.T @ torch.from_numpy(data.columns.positive).to(self._classes)
        self._ranks = data.ranks
        if data.step == 0:
            self.key_model.load_state_dict(self.model.state_dict())
            self.key_projection.load_state_dict(self.projection.state_dict())

    def mix(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Class means of the plain views into the memory; then the mixed views, with `others` (second view, and what
        was mixed into the first and second pixel by pixel)."""
        closed = self._closed(batch)
        views = [
            replace(view, masks=self._targets(view.masks), others=(), closed=closed) for view in (batch, *batch.others)
        ]
        self._remember(views)
        if self.settings.mix == "none":
            return replace(views[0], others=(views[1],))
        numbers = [self.vocabulary.datasets.index(name) for name in batch.datasets]
        (first, into_first), (second, into_second) = (
            mixed(view, generator, self.settings, numbers, self._ranks) for view in views
        )
        return replace(first, others=(second, into_first, into_second))

    def _closed(self, batch: Batch) -> Tensor | None:
        """bool ``[B, C]``, the classes that an image's labels may be besides: what it was not annotated for, under any
        dataset's name, but no class that it was annotated for. None where all images were annotated for everything."""
        if not self._unannotated:
            return None
        columns, labels = self._unannotated.columns(batch), self._unannotated.labels(batch)
        own = self._dataset_of[None] == batch.dataset_ids[:, None]  # [B, L]
        closed = torch.zeros(len(batch), self.classes, dtype=torch.bool, device=own.device)
        if columns is not None:
            closed = columns.float() @ self._class_columns.T > 0
        if labels is not None:
            closed, own = closed | (labels.float() @ self._classes > 0), own & ~labels
        return closed & (own.float() @ self._classes == 0)

    def _targets(self, masks: Tensor) -> Tensor:
        return self._class_of[masks.clamp(min=0)].where(masks != IGNORE, IGNORE)

    @torch.no_grad()
    def _remember(self, views: list[Batch]) -> None:
        """Add the class means of these views, of all processes, to the memory (eq. 3)."""
        sums = self.memory.new_zeros(self.memory.shape[1:], dtype=torch.float64)
        images = self.images.new_zeros(self.classes)
        if self._step != views[0].step:
            self._keys = {}
        for view in views:
            embeddings = _embed(self.key_model, self.key_projection, view.images)
            if self.settings.contrast == "pixel":
                for place, embedding in zip(view.places, embeddings, strict=True):
                    self._keys.setdefault(place, []).append(embedding)
            counts = cell_counts(self.model.over_whole_cells(view.masks), self.classes, *embeddings.shape[2:])
            for embedding, own in zip(embeddings, counts, strict=True):  # one by one: memory
                mean, present = image_means(embedding[None], own[None])
                sums, images = sums + mean[0], images + present[0]
        all_sums, all_images = of_all_processes(self._ranks, sums[None], images[None])
        slot = views[0].step % len(self.memory)
        if self._step != views[0].step:  # else a batch of another size of view of the same step
            self._step = views[0].step
            self.memory[slot], self.images[slot] = 0, 0
        self.memory[slot] += all_sums.sum(0).to(self.memory)
        self.images[slot] += all_images.sum(0)
        self._found = None

    @property
    def prototypes(self) -> tuple[Tensor, Tensor]:
        """Unit vectors ``[C, D]``, and which of them there are."""
        return prototypes_of(self.memory, self.images)

    def units(self, batch: Batch) -> Tensor:
        """Labelled pixels of both views; in pixels of two images those that have a label in one of them.
        Pixel to pixel: those whose class the other view has, too."""
        second, *into = batch.others
        if self.settings.contrast == "pixel":
            count = pixels_with_positives(batch.masks, second.masks, self.classes)
            return count.new_zeros(1, len(self.vocabulary.datasets)).index_add_(1, batch.dataset_ids, count[None])
        labelled = [view.masks != IGNORE for view in (batch, second)]
        if into:
            labelled = [own | (view.masks != IGNORE) for own, view in zip(labelled, into, strict=True)]
        count = torch.stack([own.flatten(1).sum(1) for own in labelled]).sum(0)
        own = count.new_zeros(len(self.vocabulary.datasets)).index_add_(0, batch.dataset_ids, count)
        return own.expand(len(self.terms), -1).clone()

    def forward(self, batch: Batch) -> Tensor:
        """Eq. 4, of mixed views eq. 7, and eq. 8; or eq. 2."""
        second, *into = batch.others
        embeddings = _embed(self.model, self.projection, torch.cat([batch.images, second.images]))  # [2 · B, D, h, w]
        height, width = embeddings.shape[2:]
        if self.settings.contrast == "pixel":
            return self._pixel_to_pixel(batch, embeddings)
        if self._found is None:
            self._found = self.prototypes
        prototypes, known = self._found
        near = neighbours(prototypes, known, self.settings.sparse_neighbours) if self.settings.sparse_weight else None
        views = [(batch, into[0] if into else None), (second, into[1] if into else None)]
        tau = self.settings.prototype_temperature
        sums = embeddings.new_zeros(len(self.terms), len(self.vocabulary.datasets), dtype=torch.float32)
        with torch.autocast("cuda", enabled=False):
            of_views = []
            for number, (view, other) in enumerate(views):
                each = []
                for row in range(len(batch)):
                    counts = [self._counts(one, row, height, width) for one in (view, other) if one is not None]
                    closed = [one.closed for one in (view, other) if one is not None]
                    if view.closed is None:
                        counts, closed = [torch.stack(counts).sum(0)], [None]
                    of_masks = []
                    for own, not_competing in zip(counts, closed, strict=True):
                        wanted = own[None]
                        if near is not None:
                            wanted = torch.stack([own, self.settings.sparse_weight * (near.T @ own)])
                        embedding = embeddings[number * len(batch) + row].float()
                        not_here = None if not_competing is None else not_competing[row]
                        of_masks.append(prototype_losses(embedding, wanted, prototypes, known, tau, not_here))
                    each.append(torch.stack(of_masks).sum(0))
                of_views.append(torch.stack(each, dim=1))  # [T, B]
            out: Tensor = sums.index_add(1, batch.dataset_ids, torch.stack(of_views).sum(0))
            return out + part_in_step(embeddings)

    def _pixel_to_pixel(self, batch: Batch, embeddings: Tensor) -> Tensor:
        """Eq. 2 of both views, summed by dataset, ``[1, D]``."""
        height, width = embeddings.shape[2:]
        samples, losses = len(batch), []
        with torch.autocast("cuda", enabled=False):
            for row, place in enumerate(batch.places):
                counts = [self._counts(view, row, height, width) for view in (batch, batch.others[0])]
                both = [
                    pixel_losses(
                        embeddings[row + own * samples].float(),
                        self._keys[place][1 - own],
                        counts[own],
                        counts[1 - own],
                        self.settings.prototype_temperature,
                    )
                    for own in (0, 1)
                ]
                losses.append(both[0] + both[1])
            sums = embeddings.new_zeros(1, len(self.vocabulary.datasets), dtype=torch.float32)
            out: Tensor = sums.index_add(1, batch.dataset_ids, torch.stack(losses)[None])
            return out + part_in_step(embeddings)

    def _counts(self, view: Batch, row: int, height: int, width: int) -> Tensor:
        masks = self.model.over_whole_cells(view.masks[row : row + 1])
        counts = cell_counts(masks, self.classes, height, width)[0]
        return counts if view.shares is None else counts * view.shares[row]

    @torch.no_grad()
    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        """The key network follows; how many classes have prototypes."""
        key: list[Tensor] = [*self.key_model.parameters(), *self.key_projection.parameters()]
        query: list[Tensor] = [*self.model.parameters(), *self.projection.parameters()]
        torch._foreach_lerp_(key, query, 1 - self.settings.key_momentum)
        return {"prototypes": (self.images.sum(0) > 0).sum()}

    def predictor(self, labels: LabelList, views: Views) -> CosinePredictor:
        """The label with the nearest prototype; labels that never occurred have none and are never predicted."""
        vectors = self.prototypes[0].cpu().numpy()
        own = []
        for key, text in zip(labels.keys, labels.texts, strict=True):
            columns = self.vocabulary.columns_of(key, text)
            keys = [key] if key in self.class_of_key else [k for c in columns for k in self.vocabulary.labels[c]]
            classes = sorted({self.class_of_key[known] for known in keys if known is not None})
            own.append(np.ascontiguousarray(vectors[classes]))
        model = _Projected(self.model, self.projection)
        device = next(self.model.parameters()).device
        tau = self.settings.prototype_temperature
        return CosinePredictor(model, LabelVectors((), several=own), tau=tau, views=views, device=device)


def _embed(model: SegmentationModel, projection: nn.Module, images: Tensor) -> Tensor:
    """Unit vectors ``[B, D, h, w]``."""
    return normalize(projection(model(model.normalise(images))).float(), dim=1)


def _classes(vocabulary: Vocabulary, *, by_concept: bool) -> dict[LabelKey, int]:
    """Which prototype each label has: one of its own, or one that labels of the same columns share."""
    if not by_concept:
        return {key: number for number, key in enumerate(vocabulary.keys)}
    sets = {key: vocabulary.columns_of(key, "") for key in vocabulary.keys}
    numbers = {columns: number for number, columns in enumerate(dict.fromkeys(sets.values()))}
    return {key: numbers[columns] for key, columns in sets.items()}


class _Projected:
    """Network and projection as one, for inference."""

    def __init__(self, model: SegmentationModel, projection: nn.Module) -> None:
        self._model, self._projection = model, projection

    @property
    def stride(self) -> int:
        return self._model.stride

    def normalise(self, images: Tensor) -> Tensor:
        return self._model.normalise(images)

    def __call__(self, images: Tensor, /) -> Tensor:
        out: Tensor = self._projection(self._model(images))
        return out

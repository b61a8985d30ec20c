"""What USSS trains: a shared network, a decoder for each label space, an entropy head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from labelmerge.errors import UsageError
from labelmerge.labels import IGNORE, LabelKey
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.annotated import Unannotated
from labelmerge.methods.linear import LogitPredictor
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.usss.centroids import centroids_now, label_centroids, moved
from labelmerge.methods.usss.losses import entropy_sums, supervised_sums
from labelmerge.methods.usss.settings import UsssSettings
from labelmerge.model.build import SegmentationModel
from labelmerge.model.views import Views


class USSSLearner(Learner):
    """F, the decoders G, the entropy head E, and the label embeddings.

    A loss of each dataset is a term of its own, since the paper adds up means over the pixels of each.
    """

    can_name = "trained"
    passes_over_unseen = True
    of_labels = ("decoders.", "embeddings", "known")

    def __init__(self, settings: UsssSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, model)
        self.settings = settings
        self.spaces = tuple(dict.fromkeys(name for name, _ in vocabulary.keys))
        self.own_keys = [tuple(key for key in vocabulary.keys if key[0] == name) for name in self.spaces]
        self.decoders = nn.ModuleList(nn.Conv2d(settings.decoder_features, len(own), 1) for own in self.own_keys)
        self.entropy: nn.Conv2d | None = None
        self.embeddings: Tensor
        self.known: Tensor
        if settings.with_entropy:
            dim = vocabulary.dim if settings.label_embeddings == "bank" else settings.entropy_dim
            count = settings.centroids_per_label if settings.label_embeddings == "centroids" else 1
            self.entropy = nn.Conv2d(settings.decoder_features, dim, 1)
            points = normalize(torch.randn(len(vocabulary.keys), count, dim), dim=2)
            self.register_buffer("embeddings", points)
            self.register_buffer("known", torch.ones(points.shape[:2], dtype=torch.bool))
        self._rows: dict[tuple[str, int], int] = {}  # the term of each kind of loss and dataset
        self._space_of: list[int | None]
        self._class_of: Tensor
        self._own: list[Tensor]  # the label rows of each dataset
        self._unannotated: Unannotated
        self._data: TrainingData
        self._labelled: list[DatasetShards]
        self._points: list[Tensor]  # the label embeddings of each label space

    def prepare(self, data: TrainingData) -> None:
        """Whose labels each dataset has, and at the first step the label embeddings."""
        self._data = data
        self._labelled = labelled = [source for source in data.sources if source.annotation_type != "image"]
        self._space_of = [self._space(source, labelled) for source in data.sources]
        rows = []
        for number, source in enumerate(data.sources):
            if source.annotation_type != "image":
                rows.append(("ce", number))
            elif self.settings.with_entropy:
                others = len(self.spaces) > (self._space_of[number] is not None)
                rows += [("cross", number)] if others and self.settings.cross_weight else []
                within = self._space_of[number] is not None and self.settings.within_weight
                rows += [("within", number)] if within else []
        self._rows = {row: place for place, row in enumerate(rows)}
        self.terms = tuple(f"{kind}_{data.sources[number].dataset}" for kind, number in rows)
        place = {key: own.index(key) for own in self.own_keys for key in own}
        self._class_of = torch.tensor([place[key] for key in data.columns.labels], device=data.device)
        of = torch.from_numpy(data.columns.dataset_of).to(data.device)
        self._own = [(of == number).nonzero()[:, 0] for number in range(len(data.sources))]
        self._unannotated = Unannotated(data)
        if not self.settings.with_entropy:
            return
        if data.step == 0 and self.settings.label_embeddings != "random":
            self._find_embeddings()
        self._take_points()

    def _take_points(self) -> None:
        space = torch.tensor([self.spaces.index(key[0]) for key in self.vocabulary.keys], device=self._data.device)
        own = [space == number for number in range(len(self.spaces))]
        self._points = [self.embeddings[rows][self.known[rows]] for rows in own]

    def _space(self, source: DatasetShards, labelled: Iterable[DatasetShards]) -> int | None:
        """The label space of a dataset; of unlabelled images that of the labelled dataset with the same names."""
        names = [source.space.name, *(each.space.name for each in labelled if each.space.names == source.space.names)]
        return next((self.spaces.index(name) for name in names if name in self.spaces), None)

    def _find_embeddings(self) -> None:
        data, keys = self._data, self.vocabulary.keys
        if self.settings.label_embeddings == "bank":
            vectors: Mapping[LabelKey, Any] = dict(zip(data.columns.labels, data.columns.label_vectors, strict=True))
            points, known = np.stack([vectors[key] for key in keys])[:, None], np.ones((len(keys), 1), dtype=np.bool_)
        else:
            points, known = label_centroids(
                self.settings.supervised,
                self._labelled,
                keys,
                count=self.settings.centroids_per_label,
                dim=self.settings.entropy_dim,
                device=data.device,
            )
        self.embeddings.copy_(normalize(torch.from_numpy(points), dim=2))
        self.known.copy_(torch.from_numpy(known))
        self._make_equal()

    def _make_equal(self) -> None:
        if self._data.ranks.world > 1:  # GPUs of one machine may differ in the last bit
            for buffer in (self.embeddings, self.known):
                distributed.broadcast(buffer, 0)

    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        """Eq. 7, where it is due: how far the centroids moved, as a mean cosine with where they were."""
        decay, every = self.settings.centroid_decay, self.settings.centroid_steps
        if not self.settings.with_entropy or decay == 1 or (step + 1) % every:
            return {}
        new, found = centroids_now(
            self.model,
            self._labelled,
            self.vocabulary.keys,
            dim=self.embeddings.shape[2],
            short_edge_of=self._data.short_edge_of,
        )
        old, whole = self.embeddings[:, 0].double().cpu().numpy(), self.embeddings.clone()
        both = found[:, 0] & self.known[:, 0].cpu().numpy()
        for space in self.spaces:  # each has axes of its own
            rows = [row for row, key in enumerate(self.vocabulary.keys) if key[0] == space and both[row]]
            points = moved(old[rows], new[rows, 0].astype(np.float64), decay)
            self.embeddings[rows, 0] = torch.from_numpy(points).to(self.embeddings)
        self._make_equal()
        self._take_points()
        return {"centroids_stayed": (whole * self.embeddings).sum(2)[self.known].mean()}

    def units(self, batch: Batch) -> Tensor:
        """Labelled pixels for the decoders' losses, all pixels that show an unlabelled image for entropies."""
        labelled = (batch.masks != IGNORE).flatten(1).sum(1)
        units = labelled.new_zeros(len(self.terms), len(self.vocabulary.datasets))
        for number, rows in self._samples(batch).items():
            if (term := self._rows.get(("ce", number))) is not None:
                units[term, number] = labelled[rows].sum()
            for kind in ("cross", "within"):
                if (term := self._rows.get((kind, number))) is not None:
                    units[term, number] = sum(map(batch.pixels_shown, rows))
        return units

    def forward(self, batch: Batch) -> Tensor:
        """Eq. 1, 3 and 4, the entropies times α and β."""
        features: Tensor = self.model(self.model.normalise(batch.images))
        sums: Tensor = features.new_zeros(len(self.terms), len(self.vocabulary.datasets), dtype=torch.float32)
        closed = self._unannotated.labels(batch)  # [B, L]
        parts = []
        for number, rows in self._samples(batch).items():
            own = self._space_of[number]
            if (term := self._rows.get(("ce", number))) is not None:
                assert own is not None
                targets = self.model.over_whole_cells(batch.masks[rows])
                targets = self._class_of[targets.clamp(min=0)].where(targets != IGNORE, IGNORE)
                not_here = None if closed is None else self._classes(closed[rows], number, len(self.own_keys[own]))
                with torch.autocast("cuda", enabled=False):
                    logits = self.decoders[own](features[rows].float())
                    parts.append((term, number, supervised_sums(logits, targets, not_here)))
            else:
                parts += self._entropies(number, features[rows], batch, rows)
        for term, number, value in parts:
            sums = sums.index_put((torch.tensor(term), torch.tensor(number)), value, accumulate=True)
        trained = [parameter for name, parameter in self.named_parameters() if not name.startswith("model.")]
        return sums + part_in_step(features.float(), *trained)

    def _classes(self, closed: Tensor, number: int, count: int) -> Tensor:
        """bool ``[B, K]``, which of a decoder's classes do not compete, from which labels ``[B, L]`` do not."""
        own = self._own[number]
        return closed.new_zeros(len(closed), count).index_copy(1, self._class_of[own], closed[:, own])

    def _entropies(self, number: int, features: Tensor, batch: Batch, rows: list[int]) -> list[tuple[int, int, Tensor]]:
        """The entropies of unlabelled images of one dataset: term, dataset and sum."""
        assert self.entropy is not None
        own, out = self._space_of[number], []
        with torch.autocast("cuda", enabled=False):
            sums = partial(
                entropy_sums,
                self.entropy(features.float()),
                upsample=partial(self.model.upsample, size=(batch.images.shape[2], batch.images.shape[3])),
                balance=self.settings.balance_weight,
                inside=batch.inside(rows),
            )
            if (term := self._rows.get(("within", number))) is not None:
                assert own is not None
                if len(self._points[own]):
                    out.append((term, number, self.settings.within_weight * sums(self._points[own])))
            others = [points for space, points in enumerate(self._points) if space != own and len(points)]
            if (term := self._rows.get(("cross", number))) is not None and others:
                mean = torch.stack([sums(points) for points in others]).mean()  # of several others
                out.append((term, number, self.settings.cross_weight * mean))
        return out

    def _samples(self, batch: Batch) -> dict[int, list[int]]:
        """The rows of each dataset's samples; by names, since reading ids would wait for a GPU."""
        rows: dict[int, list[int]] = {}
        for row, name in enumerate(batch.datasets):
            rows.setdefault(self.vocabulary.datasets.index(name), []).append(row)
        return rows

    def predictor(self, labels: LabelList, views: Views) -> LogitPredictor:
        """The decoder that knows all of these labels. Raises UsageError where none does."""
        asked: list[set[LabelKey]] = []
        for key, text in zip(labels.keys, labels.texts, strict=True):
            columns = self.vocabulary.columns_of(key, text)
            same = {known for column in columns for known in self.vocabulary.labels[column]}
            asked.append({key} if key is not None and (key in self.vocabulary.keys or not same) else same)
        for space, own in enumerate(self.own_keys):
            outputs = [[place for place, key in enumerate(own) if key in keys] for keys in asked]
            # A label of the list that never occurred has no output.
            if all(
                found or any(key[0] == own[0][0] for key in keys) for found, keys in zip(outputs, asked, strict=True)
            ):
                device = next(self.model.parameters()).device
                if not any(outputs):
                    raise UsageError("none of these labels occurred in training", fix="Ask for labels that did")
                return LogitPredictor(self.model, self.decoders[space], outputs, views=views, device=device)
        raise UsageError(
            f"no one decoder knows all of these labels: usss has one for each of {', '.join(self.spaces)}",
            fix="Ask for labels of one of these datasets",
        )

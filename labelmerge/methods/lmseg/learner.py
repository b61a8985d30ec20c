"""What LMSeg trains: an encoder, a pixel decoder, queries and their decoder, and what brings words to the queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.device import at_once
from labelmerge.errors import ConfigError
from labelmerge.labels import LabelKey
from labelmerge.loading.batch import Batch
from labelmerge.methods.annotated import Unannotated
from labelmerge.methods.lmseg.decoder import DecoderLayer, MaskHead, PixelDecoder
from labelmerge.methods.lmseg.losses import TERMS, Outputs, class_units, sums_of_images
from labelmerge.methods.lmseg.predictor import LmsegPredictor
from labelmerge.methods.lmseg.prompts import LearnedPrompt
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import Targets, targets_of
from labelmerge.methods.method import Learner, TrainingData, Vocabulary, part_in_step
from labelmerge.methods.predictor import LabelList
from labelmerge.model.build import Pyramid, SegmentationModel
from labelmerge.model.temperature import Temperature
from labelmerge.model.views import Views


@dataclass(frozen=True, eq=False)
class Lists:
    """The label lists of D datasets, on the device.

    Attributes:
        rows: int64 ``[D, K]``, the rows of each dataset's labels, filled up with 0.
        padding: bool ``[D, K]``, where `rows` is filled up.
        place: int64 ``[L]``, which class each label is: its place in its dataset's list or, with the union, its output.
        vectors: float32 ``[L, C]``.
        output: int64 ``[L]``, which output of the heads or of the union is each label's; 0 with words.
        space: int64 ``[D]``, the label space of each dataset.
        things: bool ``[L]``.
    """

    rows: Tensor
    padding: Tensor
    place: Tensor
    vectors: Tensor
    output: Tensor
    space: Tensor
    things: Tensor


class LmsegLearner(Learner):
    """Segments by queries. Queries start from learned embeddings; "nothing" is a learned vector among the words.

    Attributes:
        labels: the V labels that it was trained with, sorted.
        spaces: the label spaces of these, sorted.
        things: int8 ``[V]``, which of them are things: 1, or 0 for stuff; -1 where neither recipe nor segments tell.
        outputs: which output of the heads or of the union is each label's; none with words.
    """

    terms = TERMS
    by_text = True
    of_labels = ("heads.", "prompt.vectors")
    model: Pyramid
    things: Tensor

    def __init__(self, settings: LmsegSettings, vocabulary: Vocabulary, model: SegmentationModel) -> None:
        super().__init__(vocabulary, Pyramid.of(model))
        self.settings = settings
        self.labels: tuple[LabelKey, ...] = tuple(sorted({key for keys in vocabulary.labels for key in keys}))
        self.spaces = tuple(sorted({space for space, _ in self.labels}))
        dim, heads, depth = settings.query_dim, settings.attention_heads, settings.decoder_layers
        by_words = settings.classifier == "text"
        self.outputs: dict[LabelKey, int] = {}
        if not by_words:
            self.can_name, self.passes_over_unseen = "trained", True
            self.outputs = _outputs(vocabulary, union=settings.classifier == "union")
        self.pixels = PixelDecoder(self.model.channels, dim, settings.pixel_layers, heads)
        sets = max(1, len(self.spaces)) if settings.space_queries else 1
        self.queries = nn.Parameter(torch.randn(sets, settings.queries, dim))
        self.layers = nn.ModuleList(
            DecoderLayer(
                dim,
                heads,
                text=by_words and settings.text_attention,
                skip=settings.drop_path * number / max(1, depth - 1),
                text_first=settings.attention_order == "text-visual",
            )
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.masks = MaskHead(dim)
        self.adapter: nn.Module | None = None
        self.prompt: LearnedPrompt | None = None
        self.heads: nn.Linear | None = None
        if by_words:
            self.adapter = nn.Sequential(nn.LayerNorm(vocabulary.dim), nn.Linear(vocabulary.dim, dim))
            self.nothing = nn.Parameter(torch.randn(dim) / dim**0.5)
            self.temperature = Temperature(settings.query_temperature)
            if settings.text_tower:
                self.prompt = LearnedPrompt(settings.text_tower, settings.prompt_vectors, self.labels, vocabulary.dim)
        else:
            nothings = 1 if settings.classifier == "union" else len(self.spaces)
            self.heads = nn.Linear(dim, max(self.outputs.values(), default=-1) + 1 + nothings)
        self.register_buffer("things", torch.zeros(len(self.labels), dtype=torch.int8))
        self._lists: Lists
        self._unannotated: Unannotated
        self._texts: dict[str, tuple[Tensor, list[str]]] = {}  # of each dataset: its rows, and what they say
        self._unmatched = torch.zeros(())
        self._found: list[tuple[Batch, list[Targets]]] = []  # of the batches of this step
        self._world = 1

    # ---- training

    def prepare(self, data: TrainingData) -> None:
        """The datasets' label lists, and which labels are things."""
        columns = data.columns
        self._unannotated = Unannotated(data)
        own = [torch.from_numpy((columns.dataset_of == d).nonzero()[0]) for d in range(len(data.sources))]
        rows = nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=-1)
        place = torch.zeros(len(columns.labels), dtype=torch.long)
        for each in own:
            place[each] = torch.arange(len(each))
        # Where a dataset doesn't say what is a thing, its segments stay apart, and what are regions of classes do not.
        told = [[each.things for each in source.sets if each.things is not None] for source in data.sources]
        apart = [
            source.annotation_type == "box" or any(each.has_segments for each in source.sets) for source in data.sources
        ]
        things = torch.tensor(
            [
                any(index in each for each in told[d]) if told[d] else apart[d]
                for d, (_, index) in zip(columns.dataset_of.tolist(), columns.labels, strict=True)
            ]
        )
        number = {key: row for row, key in enumerate(self.labels)}
        if data.step == 0:
            silent = [not (told[d] or apart[d]) for d in columns.dataset_of.tolist()]
            self.things.fill_(-1)
            self.things[[number[key] for key in columns.labels]] = things.to(self.things).masked_fill(
                torch.tensor(silent, device=self.things.device), -1
            )
        output = torch.tensor([self.outputs.get(key, 0) for key in columns.labels])
        if self.settings.classifier == "union":
            place = output
        space = torch.tensor([self.spaces.index(source.space.name) for source in data.sources])
        vectors = torch.from_numpy(columns.label_vectors)
        parts = (rows.clamp(min=0), rows < 0, place, vectors, output, space, things)
        self._lists = Lists(*(each.to(data.device) for each in parts))
        if self.prompt is not None:
            self.prompt.begin([data.bank.texts[row] for row in data.bank.positions(self.labels)])
            texts = [data.bank.texts[row] for row in data.bank.positions(columns.labels)]
            self._texts = {
                source.dataset: (each.to(data.device), [texts[row] for row in each.tolist()])
                for source, each in zip(data.sources, own, strict=True)
            }
        self._unmatched = torch.zeros((), device=data.device)
        self._world = data.ranks.world

    def units(self, batch: Batch) -> Tensor:
        """Weights of queries for the classes, segments for masks and dice, boxes for boxes."""
        units = torch.zeros(len(TERMS), len(self.vocabulary.datasets), dtype=torch.long, device=batch.masks.device)
        counted = []
        self._found.append((batch, self._targets(batch)))
        for targets in self._found[-1][1]:
            matched = min(len(targets), self.settings.queries)
            self._unmatched += len(targets) - matched
            masks, boxes = (matched, 0) if targets.boxes is None else (0, matched)
            counted.append([class_units(len(targets), self.settings), masks, masks, boxes])
        return units.index_add_(1, batch.dataset_ids, at_once(torch.tensor(counted).T, units.device))

    def forward(self, batch: Batch) -> Tensor:
        """Eq. 3; every layer is matched for itself."""
        lists, ids = self._lists, batch.dataset_ids
        words = self.words(lists.vectors if self.prompt is None else self._prompted(self.prompt, batch.datasets))
        listed = None if words is None else words[lists.rows[ids]]  # [B, K, D]
        padding = lists.padding[ids]
        queries = self.queries[lists.space[ids] if self.settings.space_queries else torch.zeros_like(ids)]
        features, memory = self.see(batch.images)
        decoded = self.decode(queries, memory, listed, padding)  # T of [B, N, D]
        masks = [self.masks(each, features) for each in decoded]
        shut = self._closed(batch)
        closed = [None] * len(batch) if shut is None else list(shut)
        height, width = (-(-side // self.model.stride) for side in batch.images.shape[2:])
        sums = batch.masks.new_zeros(len(TERMS), len(self.vocabulary.datasets), dtype=torch.float32)
        with torch.autocast("cuda", enabled=False):
            classes = [self._logits(each.float(), listed, padding, ids) for each in decoded]
            outputs = [
                Outputs(
                    torch.stack([each[place] for each in classes]),
                    torch.stack([each[place, :, :height, :width] for each in masks]).float(),
                    self.model.stride,
                )
                for place in range(len(batch))
            ]
            # Looking for them reads from the device, so those of a whole batch are looked for once.
            known = (targets for seen, targets in self._found if seen is batch)
            targets = next(known, None) or self._targets(batch)
            places = [lists.place[each.labels] for each in targets]
            every = sums_of_images(outputs, targets, places, self.settings, closed)
            for place, own in enumerate(every):
                sums = sums.index_add(1, ids[place : place + 1], own[:, None])
            return sums + part_in_step(*masks, *([] if words is None else [words]))

    def _prompted(self, prompt: LearnedPrompt, datasets: Sequence[str]) -> Tensor:
        """The vectors ``[L, C]`` as the prompt makes them, of the labels of these datasets."""
        wanted = [self._texts[name] for name in sorted(set(datasets))]
        made = prompt.encode([text for _, texts in wanted for text in texts])
        return self._lists.vectors.index_put((torch.cat([rows for rows, _ in wanted]),), made)

    def _closed(self, batch: Batch) -> Tensor | None:
        """bool ``[B, K]``, of the words of each image's list those that it was not annotated for; None: there are none.

        With the union, of all outputs: also those of other datasets' labels that mean the same.
        """
        if not self._unannotated:
            return None
        if self.settings.classifier == "union":
            return self._unannotated.columns(batch)
        labels = self._unannotated.labels(batch)
        if labels is None:
            return None
        ids = batch.dataset_ids
        return labels.gather(1, self._lists.rows[ids]) & ~self._lists.padding[ids]

    def _targets(self, batch: Batch) -> list[Targets]:
        return targets_of(
            batch,
            self._lists.things,
            whole_classes=self.settings.targets == "classes",
            void_is_negative=self.settings.void == "negative",
        )

    def after_step(self, step: int) -> Mapping[str, float | Tensor]:
        """How many segments of the step had no query, because there are too few of them."""
        self._found.clear()
        count, self._unmatched = self._unmatched, torch.zeros_like(self._unmatched)
        if self._world > 1:
            torch.distributed.all_reduce(count)
        return {"segments_without_query": count}

    def figures(self) -> dict[str, float]:
        """The temperature."""
        return {"temperature": self.temperature().item()} if self.heads is None else {}

    # ---- what training and prediction share

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel features ``[B, D, h, w]`` and memory ``[B, S, D]`` of images ``[B, 3, H, W]``."""
        features, memory = self.pixels(self.model(self.model.normalise(images)))
        return features, memory

    def words(self, vectors: Tensor) -> Tensor | None:
        """Label vectors ``[K, C]`` in the space of queries, ``[K, D]``; None where heads classify."""
        return None if self.adapter is None else self.adapter(vectors)

    def decode(self, queries: Tensor, memory: Tensor, words: Tensor | None, padding: Tensor) -> list[Tensor]:
        """The queries ``[B, N, D]`` after every layer, before them the label list ``[B, K, D]`` with its `padding`."""
        if words is not None:
            words = torch.cat([words, self.nothing.expand(len(words), 1, -1)], dim=1)
            padding = torch.cat([padding, padding.new_zeros(len(padding), 1)], dim=1)
        decoded = []
        for layer in self.layers:
            queries = layer(queries, memory, words, padding)
            decoded.append(self.norm(queries))
        return decoded

    def by_words(self, queries: Tensor, words: Tensor) -> Tensor:
        """Eq. 1: cosine over τ of queries ``[B, N, D]`` with words ``[B, K, D]`` and "nothing": ``[B, N, K + 1]``."""
        every = torch.cat([words, self.nothing.expand(len(words), 1, -1)], dim=1).float()
        logits: Tensor = F.normalize(queries, dim=-1) @ F.normalize(every, dim=-1).transpose(1, 2) / self.temperature()
        return logits

    def _logits(self, queries: Tensor, words: Tensor | None, padding: Tensor, ids: Tensor) -> Tensor:
        """float32 ``[B, N, K + 1]``, −∞ for what is padding; with the union, of all outputs."""
        if words is not None:
            logits = self.by_words(queries, words)
        else:
            assert self.heads is not None
            every: Tensor = self.heads(queries)
            if self.settings.classifier == "union":
                return every
            lists = self._lists
            nothing = max(self.outputs.values()) + 1 + lists.space[ids]
            wanted = torch.cat([lists.output[lists.rows[ids]], nothing[:, None]], dim=1)
            logits = every.gather(2, wanted[:, None].expand(-1, every.shape[1], -1))
        absent = torch.cat([padding, padding.new_zeros(len(padding), 1)], dim=1)
        return logits.masked_fill(absent[:, None], -torch.inf)

    def which_are_things(self) -> Mapping[LabelKey, bool]:
        """As the recipes of training told; where one didn't, things are what its segments or boxes are of.

        Sets that have neither say nothing. Where all were like that, only regions of classes were learned: stuff.
        """
        told = {key: bool(thing) for key, thing in zip(self.labels, self.things.tolist(), strict=True) if thing >= 0}
        return told or dict.fromkeys(self.labels, False)

    def set_segment_score(self, score: float) -> None:
        """In place of the setting."""
        self.settings = replace(self.settings, segment_score=score)

    def predictor(self, labels: LabelList, views: Views) -> LmsegPredictor:
        """Any list of vectors; with heads, labels of one label space."""
        return LmsegPredictor(self, labels, views)


def _outputs(vocabulary: Vocabulary, *, union: bool) -> dict[LabelKey, int]:
    """Which output is each label's: its own or, in the `union`, its column. Raises ConfigError."""
    if not union:
        return {key: output for output, key in enumerate(vocabulary.keys)}
    columns = [(key, column) for column, keys in enumerate(vocabulary.labels) for key in keys]
    outputs = dict(columns)
    if len(outputs) < len(columns):
        raise ConfigError(
            "classifier = union has one output for each label, and some labels may be several columns",
            fix="Use --merge name (the paper's), text or naive",
        )
    return outputs

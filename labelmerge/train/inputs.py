"""What a run is trained on: which samples of which datasets, and which labels are its columns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.catalog import UNLABELED
from labelmerge.errors import CheckpointError, ConfigError, LabelmergeError, did_you_mean
from labelmerge.labels import LabelKey
from labelmerge.loading.datasets import UNLABELLED, DatasetShards, group_by_dataset
from labelmerge.loading.mixture import Mixture
from labelmerge.merge.baselines import merged_bank
from labelmerge.merge.columns import Columns, build_columns
from labelmerge.merge.merges import by_concepts, taxonomy_of
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.model.checkpoint import newest_checkpoint, read_config, read_meta
from labelmerge.processes import Ranks
from labelmerge.remote import local_file
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.train.config import TrainConfig
from labelmerge.train.finished import runs_it_begins_with, weights_it_begins_with
from labelmerge.train.views import augmentations
from labelmerge.urls import path_or_url

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The data of a run.

    Attributes:
        mixture: makes the batches.
        bank: the label vectors' bank version; a baseline's, where the run asks for one.
        columns: the merged labels.
        taxonomy: what the labels of the bank mean, where columns are concepts.
        record: what config.toml says about all this: paths, versions and hashes.
    """

    mixture: Mixture
    bank: Bank
    columns: Columns
    taxonomy: Taxonomy | None
    record: dict[str, Any]

    @property
    def datasets(self) -> list[str]:
        """The D datasets by name, in the order of `Batch.dataset_ids`."""
        return self.mixture.datasets

    @property
    def samples(self) -> int:
        """How many samples the datasets have together."""
        return sum(map(len, self.mixture.sources))

    @property
    def vocabulary(self) -> Vocabulary:
        """What the learner is built for."""
        columns = self.columns
        may = tuple(
            tuple(dict.fromkeys(columns.labels[row] for row in np.flatnonzero(column))) for column in columns.positive.T
        )
        return Vocabulary(self.bank.dim, tuple(self.datasets), tuple(columns.texts), may)


def read_inputs(
    shards: Sequence[Path],
    bank: Path,
    split: str | None,
    config: TrainConfig,
    method: Method,
    ranks: Ranks,
    *,
    defer: bool = False,
) -> Inputs:
    """Open the shards and the bank, and decide what is trained on; each process makes its own part of the batches.

    Args:
        defer: the device that trains finishes the images (`Mixture`).

    Raises:
        ShardError, BankError: they can't be read, or do not fit together.
        ConfigError: the configuration does not fit them.
    """
    settings = config.method_settings
    needs = method.needs(settings)
    language = Bank.load(bank)
    also = UNLABELED if "image" in needs.annotation_types else None
    sources = _sources([ShardSet.open(folder) for folder in find_splits(shards, split, also=also)], config, needs)
    # Depths need no labels, and then nobody asks which of them occur.
    labelled = [source for source in sources if source.annotation_type != "image" or needs.depth]
    table = local_file(Path(config.taxonomy)) if config.taxonomy else None
    # The baselines' classes are the texts of their banks.
    taxonomy = _taxonomy(config.merge, language, table)
    told = None if config.merge in ("text", "name", "naive") else taxonomy
    related = by_concepts(language) if told is None and language.probe.size else taxonomy
    vectors = merged_bank(language, config.merge, sorted({source.space.name for source in labelled}), taxonomy)
    every = {key: 1 for source in labelled for key in source.space.keys}
    columns = build_columns(
        vectors,
        [source.space for source in sources],
        every if config.labels == "all" or needs.depth else label_counts(sources),
        told,
        relations=related,
        rows=needs.label_targets,
        datasets=[source.dataset for source in sources],
        annotated=[None if source.own_lists else source.annotated for source in sources],
        own_lists=[source.dataset for source in sources if source.own_lists],
    )
    mixture = _mixture(sources, columns, config, needs, ranks, defer)
    method.check(settings, sources, vectors)
    _say_what_was_seen(config, sources)
    sets = [shard_set for source in sources for shard_set in source.sets]
    record = {
        "bank": path_or_url(bank),
        "bank_version": vectors.version,
        "columns": columns.hash,
        "shards": list(dict.fromkeys(str(shard_set.source["folder"]) for shard_set in sets)),
        "manifests": {f"{shard_set.dataset}/{shard_set.split}": shard_set.manifest_sha256 for shard_set in sets},
        **({"weights": weights} if (weights := weights_it_begins_with(config)) else {}),
    }
    return Inputs(mixture, vectors, columns, told, record)


def _sources(sets: Sequence[ShardSet], config: TrainConfig, needs: Needs) -> list[DatasetShards]:
    """The datasets to train on: those that some loss is for, evaluation sets only on request. Raises ConfigError."""
    kept, reasons = [], []
    for source in _labelled(group_by_dataset(sets), config, needs):
        if source.annotation_type not in needs.annotation_types:
            reason = f"no loss for {source.annotation_type} samples in {needs.because or f'method {config.method}'}"
        elif needs.depth and not source.has_depth:
            reason = "its shards have no depths (depth.png)"
        elif any(shard_set.role == "eval" for shard_set in source.sets) and not config.eval_sets:
            reason = "it is an evaluation set (`--set eval_sets=true` trains on those too)"
        else:
            kept.append(source)
            continue
        reasons.append(f"{source.dataset} is left out: {reason}")
    if not kept:
        raise ConfigError(f"nothing to train on: {'; '.join(reasons)}")
    for reason in reasons:
        _log.info("%s", reason)
    silent = {source.dataset: why for source in kept if (why := _teaches_nothing(source, needs)) is not None}
    if len(silent) == len(kept):
        raise ConfigError(f"nothing to learn: {'; '.join(f'{name}: {why}' for name, why in silent.items())}")
    for name, why in silent.items():
        _log.warning("nothing in %s teaches anything: %s", name, why)
    return kept


def _labelled(sources: Sequence[DatasetShards], config: TrainConfig, needs: Needs) -> list[DatasetShards]:
    """The datasets with as many labels as `labelled` says, and their images alone where the method learns from such.

    Raises:
        ConfigError: it names a dataset that is not here, or one without labels.
        ShardError: it asks for more samples than there are.
    """
    names = [source.dataset for source in sources if not source.hidden]
    for name in config.labelled:
        if name not in names:
            raise ConfigError(f"`labelled` names {name!r}, which is not here", fix=did_you_mean(name, names))
    alone = {source.dataset: source for source in sources if source.hidden}
    given = []
    for source in sources:
        if source.hidden:
            continue
        count = config.labelled.get(source.dataset)
        if count is None:
            given.append(source)
            continue
        if source.annotation_type == "image":
            raise ConfigError(f"`labelled` asks for samples of {source.dataset}, which has no labels")
        given.append(source.labelled(count, config.labelled_seed))
        _log.info("%s: labels of %d of %d samples", source.dataset, count, len(source))
        if "image" in needs.annotation_types:
            given.append(source.without_labels(alone.pop(source.dataset + UNLABELLED, None)))
    return sorted([*given, *alone.values()], key=lambda source: source.dataset)


def _say_what_was_seen(config: TrainConfig, sources: Sequence[DatasetShards]) -> None:
    """Warn where a run to begin with has learned from labels that `labelled` hides."""
    for path in runs_it_begins_with(config) if config.labelled else ():
        folder = newest_checkpoint(Path(path))
        try:
            meta, theirs = (read_meta(folder), read_config(folder)) if folder is not None else ({}, {})
        except CheckpointError:  # said when it is loaded
            continue
        seen, seed = theirs.get("labelled"), theirs.get("labelled_seed", 0)
        for source in sources:
            ours = config.labelled.get(source.dataset)
            known = {(f"{each.dataset}/{each.split}", each.manifest_sha256) for each in source.sets}
            if ours is None or source.annotation_type == "image" or known.isdisjoint(meta.get("manifests", {}).items()):
                continue
            count = seen.get(source.dataset) if isinstance(seen, dict) else None
            if not isinstance(count, int) or count > ours or seed != config.labelled_seed:
                _log.warning(
                    "%s has learned from labels of %s that are hidden here: it had %s. For a fair figure, "
                    "train it with --labelled %s=%d%s",
                    path, source.dataset,
                    "all of them" if count is None else f"{count}, chosen by labelled_seed = {seed}",
                    source.dataset, ours,
                    f" --set labelled_seed={config.labelled_seed}" if config.labelled_seed else "",
                )  # fmt: skip


class _NoEncoder(Exception):
    """The bank's encoder is not available."""


def _taxonomy(merge: str, bank: Bank, table: Path | None) -> Taxonomy:
    """The run's taxonomy, as `labelmerge merge` finds it; a warning where labels must be placed without the encoder."""
    ask = concept_encoder(bank)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        assert ask is not None
        try:
            return ask(texts)
        except LabelmergeError as error:
            raise _NoEncoder(error.what) from error

    try:
        return taxonomy_of(merge, bank, table, encode=encode if ask else None)
    except _NoEncoder as error:
        _log.warning(
            "unknown names are compared only with the bank's own labels, because its encoder can't be loaded "
            "(%s): `labelmerge merge` shows what comes of it, and --taxonomy takes its table", error,
        )  # fmt: skip
        return taxonomy_of(merge, bank, table)


def _teaches_nothing(source: DatasetShards, needs: Needs) -> str | None:
    if needs.depth:
        return None if source.depth_pixels else "no pixel has a known depth"
    return teaches_nothing(source)


def teaches_nothing(source: DatasetShards) -> str | None:
    """Why no loss can come from a dataset, by its manifests; None where one can. Images alone need no labels."""
    boxes = sum(sum(shard_set.class_boxes.values()) for shard_set in source.sets)
    if source.annotation_type == "box":
        if not boxes:
            return "it has no boxes"
        if boxes == sum(shard_set.crowd_boxes for shard_set in source.sets):
            return "every box is a crowd (iscrowd or group_of), and these are left out"
    elif source.annotation_type in ("mask", "noisy_mask") and not any(
        count for shard_set in source.sets for count in shard_set.class_pixels.values()
    ):
        return "no pixel has a label"
    return None


def label_counts(sources: Sequence[DatasetShards]) -> dict[LabelKey, int]:
    """How many pixels and boxes of each label there are, together."""
    found: Counter[LabelKey] = Counter()
    for source in sources:
        for shard_set in source.sets:
            for counts in (shard_set.class_pixels, shard_set.class_boxes):
                found.update({(source.space.name, index): count for index, count in counts.items()})
    return dict(found)


def _mixture(
    sources: Sequence[DatasetShards], columns: Columns, config: TrainConfig, needs: Needs, ranks: Ranks, defer: bool
) -> Mixture:
    share, remainder = divmod(config.batch_size, len(sources))
    if not config.weights and remainder:
        _log.info(
            "batch_size %d is not a multiple of the %d datasets: each has %d or %d samples in a batch, in rotation",
            config.batch_size, len(sources), share, share + 1,
        )  # fmt: skip
    common, own, absent = augmentations(config, [source.dataset for source in sources])
    for line in absent:
        _log.warning("%s", line)
    return Mixture(
        sources,
        config.batch_size,
        config.seed,
        common,
        own=own,
        tables=columns.tables,
        weights=config.weights,
        views=needs.views,
        segments=needs.segments,
        depth=needs.depth,
        cache_mb=config.cache_mb,
        rank=ranks.rank,
        world=ranks.world,
        defer=defer,
    )

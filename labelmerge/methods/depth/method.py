"""Depth: from one image, up to scale and shift, with or without labels as a second input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.depth.learner import DepthLearner
from labelmerge.methods.depth.settings import DepthSettings
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.model.build import SegmentationModel

_log = logging.getLogger(__name__)


class Depth(Method):
    """An encoder-decoder and losses that no scale or shift of a depth changes."""

    answers = "depth"

    def needs(self, settings: DepthSettings) -> Needs:
        """Depths, of samples of any kind; masks where labels are an input."""
        kinds = ("mask", "noisy_mask") if settings.with_labels else ("mask", "noisy_mask", "box", "image")
        return Needs(kinds, because=f"depth_labels = {settings.depth_labels!r}", depth=True, label_targets=True)

    def check(self, settings: DepthSettings, sources: Sequence[DatasetShards], bank: Bank) -> None:
        """Check that there are labelled pixels if labels are an input. Raises ConfigError."""
        for line in settings.idle():
            _log.warning("%s", line)
        if settings.with_labels and not any(
            any(shard_set.class_pixels.values()) for source in sources for shard_set in source.sets
        ):
            raise ConfigError(
                "no pixel has a label, and depth_labels = 'masks' takes them as an input",
                fix="Relabel the shards with a trained model, or set depth_labels to none",
            )

    def build(
        self, settings: DepthSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> DepthLearner:
        """A network of features, a head of one channel, and the labels' projection."""
        return DepthLearner(settings, vocabulary, network(settings.depth_features))


METHOD = Depth()

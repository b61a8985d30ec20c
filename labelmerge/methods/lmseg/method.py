"""LMSeg: queries and words (Zhou et al., ICLR 2023)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.model.build import SegmentationModel

_log = logging.getLogger(__name__)


class LMSeg(Method):
    """Queries become segments, and the label vectors say which."""

    def needs(self, settings: LmsegSettings) -> Needs:
        """Masks; boxes too, unless they are left out."""
        kinds = ("mask", "noisy_mask", *(["box"] if settings.box_weight else []))
        return Needs(
            kinds,
            because=f"box_weight = {settings.box_weight:g}",
            segments=settings.targets == "segments",
            label_targets=True,
        )

    def check(self, settings: LmsegSettings, sources: Sequence[DatasetShards], bank: Bank) -> None:
        """Say which sets teach segments, and which a region for each class."""
        if settings.targets == "segments":
            without = [
                source.dataset
                for source in sources
                if source.annotation_type != "box" and not any(each.has_segments for each in source.sets)
            ]
            if without:
                _log.info("no segments in %s: each class of an image is one region there", ", ".join(without))

    def build(
        self, settings: LmsegSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> LmsegLearner:
        """The encoder of the run's network, with a pixel decoder and a query decoder behind it."""
        return LmsegLearner(settings, vocabulary, network(settings.query_dim))


METHOD = LMSeg()

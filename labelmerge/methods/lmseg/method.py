"""LMSeg: queries and words (Zhou et al., ICLR 2023)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.encoders.encoders import fingerprint
from labelmerge.errors import BankError
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.model.build import SegmentationModel
from labelmerge.shardset.samples import all_are_things

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
        """Say which sets teach no segments, and which do not tell things from stuff."""
        for line in settings.idle():
            _log.warning("%s", line)
        if settings.text_tower:
            _refuse_another_tower(settings.text_tower, bank)
        if settings.targets == "segments":
            for source in sources:
                if any(each.has_segments and each.things is None for each in source.sets):
                    _log.warning("%s", all_are_things(source.dataset))
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


def _refuse_another_tower(spec: str, bank: Bank) -> None:
    """Raise BankError where the bank's vectors are of another encoder than the tower."""
    found = fingerprint(spec)
    made_by = (bank.identity.get("model"), bank.identity.get("weights_sha256"))
    if found.model != made_by[0] or (found.weights_sha256 is not None and found.weights_sha256 != made_by[1]):
        raise BankError(
            f"the bank's vectors are of {bank.encoder}, and a prompt is to be learned in {spec}",
            where=bank.folder,
            fix="Use the bank's own encoder as text_tower, or a bank of that one",
        )


METHOD = LMSeg()

"""SSIW: labels by their sentences (Yin et al., IJCV 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.methods.ssiw.losses import TERMS
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import refuse_other_teachers
from labelmerge.model.build import SegmentationModel


class SSIW(Method):
    """Pixels learn the vector of their label's sentence, boxes the image embedding of what they cut out."""

    def needs(self, settings: SsiwSettings) -> Needs:
        """Samples of the kinds that the chosen losses use."""
        return Needs(
            (*(TERMS[name] for name in settings.losses), *(("image",) if settings.unlabelled != "none" else ())),
            because=f"losses = {list(settings.losses)}",
            label_targets=settings.negatives in ("unrelated", "graded"),
        )

    def check(self, settings: SsiwSettings, sources: Sequence[DatasetShards], bank: Bank) -> None:
        """Check that box embeddings in shards are from the bank's model, and that needed unlabelled images exist.

        Raises:
            ShardError, ConfigError: it is not so.
        """
        if settings.unlabelled != "none" and all(source.annotation_type != "image" for source in sources):
            raise ConfigError(
                f"there are no unlabelled images, which unlabelled = {settings.unlabelled!r} learns from",
                fix="Hide labels (--labelled DATASET=N), or add images that have none (`labelmerge shard … --split "
                "unlabeled`, or the reader `images`)",
            )
        refuse_other_teachers(sources, bank)

    def build(
        self, settings: SsiwSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> SSIWLearner:
        """A network whose embeddings have the label vectors' dimension, and a temperature."""
        return SSIWLearner(settings, vocabulary, network(vocabulary.dim))


METHOD = SSIW()

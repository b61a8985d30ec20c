"""USSS: universal semi-supervised semantic segmentation (Kalluri et al., ICCV 2019)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.methods.usss.learner import USSSLearner
from labelmerge.methods.usss.settings import UsssSettings
from labelmerge.model.build import SegmentationModel

_log = logging.getLogger(__name__)


class USSS(Method):
    """Every dataset has its own decoder; pixels of unlabelled images are drawn to some label embedding."""

    def needs(self, settings: UsssSettings) -> Needs:
        """Masks, and images without any where there is a loss for them."""
        images = ("image",) if settings.with_entropy else ()
        return Needs(
            ("mask", "noisy_mask", *images),
            because=f"method usss, cross_weight = {settings.cross_weight}, within_weight = {settings.within_weight}",
            label_targets=True,
        )

    def check(self, settings: UsssSettings, sources: Sequence[DatasetShards], bank: Bank) -> None:
        """Check that there are unlabelled images if a loss needs them, and runs if centroids are wanted.

        Raises:
            ConfigError: it is not so.
        """
        if not settings.with_entropy:
            return
        unlabelled = [source for source in sources if source.annotation_type == "image"]
        if not unlabelled:
            raise ConfigError(
                "there are no unlabelled images, which usss learns from",
                fix="Hide labels (--labelled DATASET=N), add images that have none (`labelmerge shard … --split "
                "unlabeled`, or the reader `images`), or train "
                "jointly: --set cross_weight=0 within_weight=0",
            )
        if settings.label_embeddings == "centroids" and not settings.supervised:
            raise ConfigError(
                "centroids need a supervised run",
                fix="Train one (--set cross_weight=0 within_weight=0) and give it: --set supervised=RUN; or use "
                "--set label_embeddings=random",
            )
        for name, given in (
            ("supervised", settings.supervised),
            ("centroids_per_label", settings.centroids_per_label > 1),
        ):
            if given and settings.label_embeddings != "centroids":
                _log.warning(
                    "%s is for centroids, and %s has none", name, f"label_embeddings = {settings.label_embeddings}"
                )
        labelled = {source.space.name: source.space.names for source in sources if source.annotation_type != "image"}
        own = [each.space.name in labelled or each.space.names in labelled.values() for each in unlabelled]
        crossed = settings.cross_weight > 0 and any(len(labelled) > int(has_own) for has_own in own)
        if not crossed and not (settings.within_weight > 0 and any(own)):
            fix = (
                "Set within_weight above 0, or add shards of another dataset"
                if any(own)
                else "Set cross_weight above 0"
            )
            raise ConfigError(
                "no unlabelled image would teach anything: cross_weight is about the labels of other datasets, "
                "within_weight about those of its own",
                fix=fix,
            )

    def build(
        self, settings: UsssSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> USSSLearner:
        """A network of features, and a decoder for each label space."""
        return USSSLearner(settings, vocabulary, network(settings.decoder_features))


METHOD = USSS()

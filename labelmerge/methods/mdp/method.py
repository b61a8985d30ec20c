"""MDP: pretraining on several datasets by pixel-to-prototype contrast (Shi et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable

from labelmerge.methods.mdp.learner import MDPLearner
from labelmerge.methods.mdp.settings import MdpSettings
from labelmerge.methods.method import Method, Needs, Vocabulary
from labelmerge.model.build import SegmentationModel


class MDP(Method):
    """Pixels of a class are drawn to the mean of its pixels in other images; the result is the encoder."""

    def needs(self, settings: MdpSettings) -> Needs:
        """Masks, each sample in two views."""
        return Needs(("mask", "noisy_mask"), views=2, label_targets=True)

    def build(
        self, settings: MdpSettings, vocabulary: Vocabulary, network: Callable[[int], SegmentationModel]
    ) -> MDPLearner:
        """A network of features, and the projection on it."""
        return MDPLearner(settings, vocabulary, network(settings.projection_features))


METHOD = MDP()

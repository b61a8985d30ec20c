"""The settings of USSS."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.settings import problems, refuse, setting


@dataclass(frozen=True)
class UsssSettings:
    """The settings of USSS's losses and label embeddings.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    cross_weight: float = setting(
        1.0,
        "α: factor of the entropy over other datasets' labels on unlabelled images. With α = β = 0 this is joint "
        "training, and of one dataset a linear softmax head.",
    )
    within_weight: float = setting(1.0, "β: factor of the entropy over the own dataset's labels on unlabelled images.")
    balance_weight: float = setting(
        0.0,
        "How much of the entropy of an image's mean distribution is taken off both, so that pixels can't all be near "
        "one label; 0 in the paper.",
    )
    label_embeddings: str = setting(
        "centroids",
        "The labels' points in the entropy head's space: `centroids` of features of `supervised` runs (the paper), "
        "`random` ones, or the vectors of the `bank`.",
        choices=("centroids", "random", "bank"),
    )
    supervised: tuple[str, ...] = setting(
        (),
        "The runs whose features the centroids are of: one for each dataset, or one that knows several. "
        "`cross_weight = within_weight = 0` makes such runs.",
        metavar="RUN,…",
    )
    centroids_per_label: int = setting(1, "Centroids of each label, by k-means where there are several.", minimum=1)
    centroid_decay: float = setting(
        1.0,
        "λ of the centroids' average with those of the network in training (eq. 7); 1 leaves them as they are, the "
        "paper's best.",
        minimum=0,
        maximum=1,
    )
    centroid_steps: int = setting(
        100, "After so many steps each the centroids move, where λ is below 1; an epoch in the paper.", minimum=1
    )
    entropy_dim: int = setting(
        128, "Dimension of the entropy head's space; of `bank`, its vectors' dimension.", minimum=1
    )
    decoder_features: int = setting(512, "Channels of the encoder's output, which every decoder reads.", minimum=1)

    def __post_init__(self) -> None:
        wrong = problems(self)
        if not wrong and self.centroid_decay < 1 and self.centroids_per_label > 1:
            wrong.append("centroids that move (centroid_decay below 1) are one of each label: centroids_per_label = 1")
        refuse(wrong)

    @property
    def with_entropy(self) -> bool:
        """Whether anything is learned from unlabelled images."""
        return self.cross_weight > 0 or self.within_weight > 0

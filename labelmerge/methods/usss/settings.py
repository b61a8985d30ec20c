"""What USSS may be told."""

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
    entropy_dim: int = setting(
        128, "Dimension of the entropy head's space; of `bank`, its vectors' dimension.", minimum=1
    )
    decoder_features: int = setting(512, "Channels of the encoder's output, which every decoder reads.", minimum=1)

    def __post_init__(self) -> None:
        refuse(problems(self))

    @property
    def with_entropy(self) -> bool:
        """Whether anything is learned from unlabelled images."""
        return self.cross_weight > 0 or self.within_weight > 0
